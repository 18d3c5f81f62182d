//! The published room directory of this server (spec: Client-Server API, Published Room Directory).

use futures::{FutureExt, StreamExt, TryStreamExt};
use millrace_store::{
    Node, Read, Scan, Snapshot, Tx,
    tables::{PUBLISHED_ROOMS, ROOM_HEAD},
};
use ruma::{OwnedRoomId, RoomId, UserId, directory::RoomTypeFilter, room::RoomSummary};

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

/// Lists a room or takes it off the list: who may set its canonical alias may.
///
/// # Errors
/// Where there is no such room or the user may not.
pub async fn set_listing(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    listing: Listing,
) -> Result<(), PublishError> {
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let room = room.ok_or_else(|| PublishError::UnknownRoom(room_id.to_owned()))?;
            if !aliases::may_set_canonical_alias(&room, user).await? {
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
    let mut places = all_places(snapshot).await?;
    if query.term.is_some() || !query.room_types.is_empty() {
        let matching = summaries(rooms, snapshot, &places).await?;
        let matching = matching.into_iter().filter(|summary| matches(query, summary));
        let kept: std::collections::HashSet<_> = matching.map(|summary| summary.room_id).collect();
        places.retain(|place| kept.contains(&place.room));
    }
    let limit = query.limit.unwrap_or(PAGE_ROOMS_MAX).min(PAGE_ROOMS_MAX);
    let range = match &since {
        None => 0..limit.min(places.len()),
        Some(Token::After(last)) => {
            let start = places.partition_point(|place| place <= last);
            start..(start + limit).min(places.len())
        }
        Some(Token::Before(first)) => {
            let end = places.partition_point(|place| place < first);
            end.saturating_sub(limit)..end
        }
    };
    let page = &places[range.clone()];
    let next = (range.end < places.len()).then(|| page.last()).flatten();
    let prev = (range.start > 0).then(|| page.first()).flatten();
    Ok(Page {
        rooms: summaries(rooms, snapshot, page).await?,
        next: next.map(|place| Token::text('n', place)),
        prev: prev.map(|place| Token::text('p', place)),
        total: places.len(),
    })
}

/// All rooms of the directory that somebody is in, sorted.
async fn all_places(snapshot: &Snapshot) -> Result<Vec<Place>, ReadError> {
    let published = snapshot.scan(&PUBLISHED_ROOMS, Node, Scan::all()).await?;
    let place = |(room, ()): (OwnedRoomId, ())| async move {
        let head = snapshot.get(&ROOM_HEAD, &room, ()).await?;
        let joined = head.map_or(0, |head| head.joined);
        Ok::<_, ReadError>(
            (joined > 0).then_some(Place { joined: std::cmp::Reverse(joined), room }),
        )
    };
    let places = futures::stream::iter(published).map(place).buffer_unordered(AT_ONCE);
    let places: Vec<Option<Place>> = places.try_collect().await?;
    let mut places: Vec<Place> = places.into_iter().flatten().collect();
    places.sort_unstable();
    Ok(places)
}

async fn summaries(
    rooms: &Rooms,
    snapshot: &Snapshot,
    places: &[Place],
) -> Result<Vec<RoomSummary>, ReadError> {
    let ids: Vec<OwnedRoomId> = places.iter().map(|place| place.room.clone()).collect();
    let summary = |room: OwnedRoomId| async move { summarise(rooms, snapshot, &room).await };
    let summaries = futures::stream::iter(ids).map(summary).buffered(AT_ONCE);
    let summaries: Vec<Option<RoomSummary>> = summaries.try_collect().await?;
    Ok(summaries.into_iter().flatten().collect())
}

fn matches(query: &Query, summary: &RoomSummary) -> bool {
    let room_type = RoomTypeFilter::from(summary.room_type.clone());
    if !query.room_types.is_empty() && !query.room_types.contains(&room_type) {
        return false;
    }
    let Some(term) = &query.term else { return true };
    let term = term.to_lowercase();
    let contains = |text: &str| text.to_lowercase().contains(&term);
    summary.name.as_deref().is_some_and(contains)
        || summary.topic.as_deref().is_some_and(contains)
        || summary.canonical_alias.as_deref().is_some_and(|alias| contains(alias.as_str()))
}

#[cfg(test)]
mod tests;
