//! Notifications for many devices through the gateway, and through Sygnal beside it: how many a second,
//! at what cost of processor and memory.
//!
//! `cargo bench -p millrace-push-gateway`. `MILLRACE_BENCH_DEVICES` devices (20,000 if unset) get one
//! notification each over FCM, whose server is in this process and takes its time to answer. With
//! `MILLRACE_BENCH_SYGNAL` naming a Python that has Sygnal, Sygnal goes through the same afterwards. It
//! needs the Twisted of its own lock file (24.7.0 for Sygnal 0.17): with 26.10 it never sends anything.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic and talks")]

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, routing::post};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

/// How long the vendor takes to answer.
const VENDOR_LATENCY: Duration = Duration::from_millis(20);
/// Calls of homeservers at the same time.
const CALLS_AT_ONCE: usize = 256;
/// How long a gateway takes for anything at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that either gateway may have at its vendor.
const INFLIGHT: usize = 512;

/// The tokens that the vendor has got messages for.
type Got = Arc<Mutex<HashSet<String>>>;

#[tokio::main]
async fn main() {
    let devices =
        std::env::var("MILLRACE_BENCH_DEVICES").map_or(20_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let got = Got::default();
    let vendor = vendor(Arc::clone(&got)).await;
    account(folder.path(), vendor);
    println!(
        "{devices} devices, {CALLS_AT_ONCE} calls at once, a vendor that takes {VENDOR_LATENCY:?}"
    );
    println!("{:<10} {:>12} {:>14} {:>12}", "", "per second", "CPU ms each", "peak MiB");
    let ours = start_ours(folder.path(), vendor);
    measure("millrace", ours, &got, devices).await;
    if let Ok(python) = std::env::var("MILLRACE_BENCH_SYGNAL") {
        let sygnal = start_sygnal(&python, folder.path(), vendor);
        measure("sygnal", sygnal, &got, devices).await;
    }
}

/// A gateway's process and address.
type Started = (Child, SocketAddr);

async fn measure(name: &str, (mut process, address): Started, got: &Got, devices: usize) {
    got.lock().clear();
    let url = format!("http://{address}/_matrix/push/v1/notify");
    let client = client();
    let ready = json!({ "notification": { "devices": [] } }).to_string();
    let began = Instant::now();
    while client.post(&url).body(ready.clone()).send().await.is_err() {
        let lives = process.try_wait().unwrap().is_none();
        assert!(lives && began.elapsed() < PATIENCE, "{name} did not start");
        sleep(Duration::from_millis(50)).await;
    }
    let cpu_before = cpu(process.id());
    let started = Instant::now();
    stream::iter(0..devices)
        .for_each_concurrent(CALLS_AT_ONCE, |number| {
            let request = client.post(&url).header("content-type", "application/json");
            let request = request.body(call(number).to_string());
            async move {
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
            }
        })
        .await;
    let took = started.elapsed();
    let cpu = cpu(process.id()) - cpu_before;
    let count = got.lock().len();
    assert_eq!(count, devices, "each device got its notification");
    println!(
        "{name:<10} {:>12.0} {:>14.3} {:>12.1}",
        devices as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1000.0 / devices as f64,
        peak_mib(process.id()),
    );
    process.kill().unwrap();
    process.wait().unwrap();
}

fn call(number: usize) -> Value {
    json!({ "notification": {
        "event_id": format!("$event{number}"), "room_id": "!room:example.org",
        "type": "m.room.message", "sender": "@alice:example.org", "sender_display_name": "Alice",
        "room_name": "Kitchen", "prio": "high", "counts": { "unread": 3 },
        "content": { "msgtype": "m.text", "body": "Is there any tea left for me?" },
        "devices": [{
            "app_id": "app", "pushkey": format!("token-{number}"), "pushkey_ts": 1_700_000_000,
            "data": {}, "tweaks": { "sound": "default" },
        }],
    } })
}

async fn vendor(got: Got) -> SocketAddr {
    let send = async |State(got): State<Got>, Json(body): Json<Value>| {
        got.lock().insert(body["message"]["token"].as_str().unwrap().to_owned());
        sleep(VENDOR_LATENCY).await;
        Json(json!({ "name": "projects/p/messages/1" }))
    };
    let token = async || {
        Json(json!({ "access_token": "token", "expires_in": 3599, "token_type": "Bearer" }))
    };
    let router = Router::new()
        .route("/token", post(token))
        .route("/v1/projects/p/messages:send", post(send))
        .with_state(got);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// A service account with the tests' key.
fn account(folder: &Path, vendor: SocketAddr) {
    let kind = "PRIVATE KEY";
    let key = include_str!("../tests/gateway/service_account_key.txt");
    let account = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "1",
        "private_key": format!("-----BEGIN {kind}-----\n{key}-----END {kind}-----\n"),
        "client_email": "push@p.iam.gserviceaccount.com",
        "token_uri": format!("http://{vendor}/token"),
    });
    fs::write(folder.join("account.json"), account.to_string()).unwrap();
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start_ours(folder: &Path, vendor: SocketAddr) -> Started {
    let (address, config) = (free_address(), folder.join("push-gateway.toml"));
    let folder = folder.display();
    let text = format!(
        "address = \"{address}\"\nlog = \"error\"\n[apps.app]\ntype = \"fcm\"\n\
         service_account_file = \"{folder}/account.json\"\nurl = \"http://{vendor}\"\n\
         inflight_request_limit = {INFLIGHT}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-push-gateway"));
    (command.arg("--config").arg(config).spawn().unwrap(), address)
}

/// Sygnal with Google's address replaced, in its default log's silence.
fn start_sygnal(python: &str, folder: &Path, vendor: SocketAddr) -> Started {
    let (address, config) = (free_address(), folder.join("sygnal.yaml"));
    let text = json!({
        "log": { "setup": {
            "version": 1, "root": { "level": "ERROR", "handlers": ["stderr"] },
            "handlers": { "stderr": { "class": "logging.StreamHandler" } },
        }, "access": { "x_forwarded_for": false } },
        "http": { "bind_addresses": ["127.0.0.1"], "port": address.port() },
        "apps": { "app": {
            "type": "gcm", "api_version": "v1", "project_id": "p",
            "service_account_file": folder.join("account.json"),
            "inflight_request_limit": INFLIGHT, "max_connections": INFLIGHT,
        } },
    });
    fs::write(&config, text.to_string()).unwrap();
    let program = format!(
        "import sygnal.gcmpushkin as fcm\n\
         fcm.GCM_URL_V1 = 'http://{vendor}/v1/projects/{{ProjectID}}/messages:send'\n\
         import sygnal.sygnal\nsygnal.sygnal.main()"
    );
    let mut command = Command::new(python);
    command.arg("-c").arg(program).env("SYGNAL_CONF", config).stdout(Stdio::null());
    (command.spawn().unwrap(), address)
}

fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    builder.timeout(PATIENCE).build().unwrap()
}

/// How long a process has worked.
fn cpu(process: u32) -> Duration {
    /// Of the kernel's clock.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// The most memory that a process had.
fn peak_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
