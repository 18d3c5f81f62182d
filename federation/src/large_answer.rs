//! Answers to other servers that hold many events of a room.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{Stream, stream};
use millrace_domain::rooms::{ReadError, Rooms};
use ruma::{OwnedRoomId, RoomId, RoomVersionId};

/// Events that one piece of an answer holds.
const EVENTS_PER_PIECE: usize = 200;

/// How events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whole, as they were received.
    Whole,
    /// By their IDs.
    Ids,
}

/// An answer that is written in pieces, so that the state of a large room never lies in memory whole.
pub struct LargeAnswer {
    rooms: Rooms,
    room: OwnedRoomId,
    version: RoomVersionId,
    form: Form,
    pieces: VecDeque<Piece>,
}

enum Piece {
    Text(String),
    /// A list of events, of which so many were written.
    Events(Vec<u64>, usize),
}

impl LargeAnswer {
    /// An answer with nothing in it yet, about a room of this version.
    #[must_use]
    pub fn about(rooms: &Rooms, room: &RoomId, version: &RoomVersionId, form: Form) -> Self {
        let (rooms, room, version) = (rooms.clone(), room.to_owned(), version.clone());
        Self { rooms, room, version, form, pieces: VecDeque::new() }
    }

    /// Adds JSON text: what is around the lists.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.pieces.push_back(Piece::Text(text.into()));
        self
    }

    /// Adds the events of these numbers, parted by commas.
    #[must_use]
    pub fn events(mut self, numbers: Vec<u64>) -> Self {
        self.pieces.push_back(Piece::Events(numbers, 0));
        self
    }

    /// The pieces. Breaks off where an event cannot be loaded.
    pub fn body(self) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        stream::try_unfold(self, |mut answer| async move {
            let Some(piece) = answer.pieces.pop_front() else { return Ok(None) };
            let text = match piece {
                Piece::Text(text) => text,
                Piece::Events(numbers, at) => {
                    let end = numbers.len().min(at + EVENTS_PER_PIECE);
                    let text = answer.list(&numbers[at..end], at == 0).await?;
                    if end < numbers.len() {
                        answer.pieces.push_front(Piece::Events(numbers, end));
                    }
                    text
                }
            };
            Ok(Some((text.into(), answer)))
        })
    }

    async fn list(&self, numbers: &[u64], first: bool) -> Result<String, ReadError> {
        // An event never changes: who reads slowly holds no old view of the store.
        let snapshot = self.rooms.env.store.snapshot();
        let events = &self.rooms.events;
        let events = events.load(&snapshot, &self.room, &self.version, numbers).await?;
        let mut text = String::new();
        for (place, event) in events.iter().enumerate() {
            if place > 0 || !first {
                text.push(',');
            }
            match self.form {
                Form::Whole => text.push_str(event.pdu.json()),
                Form::Ids => {
                    let id = serde_json::Value::from(event.pdu.event_id.as_str());
                    text.push_str(&id.to_string());
                }
            }
        }
        Ok(text)
    }
}
