//! The published room directory of this server (spec: Client-Server API, Published Room Directory).
//!
//! A search looks at all rooms of the directory. What they are called is remembered as long as their
//! states stay as they are, so that it costs one row of each room, and what it shows.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt, StreamExt, TryStreamExt};
use millrace_store::{
    Node, Read, Scan, Snapshot, Tx,
    state_tree::StateRoot,
    tables::{NETWORK_ROOMS, PUBLISHED_ROOMS, ROOM_HEAD},
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId, UserId, directory::RoomTypeFilter, room::RoomSummary};
use rustc_hash::FxHashMap;

use super::{
    AppendError, Numbers, ReadError, RoomTx, Rooms, aliases, create::Listing, summary::summarise,
};

/// The most rooms in one answer, also where the client asks for no limit.
pub const PAGE_ROOMS_MAX: usize = 500;
/// How many rooms are read at the same time.
const AT_ONCE: usize = 32;

/// Why the directory was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The user may not.
    #[error("you may not change the place of this room in the directory")]
    NotAllowed,
    /// The room cannot be read, or the store failed.
    #[error(transparent)]
    Room(#[from] AppendError),
}

impl From<millrace_store::Error> for PublishError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Room(error.into())
    }
}

/// Why the directory is not shown.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A token that no page has given.
    #[error("not a token of this directory")]
    Token,
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Whether a room is listed; `None` where there is no such room.
///
/// # Errors
/// Where the store cannot be read.
pub async fn listing(rooms: &Rooms, room: &RoomId) -> millrace_store::Result<Option<Listing>> {
    let snapshot = rooms.env.store.snapshot();
    if snapshot.get(&ROOM_HEAD, room, ()).await?.is_none() {
        return Ok(None);
    }
    let listed = snapshot.get(&PUBLISHED_ROOMS, Node, room).await?.is_some();
    Ok(Some(if listed { Listing::Published } else { Listing::Unlisted }))
}

/// Who changes what the directory lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher<'a> {
    /// Somebody who may do so in rooms whose canonical alias they may set.
    User(&'a UserId),
    /// An administrator of this server, who may do so in all rooms.
    Administrator,
}

/// Lists a room or takes it off the list.
///
/// # Errors
/// Where there is no such room or the user may not.
pub async fn set_listing(
    rooms: &Rooms,
    room_id: &RoomId,
    publisher: Publisher<'_>,
    listing: Listing,
) -> Result<(), PublishError> {
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let room = room.ok_or_else(|| PublishError::UnknownRoom(room_id.to_owned()))?;
            let may = match publisher {
                Publisher::Administrator => true,
                Publisher::User(user) => aliases::may_set_canonical_alias(&room, user).await?,
            };
            if !may {
                return Err(PublishError::NotAllowed);
            }
            match listing {
                Listing::Published => tx.put(&PUBLISHED_ROOMS, Node, room_id, &()),
                Listing::Unlisted => tx.delete(&PUBLISHED_ROOMS, Node, room_id),
            }
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}

/// What is asked of the directory.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// At most so many rooms.
    pub limit: Option<usize>,
    /// `next` or `prev` of another page.
    pub since: Option<String>,
    /// Text that the name, topic or alias contains, whatever the case of its letters.
    pub term: Option<String>,
    /// Only rooms of one of these types; all where empty.
    pub room_types: Vec<RoomTypeFilter>,
    /// Which directory.
    pub network: Network,
}

/// Whose directory: the server's own, or one that an application service keeps of its network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// The server's.
    #[default]
    Matrix,
    /// That of a network, by its `third_party_instance_id`.
    ThirdParty(String),
    /// All together.
    All,
}

/// Rooms of the directory, those with most members first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The rooms.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
    /// Where the page before ends, if there is one.
    pub prev: Option<String>,
    /// How many rooms there are in all pages.
    pub total: usize,
}

/// A room's place in the directory: sorts as the directory does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    joined: std::cmp::Reverse<u64>,
    room: OwnedRoomId,
}

/// A room of the directory, and by what a summary of it is known to be good still.
#[derive(Debug, Clone)]
struct Listed {
    place: Place,
    state: (StateRoot, u64),
}

/// Summaries of rooms that were searched before.
#[derive(Default)]
pub(super) struct Remembered(Mutex<FxHashMap<OwnedRoomId, Known>>);

struct Known {
    /// The root of the state, and how often headers of events were changed.
    state: (StateRoot, u64),
    summary: Arc<RoomSummary>,
}

/// A place from which to go on: `n` or `p` for the direction, members, room ID.
enum Token {
    After(Place),
    Before(Place),
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let place = |text: &str| {
            let (joined, room) = text.split_once('_')?;
            let (joined, room) = (joined.parse().ok()?, room.try_into().ok()?);
            Some(Place { joined: std::cmp::Reverse(joined), room })
        };
        match text.split_at_checked(1)? {
            ("n", rest) => place(rest).map(Self::After),
            ("p", rest) => place(rest).map(Self::Before),
            _ => None,
        }
    }

    fn text(direction: char, place: &Place) -> String {
        format!("{direction}{}_{}", place.joined.0, place.room)
    }
}

/// A page of the directory.
///
/// # Errors
/// Where the token is malformed or the store cannot be read.
pub async fn list(rooms: &Rooms, query: &Query) -> Result<Page, DirectoryError> {
    let since = query.since.as_deref().map(|text| Token::parse(text).ok_or(DirectoryError::Token));
    let since = since.transpose()?;
    let snapshot = &rooms.env.store.snapshot();
    let mut listed = all_rooms(snapshot, &query.network).await?;
    if query.term.is_some() || !query.room_types.is_empty() {
        if !matches!(query.network, Network::ThirdParty(_)) {
            rooms.directory.forget_others(&listed);
        }
        let summaries = summaries(rooms, snapshot, &listed).await?;
        let query = &Wanted::new(query);
        let kept = summaries
            .iter()
            .map(|summary| summary.as_ref().is_some_and(|summary| query.admits(summary)));
        let mut kept = kept.collect::<Vec<_>>().into_iter();
        listed.retain(|_| kept.next().unwrap_or(false));
    }
    let places: Vec<&Place> = listed.iter().map(|listed| &listed.place).collect();
    let limit = query.limit.unwrap_or(PAGE_ROOMS_MAX).min(PAGE_ROOMS_MAX);
    let range = match &since {
        None => 0..limit.min(places.len()),
        Some(Token::After(last)) => {
            let start = places.partition_point(|place| *place <= last);
            start..(start + limit).min(places.len())
        }
        Some(Token::Before(first)) => {
            let end = places.partition_point(|place| *place < first);
            end.saturating_sub(limit)..end
        }
    };
    let page = &places[range.clone()];
    let next = (range.end < places.len()).then(|| page.last()).flatten();
    let prev = (range.start > 0).then(|| page.first()).flatten();
    let shown = summaries(rooms, snapshot, &listed[range]).await?;
    Ok(Page {
        rooms: shown.into_iter().flatten().map(Arc::unwrap_or_clone).collect(),
        next: next.map(|place| Token::text('n', place)),
        prev: prev.map(|place| Token::text('p', place)),
        total: places.len(),
    })
}

/// All rooms of the directory that somebody is in, sorted.
async fn all_rooms(snapshot: &Snapshot, network: &Network) -> Result<Vec<Listed>, ReadError> {
    let mut published = BTreeSet::new();
    if *network != Network::Matrix {
        let scan = match network {
            Network::ThirdParty(instance) => Scan::prefix(instance.as_str()),
            Network::Matrix | Network::All => Scan::all(),
        };
        let rows = snapshot.scan(&NETWORK_ROOMS, Node, scan).await?;
        published.extend(rows.into_iter().map(|((_, room), ())| room));
    }
    if !matches!(network, Network::ThirdParty(_)) {
        let rows = snapshot.scan(&PUBLISHED_ROOMS, Node, Scan::all()).await?;
        published.extend(rows.into_iter().map(|(room, ())| room));
    }
    let look = |room: OwnedRoomId| async move {
        let head = snapshot.get(&ROOM_HEAD, &room, ()).await?;
        let head = head.filter(|head| head.joined > 0);
        Ok::<_, ReadError>(head.map(|head| Listed {
            place: Place { joined: std::cmp::Reverse(head.joined), room },
            state: (head.root, head.amended),
        }))
    };
    let listed = futures::stream::iter(published).map(look).buffer_unordered(AT_ONCE);
    let listed: Vec<Option<Listed>> = listed.try_collect().await?;
    let mut listed: Vec<Listed> = listed.into_iter().flatten().collect();
    listed.sort_unstable_by(|one, other| one.place.cmp(&other.place));
    Ok(listed)
}

/// The summary of each room.
async fn summaries(
    rooms: &Rooms,
    snapshot: &Snapshot,
    listed: &[Listed],
) -> Result<Vec<Option<Arc<RoomSummary>>>, ReadError> {
    let summary = |listed: Listed| async move {
        let Listed { place: Place { room, .. }, state } = listed;
        if let Some(known) = rooms.directory.find(&room, state) {
            return Ok(Some(known));
        }
        let summary = summarise(rooms, snapshot, &room).await?.map(Arc::new);
        if let Some(summary) = &summary {
            rooms.directory.remember(&room, state, summary);
        }
        Ok::<_, ReadError>(summary)
    };
    futures::stream::iter(listed.to_vec()).map(summary).buffered(AT_ONCE).try_collect().await
}

impl Remembered {
    fn find(&self, room: &RoomId, state: (StateRoot, u64)) -> Option<Arc<RoomSummary>> {
        let remembered = self.0.lock();
        let known = remembered.get(room).filter(|known| known.state == state)?;
        Some(Arc::clone(&known.summary))
    }

    fn remember(&self, room: &RoomId, state: (StateRoot, u64), summary: &Arc<RoomSummary>) {
        let known = Known { state, summary: Arc::clone(summary) };
        self.0.lock().insert(room.to_owned(), known);
    }

    /// Forgets rooms that are not in the directory any more, once they are as many as those that are.
    fn forget_others(&self, listed: &[Listed]) {
        let mut remembered = self.0.lock();
        if remembered.len() > 2 * listed.len() {
            let rooms: std::collections::HashSet<_> =
                listed.iter().map(|listed| &listed.place.room).collect();
            remembered.retain(|room, _| rooms.contains(room));
        }
    }
}

/// A query as rooms are compared with it.
struct Wanted<'a> {
    /// The text in lower case.
    term: Option<String>,
    room_types: &'a [RoomTypeFilter],
}

impl<'a> Wanted<'a> {
    fn new(query: &'a Query) -> Self {
        let term = query.term.as_ref().map(|term| term.to_lowercase());
        Self { term, room_types: &query.room_types }
    }

    fn admits(&self, summary: &RoomSummary) -> bool {
        let room_type = || RoomTypeFilter::from(summary.room_type.clone());
        if !self.room_types.is_empty() && !self.room_types.contains(&room_type()) {
            return false;
        }
        let Some(term) = &self.term else { return true };
        let contains = |text: &str| text.to_lowercase().contains(term);
        summary.name.as_deref().is_some_and(contains)
            || summary.topic.as_deref().is_some_and(contains)
            || summary.canonical_alias.as_deref().is_some_and(|alias| contains(alias.as_str()))
    }
}

#[cfg(test)]
mod tests;
