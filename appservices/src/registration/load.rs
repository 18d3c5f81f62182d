//! Finding the registrations that the configuration names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ruma::ServerName;

use super::{Conflict, InvalidRegistration, Registry, Source, parse};

/// Why registrations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("{path}: cannot be read: {source}; check appservice_files and appservice_dir")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A registration is malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidRegistration),
    /// Two registrations cannot be together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// The services of all `files`, and of all files of `folder` that end in `.yaml` or `.yml`, in the
/// order of their names.
///
/// # Errors
/// A sentence with the file, the line where it is known, and what to do.
pub fn load_files(
    files: &[PathBuf],
    folder: Option<&Path>,
    name: &ServerName,
) -> Result<Registry, LoadError> {
    let mut paths = files.to_vec();
    if let Some(folder) = folder {
        paths.extend(in_folder(folder)?);
    }
    let mut registry = Registry::default();
    for path in paths {
        let failed = |source| LoadError::File { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(failed)?;
        registry = registry.with(parse(&text, Source::File(path), name)?)?;
    }
    Ok(registry)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::File { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("yaml" | "yml")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn files_and_the_folder_are_read_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = |id: &str| {
            format!(
                "id: {id}\nurl: null\nas_token: as-token-{id}\nhs_token: hs-token\n\
                 sender_localpart: {id}\n"
            )
        };
        for (file, id) in [("b.yaml", "b"), ("a.yml", "a"), ("c.txt", "not one")] {
            fs::write(folder.path().join(file), text(id)).unwrap();
        }
        let other = tempfile::tempdir().unwrap();
        let file = other.path().join("anything");
        fs::write(&file, text("z")).unwrap();
        let name = server_name!("test");
        let registry = load_files(std::slice::from_ref(&file), Some(folder.path()), name).unwrap();
        let ids: Vec<&str> = registry.all().iter().map(|service| &*service.id).collect();
        assert_eq!(ids, ["z", "a", "b"]);
        let missing = load_files(&[other.path().join("none.yaml")], None, name).unwrap_err();
        assert!(missing.to_string().contains("none.yaml: cannot be read"), "{missing}");
    }
}
