//! An HTTP proxy between the gateway and its vendors.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::under_test::{World, device, token};

/// A proxy that knows `CONNECT` and wants a password.
struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
    running: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tunnels);
        let running = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(tunnel(stream, Arc::clone(&counted)));
            }
        });
        Self { address, tunnels, running }
    }
}

async fn tunnel(mut stream: TcpStream, tunnels: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    // "user:secret"
    if !head.contains("proxy-authorization: basic dxnlcjpzzwnyzxq=") {
        let _ = stream.write_all(b"HTTP/1.1 407 Who?\r\n\r\n").await;
        return;
    }
    let to = head.strip_prefix("connect ").and_then(|rest| rest.split(' ').next()).unwrap();
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    tunnels.fetch_add(1, Ordering::Relaxed);
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut server).await;
}

#[tokio::test]
async fn vendors_are_reached_through_a_proxy_also_after_its_outage() {
    let proxy = Proxy::start(([127, 0, 0, 1], 0).into()).await;
    let address = proxy.address;
    let extra = format!(
        "proxy = \"http://user:secret@{address}\"\nanswer_within_s = 2\nrequest_timeout_s = 1"
    );
    let world = World::with(&extra).await;
    let devices = [device("ios", &token('a')), device("android", "good")];
    assert_eq!(world.notify("$1", &devices).await.rejected(), &json!([]));
    // Apple's, Google's, and Google's tokens, which may share a connection with the one before.
    assert!(proxy.tunnels.load(Ordering::Relaxed) >= 2);
    proxy.running.abort();
    let _ = proxy.running.await;
    assert_eq!(world.notify("$2", &devices).await.status, 502);
    let proxy = Proxy::start(address).await;
    assert_eq!(world.notify("$2", &devices).await.rejected(), &json!([]));
    assert_eq!((world.apns.taken(&token('a')).len(), world.fcm.taken("good").len()), (2, 2));
    proxy.running.abort();
}
