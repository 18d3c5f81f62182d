//! `millrace generate-key`: a new signing key.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use millrace_model::rules::signing_key::ServerSigningKey;

/// Why no key was written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written: {source}")]
pub struct GenerateKeyError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `key` to a new file that only its owner can read. Never overwrites one.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn write(key: &ServerSigningKey, path: &Path) -> Result<(), GenerateKeyError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(key.to_file_text().as_bytes()))
        .map_err(|source| GenerateKeyError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = ServerSigningKey::new("a_x", &[2; 32]).unwrap();
        write(&key, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&ServerSigningKey::new("a_y", &[3; 32]).unwrap(), &path).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), key.to_file_text());
    }
}
