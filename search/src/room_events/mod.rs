//! Searching what was said in rooms (spec: Client-Server API, Server Side Search).

mod collect;
mod scope;
mod surroundings;
mod token;

use std::collections::{BTreeMap, BTreeSet};

use millrace_domain::rooms::{ReadError, Viewer, history::HistoryError};
use millrace_model::filter::EventFilter;
use millrace_store::Snapshot;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::value::RawValue;

use self::collect::Collected;
pub use self::{
    surroundings::{Around, Profile, Profiles, Surroundings},
    token::{Group, InvalidNextBatch, NextBatch},
};
use crate::{
    Search,
    index::{IndexError, Order},
    words::{TermError, Terms},
};

/// The most results of one page.
pub const RESULTS_MAX: usize = 100;

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The words.
    pub term: String,
    /// Only in events of these types.
    pub kinds: Vec<String>,
    /// Only in these rooms; in all where there are none.
    pub rooms: Option<Vec<OwnedRoomId>>,
    /// Only by these senders; by all where there are none.
    pub senders: Option<Vec<ruma::OwnedUserId>>,
    /// Which events, `rooms` aside.
    pub filter: EventFilter,
    /// How many results, at most.
    pub limit: usize,
    /// What is wanted first.
    pub order: Order,
    /// What is wanted around each result, if anything.
    pub around: Option<Around>,
    /// Which state of the rooms of the results is wanted.
    pub state: StateWanted,
    /// By what the results are grouped.
    pub group_by: BTreeSet<GroupKey>,
    /// Where to go on.
    pub next_batch: Option<NextBatch>,
}

/// Which state of the rooms is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateWanted {
    /// None.
    None,
    /// All of it, or all but the members.
    Of(millrace_domain::rooms::context::Members),
}

/// By what results are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKey {
    /// `room_id`.
    Room,
    /// `sender`.
    Sender,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Results {
    /// About how many there are in all.
    pub count: usize,
    /// Words that a client is to highlight.
    pub highlights: BTreeSet<String>,
    /// This page of them.
    pub results: Vec<Found>,
    /// The state of their rooms.
    pub state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// Their groups.
    pub groups: BTreeMap<Group, GroupFound>,
    /// Where to go on; none where there are no more.
    pub next_batch: Option<NextBatch>,
}

/// One result.
#[derive(Debug)]
pub struct Found {
    /// How well it fits.
    pub rank: f32,
    /// The event.
    pub event: Box<RawValue>,
    /// What is around it, if that was asked for.
    pub surroundings: Option<Surroundings>,
}

/// A group of results.
#[derive(Debug)]
pub struct GroupFound {
    /// Its place among the groups: that of its first result.
    pub order: usize,
    /// Its results on this page.
    pub results: Vec<OwnedEventId>,
    /// Where to go on with this group; none where there are no more.
    pub next_batch: Option<NextBatch>,
}

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The term cannot be searched for.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The token is not one of this search.
    #[error(transparent)]
    Token(#[from] InvalidNextBatch),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The surroundings of a result cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

impl Search {
    /// Searches what the viewer may see now. What was committed before the call is found.
    ///
    /// # Errors
    /// As [`SearchError`] says.
    pub async fn room_events(
        &self,
        viewer: &Viewer,
        request: &Request,
    ) -> Result<Results, SearchError> {
        let terms = Terms::parse(&request.term)?;
        let snapshot = self.rooms.env.store.snapshot();
        self.catch_up(&snapshot).await;
        let collected = self.collect(&snapshot, viewer, request, terms).await?;
        self.present(&snapshot, viewer, request, collected).await
    }

    async fn present(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        request: &Request,
        collected: Collected,
    ) -> Result<Results, SearchError> {
        let mut results = Results {
            count: collected.count,
            highlights: collected.highlights,
            groups: collected.groups,
            next_batch: collected.next_batch,
            ..Results::default()
        };
        for chosen in &collected.chosen {
            let room = &chosen.seen.event.pdu.room_id;
            let view = self.searchable(snapshot, room, viewer).await?;
            let Some(view) = view else { continue };
            let present = millrace_model::client_event::RoomIdField::Present;
            let event = view.render_one(&chosen.seen, present).await?;
            let surroundings = match &request.around {
                Some(around) => Some(surroundings::read(&view, &chosen.seen, around).await?),
                None => None,
            };
            results.results.push(Found { rank: chosen.rank, event, surroundings });
            if let StateWanted::Of(members) = request.state
                && !results.state.contains_key(room)
            {
                let state = surroundings::state(&view, members).await?;
                results.state.insert(room.clone(), state);
            }
        }
        Ok(results)
    }
}
