//! What encryption asks of the server: keys claimed by many at once, a message to the 500 devices of
//! a room, and the keys of a room of 1,000 members.

#[expect(dead_code, reason = "its rooms are made by people who register")]
mod world;

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{FutureExt, future::join_all};
use millrace_domain::{
    Env,
    keys::{self, Claims, Reader},
    to_device::{self, Messages, Target},
};
use millrace_store::{
    Tx,
    rows::{
        account::Device,
        keys::{OneTimeKey, OneTimeKeyRange, OneTimeKeysHead, PublishedDevice, UserKeys},
    },
    tables::{
        DEVICES, DEVICES_HEAD, ONE_TIME_KEY_IDS, ONE_TIME_KEYS, ONE_TIME_KEYS_HEAD, USER_KEYS,
    },
};
use ruma::{OwnedUserId, UserId};
use tokio::runtime::Runtime;
use world::{alice, world};

const ALGORITHM: &str = "signed_curve25519";
/// Who claims at once.
const CLAIMERS: usize = 32;
/// A key object is about so large.
const KEY_BYTES: usize = 250;
const DEVICE_KEYS_BYTES: usize = 700;

fn user(n: usize) -> OwnedUserId {
    UserId::parse(format!("@user{n}:bench")).expect("a user ID")
}

/// Gives a user a device `D` with keys, and one-time keys.
async fn add_device(env: &Env, user: &UserId, one_time_keys: u64) {
    let add = |tx: Tx| {
        let json = format!(r#"{{"text":"{}"}}"#, "x".repeat(DEVICE_KEYS_BYTES));
        let published = PublishedDevice { keys: json, name: None };
        let devices = BTreeMap::from([("D".into(), published)]);
        tx.put(&USER_KEYS, user, (), &UserKeys { devices, ..UserKeys::default() });
        tx.put(&DEVICES, user, <&ruma::DeviceId>::from("D"), &Device::default());
        tx.put(&DEVICES_HEAD, user, (), &1);
        for n in 1..=one_time_keys {
            let (id, json) = (format!("{ALGORITHM}:{n}"), "x".repeat(KEY_BYTES));
            let device = <&ruma::DeviceId>::from("D");
            tx.put(&ONE_TIME_KEY_IDS, user, (device, &id), &n);
            tx.put(&ONE_TIME_KEYS, user, (device, ALGORITHM, n), &OneTimeKey { id, json });
        }
        let range = OneTimeKeyRange { first: 1, last: one_time_keys, count: one_time_keys };
        let algorithms = BTreeMap::from([(ALGORITHM.to_owned(), range)]);
        let head = OneTimeKeysHead { algorithms, ..OneTimeKeysHead::default() };
        tx.put(&ONE_TIME_KEYS_HEAD, user, <&ruma::DeviceId>::from("D"), &head);
        std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
    };
    env.store.transact(add).await.expect("a device");
}

fn claims(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let rooms = runtime.block_on(world());
    let env = &rooms.env;
    let mut group = criterion.benchmark_group("keys/claim");
    group.throughput(Throughput::Elements(CLAIMERS as u64));
    let users: Vec<_> = (0..CLAIMERS).map(user).collect();
    let devices = |user: &OwnedUserId| {
        let devices = BTreeMap::from([("D".into(), ALGORITHM.to_owned())]);
        Claims::from([(user.clone(), devices)])
    };
    for (name, targets) in [("of many devices", &users[..]), ("of one device", &users[..1])] {
        let claims: Vec<Claims> =
            users.iter().zip(targets.iter().cycle()).map(|(_, of)| devices(of)).collect();
        let left = AtomicU64::new(0);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let each = (CLAIMERS / targets.len()) as u64;
                if left.fetch_sub(each, Ordering::Relaxed) < each {
                    left.store(5_000, Ordering::Relaxed);
                    for user in targets {
                        runtime.block_on(add_device(env, user, 5_000 + each));
                    }
                }
                let claimed = claims.iter().map(|claims| keys::claim(env, claims));
                for answer in runtime.block_on(join_all(claimed)) {
                    assert_eq!(answer.expect("an answer").len(), 1, "a key is left");
                }
            });
        });
    }
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let rooms = runtime.block_on(world());
    let env = &rooms.env;
    let mut messages = Messages::new();
    for n in 0..500 {
        runtime.block_on(add_device(env, &user(n), 0));
        let content = format!(r#"{{"ciphertext":"{}"}}"#, "x".repeat(500));
        let targets = BTreeMap::from([(Target::Device("D".into()), content)]);
        messages.insert(user(n), targets);
    }
    let transaction = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("to-device");
    group.throughput(Throughput::Elements(500));
    // Every message stays, in memory.
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("500 devices", |bench| {
        bench.iter(|| {
            let id = transaction.fetch_add(1, Ordering::Relaxed).to_string();
            let sender = (alice(), <&ruma::DeviceId>::from("A"));
            let sent = to_device::send(env, sender, "m.room.encrypted", &id, &messages);
            runtime.block_on(sent).expect("sent");
        });
    });
    group.finish();
}

fn query(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let rooms = runtime.block_on(world());
    let env = &rooms.env;
    let users: Vec<_> = (0..1_000).map(user).collect();
    for user in &users {
        runtime.block_on(add_device(env, user, 0));
    }
    let mut group = criterion.benchmark_group("keys/query");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 members", |bench| {
        bench.iter(|| {
            runtime.block_on(async {
                let snapshot = env.store.snapshot();
                for user in &users {
                    let found = keys::query(&snapshot, Reader::User(alice()), user, &[]).await;
                    black_box(found.expect("an answer").expect("keys"));
                }
            });
        });
    });
    group.finish();
}

criterion_group!(benches, claims, fan_out, query);
criterion_main!(benches);
