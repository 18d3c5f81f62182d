//! Certificates and keys in files (PEM).

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {path} {problem}")]
pub struct TlsFileError {
    /// The option that names the file.
    pub option: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// The certificates of `federation_ca_file`; none where there is no such file.
///
/// # Errors
/// Where the file cannot be read or holds no certificate.
pub fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    file.map_or(Ok(Vec::new()), |path| certificates("federation_ca_file", path))
}

/// The certificates in a file, at least one.
pub(crate) fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let wrong = |problem: String| TlsFileError { option, path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate (PEM)".to_owned()));
    }
    Ok(found)
}

/// The first private key in a file.
pub(crate) fn private_key(
    option: &'static str,
    path: &Path,
) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsFileError {
        option,
        path: path.to_owned(),
        problem: format!("holds no private key that can be read (PEM): {error}"),
    })
}
