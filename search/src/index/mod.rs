//! The full-text index: a hint at what matches, never the authority on what may be seen.

mod find;
mod people;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tantivy::{
    IndexReader, IndexSettings, IndexWriter, ReloadPolicy,
    directory::MmapDirectory,
    tokenizer::{TextAnalyzer, TokenizerManager},
};

use self::schema::Fields;
pub use self::{
    find::{Cursor, Hit, Hits, Order, Query},
    people::{PeopleQuery, Person},
    schema::{Member, Message},
    write::Change,
};

/// Where an index lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In memory: gone with the process, and made anew by the next.
    Memory,
    /// In a folder, which is made where it is missing.
    Folder(PathBuf),
}

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The folder cannot be made or emptied.
    #[error("the search index cannot be kept in {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine failed.
    #[error("the search index failed: {0}")]
    Engine(#[from] tantivy::TantivyError),
    /// Work on the index broke off.
    #[error("the search index broke off")]
    BrokeOff,
}

/// How far the index has followed the store. Written with the index itself, as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which database this is an index of.
    pub database: u64,
    /// The commit up to which everything is indexed.
    pub followed: u64,
    /// How far a pass through all rooms has come that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
}

/// A pass through all rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The last room that was gone through.
    pub room: ruma::OwnedRoomId,
    /// The commit up to which everything is indexed once the pass ends.
    pub until: u64,
}

/// The index.
pub struct Index {
    index: tantivy::Index,
    fields: Fields,
    reader: IndexReader,
    /// Made when first written to.
    writer: Mutex<Option<IndexWriter>>,
    progress: Mutex<Progress>,
}

impl Index {
    /// Opens the index of a database that has made `newest` commits. One that is missing, damaged, of
    /// another format, of another database or ahead of this one begins empty.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn open(place: &Place, database: u64, newest: u64) -> Result<Self, IndexError> {
        let begin = Progress { database, ..Progress::default() };
        let Place::Folder(folder) = place else {
            let index = builder().create_in_ram()?;
            return Self::of(index, begin);
        };
        let path = folder.join(format!("v{}", schema::FORMAT));
        let failed = |source| IndexError::Folder { path: path.clone(), source };
        for older in 0..schema::FORMAT {
            remove(&folder.join(format!("v{older}"))).map_err(failed)?;
        }
        match open_in(&path) {
            Ok((index, Some(progress)))
                if progress.database == database && progress.followed <= newest =>
            {
                return Self::of(index, progress);
            }
            Ok((index, None)) if index.searchable_segment_ids()?.is_empty() => {
                return Self::of(index, begin);
            }
            Ok(_) => tracing::warn!("the search index is of another database and is made anew"),
            Err(error) => tracing::warn!(%error, "the search index is damaged and is made anew"),
        }
        remove(&path).map_err(failed)?;
        std::fs::create_dir_all(&path).map_err(failed)?;
        let directory = MmapDirectory::open(&path).map_err(tantivy::TantivyError::from)?;
        Self::of(builder().open_or_create(directory)?, begin)
    }

    fn of(index: tantivy::Index, progress: Progress) -> Result<Self, IndexError> {
        let (fields, _) = Fields::schema();
        // It is reloaded after each commit: nobody else writes to it.
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let (writer, progress) = (Mutex::new(None), Mutex::new(progress));
        Ok(Self { index, fields, reader, writer, progress })
    }

    /// How far the index has followed the store, as it is written down.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn builder() -> tantivy::IndexBuilder {
    // With those that the engine asks for by itself.
    let tokenizers = TokenizerManager::default();
    tokenizers.register(schema::WORDS, TextAnalyzer::from(crate::words::Analyzer));
    let settings = IndexSettings::default();
    tantivy::Index::builder()
        .schema(Fields::schema().1)
        .tokenizers(tokenizers.clone())
        .fast_field_tokenizers(tokenizers)
        .settings(settings)
}

fn open_in(path: &Path) -> Result<(tantivy::Index, Option<Progress>), IndexError> {
    let failed = |source| IndexError::Folder { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    let directory = MmapDirectory::open(path).map_err(tantivy::TantivyError::from)?;
    let index = builder().open_or_create(directory)?;
    let payload = index.load_metas()?.payload;
    let progress = payload.and_then(|payload| serde_json::from_str(&payload).ok());
    Ok((index, progress))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
