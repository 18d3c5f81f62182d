//! TLS servers on loopback that are found under made-up names and addresses.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::internet::{Internet, Service};

/// What a server in tests answers with.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Names and servers as tests make them, and what was connected to.
#[derive(Default)]
pub(super) struct TestInternet {
    hosts: Mutex<HashMap<String, Vec<IpAddr>>>,
    services: Mutex<HashMap<String, Vec<Service>>>,
    listeners: Mutex<HashMap<SocketAddr, SocketAddr>>,
    pub(super) connected: Mutex<Vec<SocketAddr>>,
}

impl TestInternet {
    pub(super) fn host(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.hosts.lock().insert(name.to_owned(), addresses);
    }

    /// Adds an SRV record: priority, weight, host, port.
    pub(super) fn service(&self, name: &str, record: (u16, u16, &str, u16)) {
        let (priority, weight, host, port) = record;
        let service = Service { priority, weight, host: host.to_owned(), port };
        self.services.lock().entry(name.to_owned()).or_default().push(service);
    }

    /// A server at a made-up address, with a certificate for `name`.
    pub(super) async fn serve(
        &self,
        at: &str,
        name: &str,
        answer: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.listeners.lock().insert(at.parse().unwrap(), listener.local_addr().unwrap());
        let (acceptor, answer) = (acceptor(name), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, io::Error>(answer) }
                    });
                    let io = TokioIo::new(stream);
                    drop(
                        auto::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await,
                    );
                });
            }
        });
    }
}

impl Internet for TestInternet {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = self.hosts.lock().get(host).cloned();
        async move { found.ok_or_else(|| io::Error::other("no such host")) }.boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>> {
        let found = self.services.lock().get(name).cloned().unwrap_or_default();
        async move { Ok(found) }.boxed()
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.connected.lock().push(to);
        let real = self.listeners.lock().get(&to).copied();
        async move {
            match real {
                Some(real) => TcpStream::connect(real).await,
                None => Err(io::Error::other("nobody listens there")),
            }
        }
        .boxed()
    }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority_parts() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    })
}

/// The certificate of the authority of all servers in tests.
pub(super) fn authority() -> CertificateDer<'static> {
    authority_parts().certificate.clone()
}

fn acceptor(name: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority_parts().issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}
