//! What the index holds, and in which form.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tantivy::{
    TantivyDocument,
    schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
};

/// The tokenizer of texts, [`crate::words::Analyzer`].
pub(super) const WORDS: &str = "words";
/// A text as one token.
const WHOLE: &str = "raw";

/// Raised with every change of the schema or of how text is cut: an index of another format is left
/// aside, and a new one made from the store.
pub(super) const FORMAT: u32 = 1;

/// Names of fields that are read by column.
pub(super) const NUMBER: &str = "number";
pub(super) const ORDER: &str = "order";
pub(super) const ROOM: &str = "room";
pub(super) const USER: &str = "user";

/// The fields of what is indexed: messages, and members of rooms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    /// By which an entry is replaced or deleted.
    pub key: Field,
    /// What it is: the type of an event, [`MEMBER`] or [`PUBLIC_MEMBER`].
    pub kind: Field,
    /// The room.
    pub room: Field,
    /// The sender of an event, or the member.
    pub user: Field,
    /// The number of an event.
    pub number: Field,
    /// When an event happened; see [`order`].
    pub order: Field,
    /// The words of an event.
    pub text: Field,
    /// The words of a member's names.
    pub name: Field,
    /// A member's names, each as a whole.
    pub whole: Field,
}

/// A member of a room that is not open to everybody.
pub(super) const MEMBER: &str = "member";
/// A member of a room into which everybody may look.
pub(super) const PUBLIC_MEMBER: &str = "public member";

fn text(tokenizer: &str, record: IndexRecordOption, fieldnorms: bool) -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(tokenizer)
        .set_index_option(record)
        .set_fieldnorms(fieldnorms);
    TextOptions::default().set_indexing_options(indexing)
}

impl Fields {
    /// The fields and the schema of them.
    pub fn schema() -> (Self, Schema) {
        let mut schema = Schema::builder();
        let whole = || text(WHOLE, IndexRecordOption::Basic, false);
        let placed = IndexRecordOption::WithFreqsAndPositions;
        let fields = Self {
            key: schema.add_text_field("key", whole()),
            kind: schema.add_text_field("kind", whole()),
            room: schema.add_text_field(ROOM, whole().set_fast(WHOLE)),
            user: schema.add_text_field(USER, whole().set_fast(WHOLE)),
            number: schema.add_u64_field(NUMBER, FAST),
            order: schema.add_u64_field(ORDER, FAST | INDEXED),
            text: schema.add_text_field("text", text(WORDS, placed, true)),
            name: schema.add_text_field("name", text(WORDS, placed, false)),
            whole: schema.add_text_field("whole", whole()),
        };
        (fields, schema.build())
    }
}

/// An event that can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its room.
    pub room: OwnedRoomId,
    /// Its number.
    pub number: u64,
    /// Its type.
    pub kind: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When it was sent, in milliseconds since 1970, and no later than it came.
    pub sent_ms: u64,
    /// What it says.
    pub text: String,
}

/// A member of a room, who can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The room.
    pub room: OwnedRoomId,
    /// The member.
    pub user: OwnedUserId,
    /// Their display name.
    pub name: Option<String>,
    /// Whether everybody may look into the room.
    pub is_public: bool,
}

/// Bits of an event's number that tell apart what was sent in one millisecond.
const NUMBER_BITS: u32 = 22;

/// Orders events by time, and within a millisecond by their numbers, newest last.
pub(super) fn order(sent_ms: u64, number: u64) -> u64 {
    let time = sent_ms.min(u64::MAX >> NUMBER_BITS) << NUMBER_BITS;
    time | (number & ((1 << NUMBER_BITS) - 1))
}

pub(super) fn message_key(number: u64) -> String {
    format!("e{number}")
}

pub(super) fn member_key(room: &RoomId, user: &UserId) -> String {
    format!("m{room}\0{user}")
}

impl Message {
    pub(super) fn document(&self, fields: &Fields) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_text(fields.key, message_key(self.number));
        document.add_text(fields.kind, &self.kind);
        document.add_text(fields.room, &self.room);
        document.add_text(fields.user, &self.sender);
        document.add_u64(fields.number, self.number);
        document.add_u64(fields.order, order(self.sent_ms, self.number));
        document.add_text(fields.text, &self.text);
        document
    }
}

impl Member {
    pub(super) fn document(&self, fields: &Fields) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_text(fields.key, member_key(&self.room, &self.user));
        document.add_text(fields.kind, if self.is_public { PUBLIC_MEMBER } else { MEMBER });
        document.add_text(fields.room, &self.room);
        document.add_text(fields.user, &self.user);
        let names = [self.name.as_deref().unwrap_or_default(), self.user.localpart()];
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            document.add_text(fields.name, name);
            document.add_text(fields.whole, crate::words::fold(name));
        }
        document
    }
}
