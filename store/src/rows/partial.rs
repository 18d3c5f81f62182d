//! Rows of rooms of which only a part of the state is known: a user of ours joined them by a server
//! that left out the members (`omit_members`), which are still being fetched.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use super::room::Extremity;
use crate::{serde_value, state_tree::StateRoot};

/// Where the state before an event is known from that came while the room was partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Before {
    /// From the events before it.
    Predecessors,
    /// Another server told all of it.
    Told,
    /// Another server told it without the members.
    Omitted,
}

/// What an event did to the ends of the room's graph when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It became one, in the place of those that it follows.
    New,
    /// It was followed already: it is none.
    Followed,
    /// The room was taken over with it: it became the only one.
    Only,
    /// It was filled in as history, and is none.
    Past,
    /// It was kept back for another reason than the room's rules, and is none.
    KeptBack,
}

/// An event that came, or was sent, while its room was partial, however it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialEvent {
    /// Its number.
    pub event: u64,
    /// Where the state before it is known from.
    pub before: Before,
    /// What it did to the ends of the graph.
    pub ending: Ending,
}

/// How far the completion of a room has come. The first event of the room's log that is still to be
/// judged again is `next`; what the events before it make of the room on complete states is here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Place in the log.
    pub next: u64,
    /// The ends of the graph there, with the complete states after them.
    pub ends: Vec<Extremity>,
    /// The state of those, resolved.
    pub root: Option<StateRoot>,
    /// The complete states before events that were told without members, by the events' numbers.
    pub states: Vec<(u64, StateRoot)>,
    /// Numbers of events that were refused, and are allowed on complete states.
    pub returning: Vec<u64>,
    /// The server that told the state without members last.
    pub told_by: Option<OwnedServerName>,
    /// Other servers of which a member came or went since.
    pub moved: Vec<OwnedServerName>,
    /// Servers that were in the room although nobody had told that they are, once that is known.
    pub untold: Option<Vec<OwnedServerName>>,
}

/// What became of a room when it was completed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// Numbers of the state events that are in the place of others which clients may have been told.
    pub turned: Vec<u64>,
}

serde_value!(PartialEvent, Completion, Completed);
