//! Files in a folder of this machine.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::task;

use super::{BlobHash, Chunks, Storage, StorageError, hex};

/// How much of a file is read at once.
const CHUNK_BYTES: u64 = 256 * 1024;

/// The folder; made when the first file is kept.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Keeps files in `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Two levels of folders, so that none has too many entries.
    fn path_of(&self, hash: &BlobHash) -> PathBuf {
        let name = hex(hash);
        self.0.join(&name[..2]).join(&name[2..4]).join(name)
    }
}

#[async_trait]
impl Storage for Folder {
    async fn put(&self, hash: &BlobHash, file: &Path) -> Result<(), StorageError> {
        let (from, to) = (file.to_owned(), self.path_of(hash));
        blocking(move || place(&from, &to)).await.map_err(|source| StorageError::Io {
            what: "a file cannot be placed in the media folder",
            source,
        })
    }

    async fn read(&self, hash: &BlobHash, range: Range<u64>) -> Result<Chunks, StorageError> {
        let path = self.path_of(hash);
        let file = blocking(move || File::open(path)).await.map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return StorageError::Missing(hex(hash));
            }
            StorageError::Io { what: "a file of the media folder cannot be opened", source }
        })?;
        Ok(chunks(file, range, "a file of the media folder cannot be read"))
    }

    async fn remove(&self, hash: &BlobHash) -> Result<(), StorageError> {
        let path = self.path_of(hash);
        let removed = blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.await.map_err(|source| StorageError::Io {
            what: "a file of the media folder cannot be removed",
            source,
        })
    }
}

/// A part of a file of this machine, piece by piece; where that fails, `what` is said.
pub(super) fn chunks(file: File, range: Range<u64>, what: &'static str) -> Chunks {
    let file = Arc::new(file);
    let rest = move |range: Range<u64>| {
        let file = Arc::clone(&file);
        async move {
            if range.is_empty() {
                return None;
            }
            let end = range.end.min(range.start.saturating_add(CHUNK_BYTES));
            let chunk = blocking(move || read_at(&file, range.start..end)).await;
            // After an error there is nothing more.
            let next = if chunk.is_ok() { end..range.end } else { range.end..range.end };
            Some((chunk.map_err(|source| StorageError::Io { what, source }), next))
        }
    };
    stream::unfold(range, rest).boxed()
}

/// Runs what waits for the disk where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Gives a file, which is durable itself, a second name that is durable when this returns.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(()); // Names are given to whole files only.
    }
    let folder = to.parent().unwrap_or(to);
    make_folder(folder)?;
    match fs::hard_link(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => copy(from, to)?, // Not every file system has links.
    }
    File::open(folder)?.sync_all()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let half = to.with_extension("half");
    fs::copy(from, &half)?;
    File::open(&half)?.sync_all()?;
    fs::rename(&half, to)
}

/// Makes a folder and those that it lies in, all of them durable.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn read_at(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, range.start)?;
    Ok(chunk.into())
}
