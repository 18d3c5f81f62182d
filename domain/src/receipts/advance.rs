//! Moving receipts and read markers forward.

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::receipt::{ReadUpTo, Receipt, ReceiptKind},
    tables::{ACCOUNT_DATA, MEMBERS, READ_UP_TO, RECEIPTS, ROOM_HEAD},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::room::member::MembershipState,
};
use serde::Deserialize;
use serde_json::json;

use super::thread::{MAIN, lineage};
use crate::{
    account_data::FULLY_READ,
    outbox,
    rooms::{Rooms, events, events::LoadError},
};

/// What a receipt is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the room, as clients mean it that know no threads.
    All,
    /// What is in no thread.
    Main,
    /// The thread with this root.
    Thread(OwnedEventId),
}

impl Scope {
    /// The last part of the key.
    fn key(&self) -> &str {
        match self {
            Self::All => "",
            Self::Main => MAIN,
            Self::Thread(root) => root.as_str(),
        }
    }
}

/// So many threads are remembered as read further than the rest of the room.
const THREADS_MAX: usize = 1000;

impl Scope {
    /// Notes that this is read up to `n`; `false` where that was known.
    fn advance(&self, read: &mut ReadUpTo, n: i64) -> bool {
        let old = read.clone();
        match self {
            Self::All => read.all = read.all.max(n),
            Self::Main => read.main = read.main.max(n),
            Self::Thread(root) => {
                let known = read.threads.iter().position(|(known, _)| known == root);
                let before = known.map_or(n, |at| read.threads.remove(at).1);
                read.threads.push((root.clone(), before.max(n)));
            }
        }
        let all = read.all;
        read.threads.retain(|(_, n)| *n > all);
        let excess = read.threads.len().saturating_sub(THREADS_MAX);
        read.threads.drain(..excess);
        *read != old
    }
}

/// A receipt that a user sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReceipt {
    /// Public or private.
    pub kind: ReceiptKind,
    /// What it is about.
    pub scope: Scope,
    /// The newest event read.
    pub event_id: OwnedEventId,
}

/// What one request moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadMarkers {
    /// The fully-read marker.
    pub fully_read: Option<OwnedEventId>,
    /// Receipts.
    pub receipts: Vec<NewReceipt>,
}

/// Whether a receipt moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// It did.
    Moved,
    /// It is not newer than what is known, or its event is not: receipts may come before their
    /// events, and are no use without.
    Stale,
}

/// Why a receipt did not move.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// Only members have receipts.
    #[error("{user} is not joined to {room}")]
    NotJoined {
        /// The user.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
    },
    /// The event is not in the thread that the receipt is about.
    #[error("event {event} is not in thread {thread}")]
    OtherThread {
        /// The event.
        event: OwnedEventId,
        /// The thread, or `main`.
        thread: String,
    },
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store failed.
    #[error("could not read or write the receipt")]
    Store(#[from] millrace_store::Error),
}

/// Moves one receipt forward; it never moves backwards.
///
/// # Errors
/// As [`AdvanceError`] says.
pub async fn advance(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    receipt: NewReceipt,
) -> Result<Advance, AdvanceError> {
    let markers = ReadMarkers { fully_read: None, receipts: vec![receipt] };
    set_markers(rooms, room, user, &markers).await
}

/// Moves the fully-read marker and receipts forward, all or none. Says whether any moved.
///
/// # Errors
/// As [`AdvanceError`] says.
pub async fn set_markers(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    markers: &ReadMarkers,
) -> Result<Advance, AdvanceError> {
    let ts = &u64::from(rooms.env.now().get());
    let write = |tx: Tx| {
        async move {
            let member = tx.get(&MEMBERS, room, user).await?;
            if member.is_none_or(|member| member.membership != MembershipState::Join) {
                let (user, room) = (user.to_owned(), room.to_owned());
                return Err(AdvanceError::NotJoined { user, room });
            }
            let mut moved = Advance::Stale;
            for receipt in &markers.receipts {
                if move_receipt(&tx, rooms, (room, user), receipt, *ts).await? {
                    moved = Advance::Moved;
                }
            }
            if let Some(event) = &markers.fully_read
                && move_fully_read(&tx, room, user, event).await?
            {
                moved = Advance::Moved;
            }
            Ok(moved)
        }
        .boxed()
    };
    rooms.env.store.transact(write).await
}

pub(super) async fn move_receipt(
    tx: &Tx,
    rooms: &Rooms,
    (room, user): (&RoomId, &UserId),
    receipt: &NewReceipt,
    ts: u64,
) -> Result<bool, AdvanceError> {
    let NewReceipt { kind, scope, event_id } = receipt;
    let Some((number, header)) = events::find(tx.unprotected(), room, event_id).await? else {
        return Ok(false);
    };
    let Some((n, _)) = header.place else { return Ok(false) };
    check_thread(tx, rooms, room, receipt, number).await?;
    let key = (user, kind.id(), scope.key());
    let old = tx.get(&RECEIPTS, room, key).await?;
    if old.is_some_and(|old| old.n >= n) {
        return Ok(false);
    }
    let new = Receipt { event_id: event_id.clone(), ts, n };
    tx.put(&RECEIPTS, room, key, &new);
    // A server that comes into the room now hears of later receipts.
    let head = tx.unprotected().get(&ROOM_HEAD, room, ()).await?;
    let is_told = head.is_some_and(|head| head.remote_servers > 0) && rooms.env.is_local(user);
    if is_told && *kind == ReceiptKind::Public {
        let (room, user, thread) = (room.to_owned(), user.to_owned(), scope.key().to_owned());
        outbox::announce(tx, &outbox::News::Receipt { room, user, thread });
    }
    let mut read = tx.get(&READ_UP_TO, room, user).await?.unwrap_or_default();
    if scope.advance(&mut read, n) {
        tx.put(&READ_UP_TO, room, user, &read);
    }
    Ok(true)
}

async fn check_thread(
    tx: &Tx,
    rooms: &Rooms,
    room: &RoomId,
    receipt: &NewReceipt,
    number: u64,
) -> Result<(), AdvanceError> {
    if receipt.scope == Scope::All {
        return Ok(());
    }
    // What an event relates to never changes, and the version of a room neither.
    let read = tx.unprotected();
    let Some(head) = read.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
    let event = rooms.events.load_one(read, room, &head.version, number).await?;
    let lineage = lineage(read, rooms, (room, &head.version), &event).await?;
    let fits = match &receipt.scope {
        Scope::All => true,
        Scope::Main => lineage.root.is_none(),
        Scope::Thread(root) => lineage.fits(&receipt.event_id, root),
    };
    if fits {
        return Ok(());
    }
    let (event, thread) = (receipt.event_id.clone(), receipt.scope.key().to_owned());
    Err(AdvanceError::OtherThread { event, thread })
}

#[derive(Deserialize)]
struct FullyRead {
    event_id: OwnedEventId,
}

async fn move_fully_read(
    tx: &Tx,
    room: &RoomId,
    user: &UserId,
    event: &EventId,
) -> Result<bool, AdvanceError> {
    let read = tx.unprotected();
    let Some((_, header)) = events::find(read, room, event).await? else { return Ok(false) };
    let key = (room.as_str(), FULLY_READ);
    let old = tx.get(&ACCOUNT_DATA, user, key).await?;
    let old = old.and_then(|old| serde_json::from_str::<FullyRead>(&old).ok());
    if let Some(FullyRead { event_id }) = old
        && let Some((_, old)) = events::find(read, room, &event_id).await?
        && old.place >= header.place
    {
        return Ok(false);
    }
    tx.put(&ACCOUNT_DATA, user, key, &json!({ "event_id": event }).to_string());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use ruma::owned_event_id;
    use serde_json::json;

    use super::*;
    use crate::{
        account_data,
        receipts::read_up_to,
        rooms::test_room::{TestRoom, user},
    };

    fn receipt(event_id: &EventId, scope: Scope) -> NewReceipt {
        NewReceipt { kind: ReceiptKind::Public, scope, event_id: event_id.to_owned() }
    }

    async fn send(room: &TestRoom, receipt: NewReceipt) -> Result<Advance, AdvanceError> {
        advance(&room.rooms, &room.id, &user("alice"), receipt).await
    }

    #[tokio::test]
    async fn a_receipt_never_moves_backwards() {
        let room = TestRoom::with_visibility("shared").await;
        let (first, second) = (room.say("alice", "1").await, room.say("alice", "2").await);
        assert_eq!(send(&room, receipt(&second, Scope::All)).await.unwrap(), Advance::Moved);
        assert_eq!(send(&room, receipt(&first, Scope::All)).await.unwrap(), Advance::Stale);
        assert_eq!(send(&room, receipt(&first, Scope::Main)).await.unwrap(), Advance::Moved);
        let read = &room.rooms.env.store.snapshot();
        let up_to = read_up_to(read, &room.id, &user("alice")).await.unwrap();
        assert_eq!(up_to.all, up_to.main + 1);
    }

    #[tokio::test]
    async fn a_receipt_for_an_unknown_event_is_dropped_and_a_strangers_refused() {
        let room = TestRoom::with_visibility("shared").await;
        let unknown = receipt(&owned_event_id!("$unknown"), Scope::All);
        assert_eq!(send(&room, unknown.clone()).await.unwrap(), Advance::Stale);
        let refused = advance(&room.rooms, &room.id, &user("eve"), unknown).await;
        assert!(matches!(refused, Err(AdvanceError::NotJoined { .. })));
    }

    #[tokio::test]
    async fn a_threaded_receipt_must_be_for_an_event_of_its_thread() {
        let room = TestRoom::with_visibility("shared").await;
        let root = room.say("alice", "root").await;
        let relates = |kind: &str, to: &EventId| json!({"body": "x", "m.relates_to": {"rel_type": kind, "event_id": to, "key": "k"}});
        let reply = room.message("alice", relates("m.thread", &root)).await;
        let reaction = room.message("alice", relates("m.annotation", &reply)).await;
        let reference = room.message("alice", relates("m.reference", &root)).await;
        let thread = || Scope::Thread(root.clone());
        for (event, scope, fits) in [
            (&reply, thread(), true),
            (&reaction, thread(), true),
            (&reference, thread(), true),
            (&root, thread(), true),
            (&root, Scope::Main, true),
            (&reference, Scope::Main, true),
            (&reply, Scope::Main, false),
            (&reaction, Scope::Main, false),
            (&reply, Scope::Thread(reference.clone()), false),
        ] {
            let sent = send(&room, receipt(event, scope.clone())).await;
            let refused = matches!(sent, Err(AdvanceError::OtherThread { .. }));
            assert_eq!(!refused, fits, "{event} {scope:?}");
        }
    }

    #[tokio::test]
    async fn the_fully_read_marker_moves_with_a_receipt_and_never_back() {
        let room = TestRoom::with_visibility("shared").await;
        let (first, second) = (room.say("alice", "1").await, room.say("alice", "2").await);
        let alice = &user("alice");
        let markers = |event: &EventId| ReadMarkers {
            fully_read: Some(event.to_owned()),
            receipts: vec![receipt(event, Scope::All)],
        };
        for (event, moved) in [(&second, Advance::Moved), (&first, Advance::Stale)] {
            let sent = set_markers(&room.rooms, &room.id, alice, &markers(event)).await.unwrap();
            assert_eq!(sent, moved);
        }
        let read = &room.rooms.env.store.snapshot();
        let stored = account_data::get(read, alice, Some(&room.id), FULLY_READ).await.unwrap();
        assert_eq!(stored.unwrap(), json!({ "event_id": second }).to_string());
    }
}
