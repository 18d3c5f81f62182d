//! A server with TLS whose answers a test chooses. It can send its clients away and come back.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// What answers a request.
pub type Handler =
    Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

/// An authority for certificates, and what it has made.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    /// Its own certificate (PEM).
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }

    /// A certificate and its key in one file (PEM), for a client.
    pub fn write_identity(&self, path: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(path, format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
    }

    fn acceptor(&self, protocols: &[&[u8]], client_certificates: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client_certificates {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.certificate.clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// How a server is spoken to.
#[derive(Default)]
pub struct Terms {
    pub http2_only: bool,
    pub client_certificates: bool,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Handler,
    /// Raised to send the clients away (GOAWAY); what they have asked is answered.
    away: watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
    listening: parking_lot::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Server {
    pub async fn start(authority: &Authority, terms: &Terms, handler: Handler) -> Self {
        let protocols: &[&[u8]] = if terms.http2_only { &[b"h2"] } else { &[b"h2", b"http/1.1"] };
        let acceptor = authority.acceptor(protocols, terms.client_certificates);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            acceptor,
            handler,
            away: watch::Sender::new(0),
            connections: Arc::default(),
            listening: parking_lot::Mutex::new(None),
        };
        server.listen(listener);
        server
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Answers what was asked and closes all connections.
    pub fn send_away(&self) {
        self.away.send_modify(|times| *times += 1);
    }

    /// Is out of reach from now on.
    pub fn stop(&self) {
        if let Some(listening) = self.listening.lock().take() {
            listening.abort();
        }
        self.send_away();
    }

    /// Is back.
    pub async fn restart(&self) {
        self.listen(TcpListener::bind(self.address).await.unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        let (acceptor, handler) = (self.acceptor.clone(), Arc::clone(&self.handler));
        let (away, connections) = (self.away.clone(), Arc::clone(&self.connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served =
                    serve(stream, acceptor.clone(), Arc::clone(&handler), away.subscribe());
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(served);
            }
        });
        *self.listening.lock() = Some(task);
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: Handler,
    mut away: watch::Receiver<usize>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(handler(Request::from_parts(parts, body)).await)
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    away.mark_unchanged();
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = away.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// An answer of JSON.
pub fn json(status: u16, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}
