//! What comes in is written to a file of its own first, piece by piece, whatever the storage: only
//! then its hash is known.
//!
//! The file goes when all that refers to the content is durable. If the process dies before, the
//! file's name tells the hash of what may lie in the storage for nothing: see [`Spool::left_over`].

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::task::JoinHandle;

use crate::storage::{
    BlobHash, StorageError,
    folder::{blocking, make_folder},
    hex,
};

/// How much is gathered before it is written; twice that is the most an upload has in memory.
const PIECE_BYTES: usize = 1 << 20;
/// Ends the name of a file that is whole.
const WHOLE: &str = "whole";

/// The folder of files that come in; made when the first one comes.
#[derive(Debug, Clone)]
pub(crate) struct Spool(PathBuf);

/// A whole file, durable; removed with this.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub hash: BlobHash,
    pub bytes: u64,
    pub path: PathBuf,
}

/// Why a file did not come in whole.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is larger than it may be.
    #[error("the content is larger than {0} bytes")]
    TooLarge(u64),
    /// Its sender broke off.
    #[error("the content ended early: {0}")]
    Broken(String),
    /// It cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

struct Writer {
    file: File,
    hasher: Box<blake3::Hasher>,
    bytes: u64,
}

impl Spool {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Takes in a file of at most `bytes_max` bytes. `name` is one that no other file has.
    pub(crate) async fn receive<E: std::fmt::Display>(
        &self,
        name: &str,
        content: impl Stream<Item = Result<Bytes, E>>,
        bytes_max: u64,
    ) -> Result<Spooled, ReceiveError> {
        let folder = self.0.clone();
        // Removed where anything below goes wrong.
        let path = folder.join(name);
        let mut spooled = Spooled { hash: BlobHash::default(), bytes: 0, path: path.clone() };
        let create = move || {
            make_folder(&folder)?;
            let file = File::options().write(true).create_new(true).open(path)?;
            Ok(Writer { file, hasher: Box::default(), bytes: 0 })
        };
        let writer = blocking(create).await.map_err(failed)?;
        let writer = write_all(writer, content, bytes_max).await?;
        spooled.bytes = writer.bytes;
        spooled.hash = writer.hasher.finalize().into();
        let whole = self.0.join(format!("{}.{name}.{WHOLE}", hex(&spooled.hash)));
        let (from, to) = (spooled.path.clone(), whole.clone());
        let finish = move || {
            writer.file.sync_all()?;
            fs::rename(from, to)
        };
        blocking(finish).await.map_err(failed)?;
        spooled.path = whole;
        Ok(spooled)
    }

    /// Removes what a process that died has left, and tells the hashes of files that it may have
    /// placed in the storage.
    pub(crate) fn left_over(&self) -> io::Result<Vec<BlobHash>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut hashes = Vec::new();
        for entry in entries {
            let path = entry?.path();
            hashes.extend(hash_in_name(&path));
        }
        Ok(hashes)
    }

    /// Removes everything. Only before anything comes in.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn hash_in_name(path: &Path) -> Option<BlobHash> {
    let name = path.file_name()?.to_str()?.strip_suffix(WHOLE)?;
    let (hash, _) = name.split_once('.')?;
    blake3::Hash::from_hex(hash).ok().map(Into::into)
}

/// Writes and hashes one piece while the next one comes in.
async fn write_all<E: std::fmt::Display>(
    writer: Writer,
    content: impl Stream<Item = Result<Bytes, E>>,
    bytes_max: u64,
) -> Result<Writer, ReceiveError> {
    let mut content = std::pin::pin!(content);
    let mut piece = Vec::new();
    let (mut writer, mut bytes) = (Writing::Idle(writer), 0);
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(|error| ReceiveError::Broken(error.to_string()))?;
        bytes += chunk.len() as u64;
        if bytes > bytes_max {
            return Err(ReceiveError::TooLarge(bytes_max));
        }
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE_BYTES {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
            writer = writer.write(full).await?;
        }
    }
    writer.write(piece).await?.idle().await
}

enum Writing {
    Idle(Writer),
    Busy(JoinHandle<io::Result<Writer>>),
}

impl Writing {
    async fn idle(self) -> Result<Writer, ReceiveError> {
        match self {
            Self::Idle(writer) => Ok(writer),
            Self::Busy(task) => {
                task.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
            }
        }
    }

    /// Begins to write a piece, once the one before is written.
    async fn write(self, piece: Vec<u8>) -> Result<Self, ReceiveError> {
        let mut writer = self.idle().await?;
        let task = tokio::task::spawn_blocking(move || {
            writer.file.write_all(&piece)?;
            writer.hasher.update(&piece);
            writer.bytes += piece.len() as u64;
            Ok(writer)
        });
        Ok(Self::Busy(task))
    }
}

fn failed(source: io::Error) -> ReceiveError {
    StorageError::Io { what: "what is uploaded cannot be written to the media folder", source }
        .into()
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a file cannot be removed");
        }
    }
}
