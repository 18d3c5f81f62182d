//! Writing to the index.

use ruma::{OwnedRoomId, OwnedUserId};
use tantivy::{
    IndexWriter, Term,
    indexer::IndexWriterOptions,
    query::{BooleanQuery, Occur, TermQuery},
    schema::IndexRecordOption,
};

use super::{
    Index, IndexError, Progress,
    schema::{MEMBER, Member, Message, PUBLIC_MEMBER, member_key, message_key},
};

/// Memory in which entries are gathered before they are written to a file.
const GATHERED_BYTES: usize = 32 << 20;

/// A change of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An event can be found.
    Message(Message),
    /// An event, by its number, can no longer be found.
    NoMessage(u64),
    /// No event of a room can be found any more.
    NoMessages(OwnedRoomId),
    /// A member can be found.
    Member(Member),
    /// A member of a room can no longer be found there.
    NoMember(OwnedRoomId, OwnedUserId),
}

impl Index {
    /// Takes changes in. They can be found, and are kept, from the next [`Index::commit`] on. It may
    /// wait for the disk.
    ///
    /// # Errors
    /// Where the index cannot be written; as with [`Index::commit`].
    pub fn apply(&self, changes: &[Change]) -> Result<(), IndexError> {
        let mut writer = self.writer.lock();
        let applied = self.begun(&mut writer).and_then(|writer| self.write(writer, changes));
        if applied.is_err() {
            // Whoever failed once may fail for ever: the next try begins with another.
            *writer = None;
        }
        applied
    }

    fn write(&self, writer: &IndexWriter, changes: &[Change]) -> Result<(), IndexError> {
        let delete = |key: String| writer.delete_term(Term::from_field_text(self.fields.key, &key));
        for change in changes {
            match change {
                Change::Message(message) => {
                    delete(message_key(message.number));
                    writer.add_document(message.document(&self.fields))?;
                }
                Change::NoMessage(number) => {
                    delete(message_key(*number));
                }
                Change::NoMessages(room) => {
                    let any = IndexRecordOption::Basic;
                    let term = |field, text: &str| {
                        Box::new(TermQuery::new(Term::from_field_text(field, text), any))
                    };
                    writer.delete_query(Box::new(BooleanQuery::new(vec![
                        (Occur::Must, term(self.fields.room, room.as_str())),
                        (Occur::MustNot, term(self.fields.kind, MEMBER)),
                        (Occur::MustNot, term(self.fields.kind, PUBLIC_MEMBER)),
                    ])))?;
                }
                Change::Member(member) => {
                    delete(member_key(&member.room, &member.user));
                    writer.add_document(member.document(&self.fields))?;
                }
                Change::NoMember(room, user) => {
                    delete(member_key(room, user));
                }
            }
        }
        Ok(())
    }

    /// Makes what was taken in durable, together with how far it goes, and lets it be found. It waits
    /// for the disk.
    ///
    /// # Errors
    /// Where the index cannot be written; what was taken in since the last commit is then lost, and
    /// has to be taken in again.
    pub fn commit(&self, progress: Progress) -> Result<(), IndexError> {
        let mut writer = self.writer.lock();
        let committed = self.begun(&mut writer).and_then(|writer| {
            let mut prepared = writer.prepare_commit()?;
            prepared.set_payload(&serde_json::to_string(&progress).expect("JSON can be written"));
            prepared.commit()?;
            Ok(())
        });
        if committed.is_err() {
            *writer = None;
        }
        committed?;
        *self.progress.lock() = progress;
        Ok(self.reader.reload()?)
    }

    fn begun<'w>(
        &self,
        writer: &'w mut Option<IndexWriter>,
    ) -> Result<&'w mut IndexWriter, IndexError> {
        if writer.is_none() {
            let options = IndexWriterOptions::builder()
                .num_worker_threads(1)
                .num_merge_threads(1)
                .memory_budget_per_thread(GATHERED_BYTES)
                .build();
            *writer = Some(self.index.writer_with_options(options)?);
        }
        Ok(writer.as_mut().expect("it was just made"))
    }
}
