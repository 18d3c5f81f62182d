//! Dropping messages that have waited for too long: for devices that do not sync, and for servers that
//! cannot be reached.
//!
//! Whoever does so now and then goes through the heads of all queues. Of a queue that is not empty the
//! oldest message is looked at, and only where that is too old those that follow.

use std::time::Duration;

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    rows::user::ToDeviceHead,
    tables::{TO_DEVICE, TO_DEVICE_HEAD, TO_DEVICE_OUT, TO_DEVICE_OUT_HEAD},
};
use ruma::{DeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};

use super::{acknowledge, forget_sent};
use crate::Env;

/// Users and servers are listed so many at a time.
const LISTED_AT_ONCE: usize = 500;
/// So many messages of a queue are looked at at once, after the first.
const LOOKED_AT_ONCE: usize = 100;
/// So many messages for a server are deleted in one commit.
const DELETED_AT_ONCE: u64 = 500;

/// How long messages wait; for ever if `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// For devices of our users.
    pub device: Option<Duration>,
    /// For other servers.
    pub server: Option<Duration>,
}

/// Drops the messages that have waited for longer, and returns how many there were.
///
/// # Errors
/// Where the store fails; what was dropped stays so.
pub async fn expire(env: &Env, lifetimes: Lifetimes) -> millrace_store::Result<u64> {
    let now: u64 = env.now().get().into();
    let before = |lifetime: Duration| {
        now.saturating_sub(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
    };
    let mut dropped = 0;
    if let Some(lifetime) = lifetimes.device {
        dropped += expire_devices(env, before(lifetime)).await?;
    }
    if let Some(lifetime) = lifetimes.server {
        dropped += expire_servers(env, before(lifetime)).await?;
    }
    Ok(dropped)
}

async fn expire_devices(env: &Env, before_ms: u64) -> millrace_store::Result<u64> {
    let (mut listed, mut dropped): (Option<OwnedUserId>, u64) = (None, 0);
    loop {
        let snapshot = env.store.snapshot();
        let users = snapshot.partitions(&TO_DEVICE_HEAD, listed.as_ref(), LISTED_AT_ONCE).await?;
        let Some(end) = users.last().cloned() else { return Ok(dropped) };
        for user in users {
            for (device, head) in snapshot.scan(&TO_DEVICE_HEAD, &user, Scan::all()).await? {
                dropped += expire_device(env, (&user, &device), head, before_ms).await?;
            }
        }
        listed = Some(end);
    }
}

async fn expire_device(
    env: &Env,
    (user, device): (&UserId, &DeviceId),
    head: ToDeviceHead,
    before_ms: u64,
) -> millrace_store::Result<u64> {
    let snapshot = &env.store.snapshot();
    let read = |from: u64, limit| async move {
        let scan = Scan::all().from((device, from)).up_to((device, head.last)).limit(limit);
        let rows = snapshot.scan(&TO_DEVICE, user, scan).await?;
        let times = rows.into_iter().map(|((_, n), message)| (n, message.sent_ms));
        Ok::<Vec<_>, millrace_store::Error>(times.collect())
    };
    let Some(last) = last_before(before_ms, head, read).await? else { return Ok(0) };
    acknowledge(env, user, device, last).await?;
    Ok(last - head.first + 1)
}

async fn expire_servers(env: &Env, before_ms: u64) -> millrace_store::Result<u64> {
    let (mut listed, mut dropped): (Option<OwnedServerName>, u64) = (None, 0);
    loop {
        let snapshot = env.store.snapshot();
        let listed_now =
            snapshot.partitions(&TO_DEVICE_OUT_HEAD, listed.as_ref(), LISTED_AT_ONCE).await?;
        let Some(end) = listed_now.last().cloned() else { return Ok(dropped) };
        for server in listed_now {
            if let Some(head) = snapshot.get(&TO_DEVICE_OUT_HEAD, &server, ()).await? {
                dropped += expire_server(env, &server, head, before_ms).await?;
            }
        }
        listed = Some(end);
    }
}

async fn expire_server(
    env: &Env,
    server: &ServerName,
    head: ToDeviceHead,
    before_ms: u64,
) -> millrace_store::Result<u64> {
    let snapshot = &env.store.snapshot();
    let read = |from: u64, limit| async move {
        let scan = Scan::all().from(from).up_to(head.last).limit(limit);
        let rows = snapshot.scan(&TO_DEVICE_OUT, server, scan).await?;
        let times = rows.into_iter().map(|(n, message)| (n, message.sent_ms));
        Ok::<Vec<_>, millrace_store::Error>(times.collect())
    };
    let Some(last) = last_before(before_ms, head, read).await? else { return Ok(0) };
    let mut up_to = head.first;
    loop {
        up_to = last.min(up_to + DELETED_AT_ONCE - 1);
        let write = |tx: Tx| async move { forget_sent(&tx, server, up_to).await }.boxed();
        env.store.transact(write).await?;
        if up_to == last {
            return Ok(last - head.first + 1);
        }
        up_to += 1;
    }
}

/// The last of the oldest messages of a queue that were sent before a moment, if any was. `read` gives
/// place and time of so many messages from a place on.
async fn last_before<F>(
    before_ms: u64,
    head: ToDeviceHead,
    read: impl Fn(u64, usize) -> F + Send,
) -> millrace_store::Result<Option<u64>>
where
    F: Future<Output = millrace_store::Result<Vec<(u64, u64)>>> + Send,
{
    let (mut from, mut limit, mut last) = (head.first, 1, None);
    while from <= head.last {
        let rows = read(from, limit).await?;
        let whole = rows.len() == limit;
        for (n, sent_ms) in rows {
            if sent_ms >= before_ms {
                return Ok(last);
            }
            // Of which it is not known goes with the first later one of which it is.
            if sent_ms > 0 {
                last = Some(n);
            }
            from = n + 1;
        }
        if !whole {
            break;
        }
        limit = LOOKED_AT_ONCE;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_store::{
        engine::MemoryEngine,
        rows::{account::Device, user::ToDevice},
        tables::{DEVICES, DEVICES_HEAD},
    };
    use ruma::{device_id, server_name, user_id};

    use super::*;
    use crate::{
        testing,
        to_device::{Target, pending, send},
    };

    const DAY: Duration = Duration::from_hours(24);
    const LIFETIMES: Lifetimes = Lifetimes { device: Some(DAY), server: Some(DAY) };
    const HOUR_MS: u64 = 3_600_000;

    fn bob() -> (&'static UserId, &'static DeviceId) {
        (user_id!("@bob:test.example"), device_id!("B"))
    }

    async fn world() -> (Env, std::sync::Arc<testing::TestClock>) {
        let (env, clock) = testing::env_on(MemoryEngine::new()).await;
        let (user, device) = bob();
        let added = env.store.transact(|tx| {
            tx.put(&DEVICES, user, device, &Device::default());
            tx.put(&DEVICES_HEAD, user, (), &1);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        });
        added.await.unwrap();
        (env, clock)
    }

    async fn say(env: &Env, to: &UserId, text: &str) {
        let from = (user_id!("@alice:test.example"), device_id!("A"));
        let content = format!(r#"{{"text":"{text}"}}"#);
        let targets = BTreeMap::from([(Target::Device(bob().1.to_owned()), content)]);
        send(env, from, "t", text, &BTreeMap::from([(to.to_owned(), targets)])).await.unwrap();
    }

    async fn waiting(env: &Env) -> Vec<String> {
        let (user, device) = bob();
        let waiting = pending(&env.store.snapshot(), user, device, 0, 1000).await.unwrap();
        waiting.into_iter().map(|pending| pending.message.content).collect()
    }

    #[tokio::test]
    async fn messages_for_a_device_that_does_not_sync_expire_and_newer_ones_stay() {
        let (env, clock) = world().await;
        for n in 0..250 {
            say(&env, bob().0, &format!("old{n}")).await;
        }
        clock.advance(20 * HOUR_MS);
        say(&env, bob().0, "newer").await;
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 0);
        clock.advance(5 * HOUR_MS);
        assert_eq!(expire(&env, Lifetimes::default()).await.unwrap(), 0, "nobody asked for it");
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 250);
        assert_eq!(waiting(&env).await, [r#"{"text":"newer"}"#]);
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 0);

        clock.advance(30 * HOUR_MS);
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 1);
        say(&env, bob().0, "back").await;
        let (user, device) = bob();
        let shown = pending(&env.store.snapshot(), user, device, 0, 10).await.unwrap();
        assert_eq!(shown[0].n, 252, "no place is given twice");
    }

    #[tokio::test]
    async fn messages_for_a_server_that_cannot_be_reached_expire_and_newer_ones_stay() {
        let (env, clock) = world().await;
        let (far, carol) = (server_name!("far.example"), user_id!("@carol:far.example"));
        for n in 0..DELETED_AT_ONCE + 1 {
            say(&env, carol, &format!("old{n}")).await;
        }
        clock.advance(20 * HOUR_MS);
        say(&env, carol, "newer").await;
        clock.advance(5 * HOUR_MS);
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), DELETED_AT_ONCE + 1);
        let left = env.store.snapshot().scan(&TO_DEVICE_OUT, far, Scan::all()).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(left[0].1.messages.contains("newer"));
        let head = env.store.snapshot().get(&TO_DEVICE_OUT_HEAD, far, ()).await.unwrap().unwrap();
        assert_eq!((head.first, head.last), (left[0].0, left[0].0));
    }

    #[tokio::test]
    async fn messages_without_a_time_expire_with_the_first_later_one_that_has_one() {
        let (env, clock) = world().await;
        let (user, device) = bob();
        let queued = env.store.transact(|tx| {
            for n in 1..=150_u64 {
                let (sender, kind) = (user.to_owned(), "t".to_owned());
                let message = ToDevice { sender, kind, content: "{}".to_owned(), sent_ms: 0 };
                tx.put(&TO_DEVICE, user, (device, n), &message);
            }
            tx.put(&TO_DEVICE_HEAD, user, device, &ToDeviceHead { first: 1, last: 150 });
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        });
        queued.await.unwrap();
        clock.advance(30 * HOUR_MS);
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 0);
        say(&env, user, "timed").await;
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 0);
        clock.advance(25 * HOUR_MS);
        assert_eq!(expire(&env, LIFETIMES).await.unwrap(), 151);
        assert!(waiting(&env).await.is_empty());
    }
}
