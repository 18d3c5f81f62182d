//! Media in a bucket of a real service that speaks S3: versitygw (the Versity S3 Gateway), which keeps
//! buckets as folders of this machine. `scripts/test` builds it and runs these, with its path in
//! `S3_SERVER`; by themselves: `cargo test --workspace --test server -- --ignored media_bucket::`.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use image::{ImageFormat, RgbImage};
use millrace::{config::Config, shutdown};
use millrace_search::index::Place;
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Client, Network, TestClock, TestServer};
use serde_json::Value;

const BUCKET: &str = "media";

/// The service, with one empty bucket. Ends with this.
struct Service {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("buckets").join(BUCKET)).unwrap();
        std::fs::create_dir(folder.path().join("metadata")).unwrap();
        // A port that is free now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut service = Self { folder, port, process: None };
        service.resume();
        service
    }

    fn resume(&mut self) {
        let program = std::env::var_os("S3_SERVER").expect("S3_SERVER is set");
        let process = Command::new(program)
            .args(["--access", "key", "--secret", "secret", "--quiet"])
            .args(["--port", &format!("127.0.0.1:{}", self.port)])
            .args(["posix", "--sidecar"])
            .args([self.folder.path().join("metadata"), self.folder.path().join("buckets")])
            .stdout(Stdio::null())
            .spawn()
            .expect("the program at S3_SERVER starts");
        self.process = Some(process);
        let listens = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        let up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            listens()
        });
        assert!(up, "the service answers");
    }

    fn suspend(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn config(&self) -> Config {
        let mut config = TestServer::config();
        config.media.s3.bucket = Some(BUCKET.to_owned());
        config.media.s3.endpoint = Some(format!("http://127.0.0.1:{}", self.port));
        config.media.s3.access_key_id = Some("key".to_owned());
        config.media.s3.secret_access_key = Some("secret".to_owned());
        config.media.s3.prefix = "some/where/".to_owned();
        config
    }

    /// The files in the bucket, but the one that a server writes when it starts.
    fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("buckets").join(BUCKET).join("some/where");
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap() != "millrace").collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.suspend();
    }
}

async fn upload(client: &Client, content: impl Into<Body>) -> Response<Bytes> {
    let headers = [("content-type", "application/octet-stream")];
    client.send_raw(Method::POST, "/_matrix/media/v3/upload", &headers, content.into()).await
}

fn medium(answer: &Response<Bytes>) -> String {
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    body["content_uri"].as_str().unwrap().replace("mxc://", "")
}

async fn read(client: &Client, medium: &str, range: &str) -> Response<Bytes> {
    let path = format!("/_matrix/client/v1/media/download/{medium}");
    client.send_raw(Method::GET, &path, &[("range", range)], Body::empty()).await
}

/// No two pieces of it are the same.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

#[tokio::test]
#[ignore = "needs an S3 service: see scripts/test"]
async fn files_are_in_the_bucket_once_whole_and_in_part_and_go_when_nothing_uses_them() {
    let service = Service::start();
    let engine = Arc::new(MemoryEngine::new());
    let (config, clock) = (service.config(), TestClock::default());
    let server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
    let alice = server.register("alice").await;
    // Nothing, a little, one part, and several.
    for bytes in [0, 1000, 8 << 20, (20 << 20) + 1] {
        let content = content(bytes);
        let first = medium(&upload(&alice, content.clone()).await);
        let second = medium(&upload(&alice, content.clone()).await);
        assert_eq!(service.files().len(), 1, "{bytes}: equal files are one");
        let on_disk = std::fs::read(&service.files()[0]).unwrap();
        assert!(on_disk == content, "{bytes}");
        assert!(read(&alice, &first, "").await.body()[..] == content, "{bytes}");
        if bytes > 0 {
            let (start, end) = (bytes / 3, bytes / 2);
            let part = read(&alice, &second, &format!("bytes={start}-{end}")).await;
            assert_eq!(part.status(), 206);
            assert!(part.body()[..] == content[start..=end], "{bytes}");
        }
        for medium in [first, second] {
            let mxc = millrace_media::Mxc::of_partition(&medium).unwrap();
            millrace_media::remove::remove(&server.media, &mxc).await.unwrap();
        }
        server.media.sweep().await.unwrap();
        assert_eq!(service.files().len(), 0, "{bytes}: they are gone");
    }
    // After a restart everything is where it was, thumbnails too.
    let mut picture = std::io::Cursor::new(Vec::new());
    RgbImage::new(400, 200).write_to(&mut picture, ImageFormat::Png).unwrap();
    let picture = medium(&upload(&alice, picture.into_inner()).await);
    let path = format!("/_matrix/client/v1/media/thumbnail/{picture}?width=96&height=96");
    let small = alice.send_raw(Method::GET, &path, &[], Body::empty()).await;
    assert_eq!((small.status().as_u16(), service.files().len()), (200, 2));
    server.stop().await;
    let server = TestServer::start_on(engine, &config, clock).await;
    let again = alice.on(&server).send_raw(Method::GET, &path, &[], Body::empty()).await;
    assert_eq!(again.body(), small.body());
}

#[tokio::test]
#[ignore = "needs an S3 service: see scripts/test"]
async fn nothing_is_acknowledged_while_the_service_is_away_and_all_goes_on_when_it_is_back() {
    let mut service = Service::start();
    let server = TestServer::start_with(&service.config()).await;
    let alice = server.register("alice").await;
    let before = medium(&upload(&alice, content(100)).await);
    service.suspend();
    let refused = upload(&alice, content(200)).await;
    let errcode = |answer: &Response<Bytes>| {
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        (answer.status().as_u16(), body["errcode"].clone())
    };
    assert_eq!(errcode(&refused), (500, "M_UNKNOWN".into()));
    assert_eq!(errcode(&read(&alice, &before, "").await), (500, "M_UNKNOWN".into()));
    service.resume();
    assert_eq!(service.files().len(), 1, "nothing is left of the refused one");
    let after = medium(&upload(&alice, content(200)).await);
    assert!(read(&alice, &before, "").await.body()[..] == content(100));
    assert!(read(&alice, &after, "").await.body()[..] == content(200));
}

#[tokio::test]
#[ignore = "needs an S3 service: see scripts/test"]
async fn a_server_does_not_start_on_a_bucket_that_it_cannot_write_to() {
    let service = Service::start();
    let server = TestServer::start().await;
    let start = async |change: &dyn Fn(&mut Config)| {
        let mut config = service.config();
        change(&mut config);
        let transport = Network::default().transport("test");
        let (_trigger, stopping) = shutdown::channel();
        let env = server.env.clone();
        let started =
            millrace::app::App::build(&config, env, transport, Place::Memory, stopping).await;
        started.err().map(|error| error.to_string())
    };
    assert_eq!(start(&|_| {}).await, None);
    for (change, said) in [
        (
            &(|config: &mut Config| config.media.s3.bucket = Some("other".to_owned()))
                as &dyn Fn(&mut Config),
            "bucket",
        ),
        (&|config| config.media.s3.secret_access_key = Some("wrong".to_owned()), "Signature"),
    ] {
        let error = start(change).await.expect("it does not start");
        assert!(error.starts_with("the media storage cannot be used: "), "{error}");
        assert!(error.contains(said), "{error}");
    }
}
