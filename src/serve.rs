//! Connections: accept, serve HTTP/1.1 and HTTP/2, stop gracefully.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{Request, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tower::Service;

use crate::{request_body::RequestBody, shutdown::Shutdown, tls::Tls};

/// How long running requests may take to finish once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long a connection may be silent, or take to send the head of a request. Longer than reverse
/// proxies keep theirs (Caddy: two minutes), lest one sends a request just as it is closed here.
const HEAD_TIMEOUT: Duration = Duration::from_secs(200);
/// How long a client may take to agree on TLS.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest read buffer of a connection in bytes; it starts at 8 KiB. Bounds a request's head.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Pause after the system refused a connection, mostly because it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "port {} at {} is in use by another process: stop it, or set another port",
        .0.port(), .0.ip()
    )]
    InUse(SocketAddr),
    /// The system does not let this user listen there.
    #[error(
        "not allowed to listen on port {}: choose one above 1023, and a reverse proxy before it",
        .0.port()
    )]
    NotAllowed(SocketAddr),
    /// The machine does not have the address.
    #[error("this machine has no address {0}: set address to one it has, or to 0.0.0.0 for all")]
    NoSuchAddress(IpAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on one address.
///
/// # Errors
/// A sentence that says what to change.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied => BindError::NotAllowed(address),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address.ip()),
        _ => BindError::Other { address, source },
    })
}

/// One port, and what is served there.
pub struct Port {
    /// Listens.
    pub listener: TcpListener,
    /// Answers.
    pub router: Router,
    /// The TLS that clients must speak; none for plain HTTP.
    pub tls: Option<Tls>,
}

/// Serves all ports until `shutdown` is requested, then lets running requests finish for ten
/// seconds. `connections_max` bounds the connections open at once.
pub async fn serve(ports: Vec<Port>, shutdown: Shutdown, connections_max: usize) {
    let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX).min(1 << 28);
    let free = Arc::new(Semaphore::new(connections_max as usize));
    let mut accepting = JoinSet::new();
    for port in ports {
        accepting.spawn(accept(port, shutdown.clone(), Arc::clone(&free)));
    }
    accepting.join_all().await;
    if tokio::time::timeout(GRACE, free.acquire_many(connections_max)).await.is_err() {
        tracing::warn!("some requests did not finish in time and were dropped");
    }
}

async fn accept(port: Port, shutdown: Shutdown, free: Arc<Semaphore>) {
    let Port { listener, router, tls } = port;
    let mut stop = pin!(shutdown.requested());
    loop {
        let next = async {
            let permit = Arc::clone(&free).acquire_owned().await.expect("never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = &mut stop => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { peer, router: router.clone(), permit };
                let (tls, shutdown) = (tls.clone(), shutdown.clone());
                tokio::spawn(connection.begin(stream, tls, shutdown));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    /// Counts the connection while it is open.
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn begin(self, stream: TcpStream, tls: Option<Tls>, shutdown: Shutdown) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let Some(tls) = tls else { return self.run(stream, shutdown).await };
        match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.run(stream, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS could not be agreed upon"),
            Err(_) => tracing::debug!("a client did not begin with TLS in time"),
        }
    }

    async fn run<S>(self, stream: S, shutdown: Shutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, router, permit } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            let waits = request.headers().contains_key(header::EXPECT);
            // Who waits to be asked for the body does not send it after a refusal.
            let mut request = match waits {
                true => request.map(Body::new),
                false => request.map(|body| Body::new(RequestBody::new(body))),
            };
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().call(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let builder = builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error, "a connection ended early");
        }
        drop(permit);
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::shutdown;

    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_running_request_is_finished_and_nothing_new_is_accepted() {
        let (started, is_started) = oneshot::channel();
        let (finish, finished) = oneshot::channel::<()>();
        let once = Arc::new(std::sync::Mutex::new(Some((started, finished))));
        let router = Router::new().route(
            "/",
            get(async move || {
                let (started, finished) = once.lock().unwrap().take().unwrap();
                started.send(()).unwrap();
                finished.await.unwrap();
                "done"
            }),
        );
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let server = tokio::spawn(serve(vec![Port { listener, router, tls: None }], shutdown, 10));
        let mut stream = ask(address).await;
        is_started.await.unwrap();
        trigger.request();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        finish.send(()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_outlives_a_request_that_was_answered_without_its_body() {
        let router = Router::new().route("/", axum::routing::any(async || "done"));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(vec![Port { listener, router, tls: None }], Shutdown::default(), 10));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = vec![b'x'; 300_000];
        for _ in 0..3 {
            let head =
                format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"done") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it was closed");
            }
            stream.write_all(&body).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_with_tls_speaks_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("cert.pem"), folder.path().join("key.pem")];
        let names = vec!["one.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(&files[0], made.cert.pem()).unwrap();
        std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
        let tls = Some(Tls::load(&files[0], &files[1]).unwrap());
        let router = Router::new().route("/", get(async || "hello"));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(vec![Port { listener, router, tls }], Shutdown::default(), 10));
        let mut plain = ask(address).await;
        let mut answer = Vec::new();
        drop(plain.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "one.example".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_a_sentence() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("port {} at 127.0.0.1 is in use", address.port())));
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_a_sentence() {
        let error = bind("192.0.2.1:0".parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("no address 192.0.2.1"), "{error}");
    }
}
