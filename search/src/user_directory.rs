//! Finding users by name (spec: Client-Server API, User Directory): those who share a room with
//! whoever searches, and those in rooms into which everybody may look.

use std::collections::{HashMap, HashSet};

use millrace_domain::{profiles, rooms::ReadError};
use millrace_store::{
    Read, Scan, Snapshot,
    rows::room::RoomHead,
    tables::{MEMBERS, ROOM_HEAD, USER_ROOMS},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use crate::{
    FollowError, Search,
    index::{IndexError, PeopleQuery, Person},
    words::TermError,
};

/// The most results of one search.
pub const RESULTS_MAX: usize = 50;
/// The longest search term, in bytes.
const TERM_MAX: usize = 512;
/// Memberships that match are looked at so many at first, and then more and more at a time.
const FIRST_LOOK: usize = 256;
/// The most memberships that one search looks at.
const LOOKS_MAX: usize = 1 << 14;

/// A user who was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who.
    pub user: OwnedUserId,
    /// Their display name.
    pub display_name: Option<String>,
    /// Their avatar.
    pub avatar_url: Option<String>,
}

/// What a search gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchResults {
    /// The best matches, best first.
    pub found: Vec<Found>,
    /// Whether there are more.
    pub limited: bool,
}

/// Why nobody was looked for.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The term cannot be searched for.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What a room is cannot be told.
    #[error(transparent)]
    Room(#[from] FollowError),
}

#[derive(Default, Deserialize)]
struct MemberContent {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

/// What was asked of the store in one search.
struct Looking<'a> {
    snapshot: &'a Snapshot,
    /// Rooms in which the searcher is.
    own: HashSet<OwnedRoomId>,
    /// Rooms of which the searcher may know the members.
    visible: HashMap<OwnedRoomId, Option<RoomHead>>,
}

impl Search {
    /// Users whose name or ID begins with the term, or has words that begin with the words of it.
    ///
    /// # Errors
    /// As [`DirectoryError`] says.
    pub async fn users(
        &self,
        searcher: &UserId,
        term: &str,
        limit: usize,
    ) -> Result<SearchResults, DirectoryError> {
        let (term, limit) = (term.trim(), limit.min(RESULTS_MAX));
        if term.len() > TERM_MAX {
            return Err(TermError::TooLong.into());
        }
        if term.is_empty() || limit == 0 {
            return Ok(SearchResults::default());
        }
        let snapshot = self.rooms.env.store.snapshot();
        self.catch_up(&snapshot).await;
        let rows = snapshot.scan(&USER_ROOMS, searcher, Scan::all()).await?;
        let joined = rows.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
        let rooms: Vec<OwnedRoomId> = joined.map(|(room, _)| room).collect();
        let own = rooms.iter().cloned().collect();
        let mut looking = Looking { snapshot: &snapshot, own, visible: HashMap::new() };
        let query = PeopleQuery { term: term.to_owned(), rooms };
        let mut results = SearchResults::default();
        let mut seen: HashSet<OwnedUserId> = HashSet::new();
        let (mut skip, mut at_once) = (0, FIRST_LOOK);
        while skip < LOOKS_MAX {
            let wanted = query.clone();
            let people = self.on_index(move |index| index.people(&wanted, skip, at_once)).await?;
            let count = people.len();
            for person in people {
                if seen.contains(&person.user) {
                    continue;
                }
                let Some(found) = self.known(&mut looking, searcher, &person).await? else {
                    continue;
                };
                if results.found.len() == limit {
                    results.limited = true;
                    return Ok(results);
                }
                seen.insert(person.user);
                results.found.push(found);
            }
            if count < at_once {
                return Ok(results);
            }
            skip += count;
            at_once *= 4;
        }
        results.limited = true;
        Ok(results)
    }

    /// Somebody as the searcher may know them by their being in a room; none where they may not.
    async fn known(
        &self,
        looking: &mut Looking<'_>,
        searcher: &UserId,
        person: &Person,
    ) -> Result<Option<Found>, DirectoryError> {
        let Person { user, room } = person;
        let snapshot = looking.snapshot;
        let Some(head) = self.visible_room(looking, room).await? else { return Ok(None) };
        // People find themselves where everybody does, not for sharing a room with themselves.
        if user == searcher && !self.is_public(snapshot, (room, &head)).await? {
            return Ok(None);
        }
        let member = snapshot.get(&MEMBERS, room, user).await?;
        let joined = member.filter(|member| member.membership == MembershipState::Join);
        let Some(member) = joined else { return Ok(None) };
        let (display_name, avatar_url) = if self.rooms.env.is_local(user) {
            profiles::shown_in_rooms(snapshot, user).await?
        } else {
            let events = &self.rooms.events;
            let event = events.load_one(snapshot, room, &head.version, member.event).await;
            let event = event.map_err(ReadError::from)?;
            let content: MemberContent = event.pdu.content_as().unwrap_or_default();
            (content.displayname, content.avatar_url)
        };
        Ok(Some(Found { user: user.clone(), display_name, avatar_url }))
    }

    /// A room of which the searcher may know the members.
    async fn visible_room(
        &self,
        looking: &mut Looking<'_>,
        room: &RoomId,
    ) -> Result<Option<RoomHead>, DirectoryError> {
        if let Some(known) = looking.visible.get(room) {
            return Ok(known.clone());
        }
        let head = looking.snapshot.get(&ROOM_HEAD, room, ()).await?;
        let visible = match head {
            None => None,
            Some(head) if looking.own.contains(room) => Some(head),
            // Of a room that nobody of ours is in any more, it is not known who is.
            Some(head) if head.joined_here == 0 => None,
            Some(head) => {
                let is_public = self.is_public(looking.snapshot, (room, &head)).await?;
                is_public.then_some(head)
            }
        };
        looking.visible.insert(room.to_owned(), visible.clone());
        Ok(visible)
    }
}
