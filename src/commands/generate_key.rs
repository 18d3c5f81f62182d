//! `millrace generate-key`: a new signing key.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::signing_key::SigningKeyFile;

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
pub fn write(key: &SigningKeyFile, path: &Path) -> Result<(), GenerateKeyError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| writeln!(file, "{}", key.to_line()))
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
        let key = SigningKeyFile::from_random([1; 4], [2; 32]);
        write(&key, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&SigningKeyFile::from_random([3; 4], [4; 32]), &path).unwrap_err();
        assert_eq!(SigningKeyFile::parse(&fs::read_to_string(&path).unwrap()), Ok(key));
    }
}
