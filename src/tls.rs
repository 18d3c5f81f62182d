//! TLS of the federation port: certificate and key from files, read again when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    shutdown::Shutdown,
    tls_files::{self, TlsFileError},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The certificate and key that a port serves with. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<TlsParts>);

struct TlsParts {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// What the files looked like when they were read.
    seen: [Option<(SystemTime, u64)>; 2],
}

impl Tls {
    /// Reads the files of `tls_certificate_path`, the server's certificate first, and
    /// `tls_key_path`.
    ///
    /// # Errors
    /// Where a file cannot be read, or key and certificate do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let seen = [seen(certificate), seen(key)];
        let current = RwLock::new(Current { config: read(certificate, key)?, seen });
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self(Arc::new(TlsParts { certificate, key, current })))
    }

    /// Agrees on TLS with a client that has connected.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.0.current.read().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Looks whether the files have changed, and reads them again if so. Where they cannot be used,
    /// the old ones stay.
    ///
    /// # Errors
    /// As [`Tls::load`]; once for each change.
    pub fn refresh(&self) -> Result<Refreshed, TlsFileError> {
        let now = [seen(&self.0.certificate), seen(&self.0.key)];
        if self.0.current.read().seen == now {
            return Ok(Refreshed::Same);
        }
        let read = read(&self.0.certificate, &self.0.key);
        let mut current = self.0.current.write();
        current.seen = now;
        current.config = read?;
        Ok(Refreshed::New)
    }

    /// Looks at the files now and then until the server stops.
    pub async fn follow(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.requested() => return,
            }
            match self.refresh() {
                Ok(Refreshed::Same) => {}
                Ok(Refreshed::New) => tracing::info!("the TLS certificate was read again"),
                Err(error) => tracing::error!(%error, "the old TLS certificate is kept"),
            }
        }
    }
}

/// Whether files had changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// They had not.
    Same,
    /// They had, and are in use.
    New,
}

/// When a file was changed, and its size.
fn seen(path: &Path) -> Option<(SystemTime, u64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsFileError> {
    let certificates = tls_files::certificates("tls_certificate_path", certificate)?;
    let private = tls_files::private_key("tls_key_path", key)?;
    let unfit = |error: rustls::Error| TlsFileError {
        option: "tls_key_path",
        path: key.to_owned(),
        problem: format!("does not go with {}: {error}", certificate.display()),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn write(folder: &Path, name: &str) {
        let names = vec![name.to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn changed_files_are_read_again_and_broken_ones_leave_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        write(folder.path(), "one.example");
        let tls = Tls::load(&certificate, &key).unwrap();
        assert_eq!(tls.refresh().unwrap(), Refreshed::Same);
        write(folder.path(), "another-one.example");
        assert_eq!(tls.refresh().unwrap(), Refreshed::New);
        let before = Arc::clone(&tls.0.current.read().config);
        fs::write(&certificate, "no certificate").unwrap();
        tls.refresh().unwrap_err();
        assert_eq!(tls.refresh().unwrap(), Refreshed::Same, "complained once");
        assert!(Arc::ptr_eq(&before, &tls.0.current.read().config));
    }

    #[test]
    fn what_is_wrong_with_files_is_a_sentence_with_the_option() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let problem = || Tls::load(&certificate, &key).err().unwrap().to_string();
        assert!(problem().starts_with("tls_certificate_path: "));
        write(folder.path(), "one.example");
        let other = fs::read(&key).unwrap();
        fs::write(&key, "").unwrap();
        assert!(problem().starts_with("tls_key_path: "), "{}", problem());
        write(folder.path(), "two.example");
        fs::write(&key, other).unwrap();
        assert!(problem().contains("does not go with"), "{}", problem());
    }
}
