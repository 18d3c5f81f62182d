//! How fast media come in and go out beside the disk itself, and what a thumbnail costs:
//! `cargo bench -p millrace-media`. Prints a line for each.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic and reports")]

use std::{
    convert::Infallible,
    fs::File,
    io::{Cursor, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use image::{ImageFormat, Rgb, RgbImage};
use millrace_domain::{Clock, Env, Identity, Random};
use millrace_media::{
    Media, Mxc, Settings,
    download::{self, Asking, Door, Found, Remote},
    sources::{Page, RemoteFile, SourceError, SourceLimits, Sources},
    storage::Folder,
    thumbnail::{self, Method, Motion, Wanted},
    upload::{self, Description},
};
use millrace_model::rules::{room_version, signing_key::ServerSigningKey};
use millrace_store::{
    Limits, Store,
    engine::{RocksEngine, RocksOptions},
};
use ruma::{MilliSecondsSinceUnixEpoch, owned_server_name, user_id};

const MIB: usize = 1 << 20;

struct StoppedClock;
impl Clock for StoppedClock {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(1_700_000_000_000_u64.try_into().unwrap())
    }
}

struct Counting(AtomicU64);
impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = (n.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
    }
}

struct Nowhere;
#[async_trait]
impl Sources for Nowhere {
    async fn file(&self, _: &Mxc, _: Duration, _: SourceLimits) -> Result<RemoteFile, SourceError> {
        Err(SourceError::Unknown)
    }
    async fn thumbnail(
        &self,
        _: &Mxc,
        _: &Wanted,
        _: SourceLimits,
    ) -> Result<RemoteFile, SourceError> {
        Err(SourceError::Unknown)
    }
    async fn page(&self, _: &url::Url, _: &str, _: SourceLimits) -> Result<Page, SourceError> {
        Err(SourceError::Unknown)
    }
}

async fn repository(folder: &Path) -> Media {
    let engine = RocksEngine::open(&folder.join("database"), &RocksOptions::default()).unwrap();
    let name = owned_server_name!("bench.example");
    let store = Store::open(Arc::new(engine), &name, Limits::default()).await.unwrap();
    let key = ServerSigningKey::new("bench", &[7; 32]).unwrap();
    let identity = Arc::new(Identity { name, key });
    let random = Arc::new(Counting(AtomicU64::new(1)));
    let rules = room_version::rules;
    let env = Env { store, clock: Arc::new(StoppedClock), random, identity, rules };
    let settings = Settings {
        incoming: folder.join("incoming"),
        upload_bytes_max: 1 << 30,
        thumbnails_at_once: 1,
        ..Settings::default()
    };
    Media::new(env, settings, Arc::new(Folder::new(folder.join("files"))), Arc::new(Nowhere))
}

/// Content of chunks that a connection would bring; no two uploads are the same.
fn chunks(bytes: usize, seed: u8) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    const CHUNK: usize = 64 * 1024;
    let chunk = Bytes::from((0..CHUNK).map(|n| (n as u8) ^ seed).collect::<Vec<u8>>());
    stream::iter((0..bytes.div_ceil(CHUNK)).map(move |n| {
        let rest = bytes - n * CHUNK;
        Ok(if rest < CHUNK { chunk.slice(..rest) } else { chunk.clone() })
    }))
}

async fn add(
    media: &Media,
    content: impl stream::Stream<Item = Result<Bytes, Infallible>>,
) -> Found {
    let alice = user_id!("@alice:bench.example");
    let mxc = upload::upload(media, alice, Description::default(), content).await.unwrap();
    let asking =
        Asking { door: Door::Authenticated, remote: Remote::Refused, wait: Duration::ZERO };
    download::find(media, &mxc, asking).await.unwrap()
}

/// A plain file of the same size, written and made durable: what the disk gives.
fn disk(folder: &Path, bytes: usize, times: u32) -> f64 {
    let piece = vec![3_u8; MIB];
    let begun = Instant::now();
    for n in 0..times {
        let mut file = File::create(folder.join(format!("plain{n}"))).unwrap();
        for start in (0..bytes).step_by(MIB) {
            file.write_all(&piece[..MIB.min(bytes - start)]).unwrap();
        }
        file.sync_all().unwrap();
    }
    rate(bytes, times, begun)
}

fn rate(bytes: usize, times: u32, begun: Instant) -> f64 {
    (bytes as f64) * f64::from(times) / MIB as f64 / begun.elapsed().as_secs_f64()
}

/// The most memory that this process has had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let media = repository(folder.path()).await;
    for (bytes, times) in [(64 * 1024, 50_u32), (8 * MIB, 10), (256 * MIB, 2)] {
        let begun = Instant::now();
        let mut found = Vec::new();
        for n in 0..times {
            found.push(add(&media, chunks(bytes, n as u8 ^ bytes.trailing_zeros() as u8)).await);
        }
        let up = rate(bytes, times, begun);
        let begun = Instant::now();
        for one in &found {
            let mut content = media.read(&one.blob, 0..one.bytes).await.unwrap();
            while content.try_next().await.unwrap().is_some() {}
        }
        let (down, disk) = (rate(bytes, times, begun), disk(folder.path(), bytes, times));
        println!(
            "{} KiB × {times}: up {up:.0} MiB/s, down {down:.0} MiB/s; the disk alone, durable: \
             {disk:.0} MiB/s; peak {} MiB",
            bytes / 1024,
            peak_mib()
        );
    }
    for (name, format) in [("JPEG", ImageFormat::Jpeg), ("PNG", ImageFormat::Png)] {
        let image = RgbImage::from_fn(4000, 3000, |x, y| {
            Rgb([x as u8, (y / 3) as u8, ((x * y) >> 9) as u8])
        });
        let mut content = Cursor::new(Vec::new());
        image.write_to(&mut content, format).unwrap();
        let content = Bytes::from(content.into_inner());
        let found = add(&media, stream::iter([Ok(content)])).await;
        for (width, height, method) in [(96, 96, Method::Crop), (800, 600, Method::Scale)] {
            let wanted = Wanted::new(width, height, method, Motion::Still).unwrap();
            let begun = Instant::now();
            thumbnail::thumbnail(&media, &found, &wanted).await.unwrap();
            println!(
                "{name} of 12 megapixels to {width}×{height}: {} ms; peak {} MiB",
                begun.elapsed().as_millis(),
                peak_mib()
            );
        }
    }
    media.env.store.close().await;
}
