//! Which thread an event belongs to (spec: Client-Server API, Threaded read receipts).

use millrace_model::relations::{Relation, RelationKind};
use millrace_store::{Read, tables::EVENT_NUMBERS};
use ruma::{EventId, OwnedEventId, RoomId, RoomVersionId};

use crate::rooms::{Event, Rooms, events::LoadError};

/// The thread ID of what is in no thread.
pub const MAIN: &str = "main";

/// So many relations are followed to find a thread.
const HOPS_MAX: usize = 3;

/// The events that an event relates to, directly or through others, and its thread.
pub(super) struct Lineage {
    /// The root of the thread that the event is in; `None` for the main timeline.
    pub root: Option<OwnedEventId>,
    /// What it relates to other than by a thread, nearest first.
    pub ancestors: Vec<OwnedEventId>,
}

/// The root of the thread that `event` is in; `None` for the main timeline, to which the roots of
/// threads belong too.
///
/// # Errors
/// Where an event that it relates to cannot be loaded.
pub async fn thread_of(
    read: &impl Read,
    rooms: &Rooms,
    (room, version): (&RoomId, &RoomVersionId),
    event: &Event,
) -> Result<Option<OwnedEventId>, LoadError> {
    // Most events relate to nothing, or to a thread directly.
    match Relation::of(&event.pdu) {
        None => Ok(None),
        Some(relation) if relation.kind == RelationKind::Thread => Ok(Some(relation.parent)),
        Some(_) => Ok(lineage(read, rooms, (room, version), event).await?.root),
    }
}

pub(super) async fn lineage(
    read: &impl Read,
    rooms: &Rooms,
    (room, version): (&RoomId, &RoomVersionId),
    event: &Event,
) -> Result<Lineage, LoadError> {
    let mut lineage = Lineage { root: None, ancestors: Vec::new() };
    let mut relation = Relation::of(&event.pdu);
    for _ in 0..HOPS_MAX {
        let Some(Relation { kind, parent, .. }) = relation else { break };
        if kind == RelationKind::Thread {
            lineage.root = Some(parent);
            break;
        }
        let number = read.get(&EVENT_NUMBERS, room, &parent).await?;
        lineage.ancestors.push(parent);
        let Some(number) = number else { break };
        let parent = rooms.events.load_one(read, room, version, number).await?;
        relation = Relation::of(&parent.pdu);
    }
    Ok(lineage)
}

impl Lineage {
    /// Whether a receipt for the event may name this thread: the event is in it, is its root, or
    /// relates to the root.
    pub fn fits(&self, event: &EventId, thread: &EventId) -> bool {
        match &self.root {
            Some(root) => root == thread,
            None => event == thread || self.ancestors.iter().any(|ancestor| ancestor == thread),
        }
    }
}
