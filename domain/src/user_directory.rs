//! Finding users by name (spec: Client-Server API, User Directory): those who share a room with
//! whoever searches, and those in published rooms.
//!
//! What is searched lies in memory, read from the store when it is first needed and again when it
//! has changed: member lists by the state of their rooms, names by the news of their users.

use std::{collections::BTreeMap, sync::Arc};

use lru::LruCache;
use millrace_store::{
    News, Node, PartitionId, Read, Scan, Snapshot, View,
    rows::room::RoomHead,
    state_tree::StateRoot,
    tables::{MEMBERS, PUBLISHED_ROOMS, ROOM_HEAD, USER_ROOMS},
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use rustc_hash::FxHashSet;

use crate::{Env, profiles};

/// The most users that one search looks at.
const CANDIDATES_MAX: usize = 200_000;
/// The most results of one search.
pub const RESULTS_MAX: usize = 50;
/// Member lists of so many rooms are remembered.
const ROOMS_REMEMBERED: usize = 4096;
/// Names of so many users are remembered.
const USERS_REMEMBERED: usize = CANDIDATES_MAX;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResults {
    /// The best matches, best first.
    pub found: Vec<Found>,
    /// Whether there are more.
    pub limited: bool,
}

/// The users that can be searched for.
pub struct UserDirectory {
    env: Env,
    members: Mutex<LruCache<OwnedRoomId, (StateRoot, Members)>>,
    entries: Mutex<LruCache<OwnedUserId, Arc<Entry>>>,
}

type Members = Arc<[OwnedUserId]>;

/// A user as the search sees them.
struct Entry {
    found: Found,
    /// Display name and localpart, in lower case.
    name: String,
    localpart: String,
    /// Up to when this is known to be so.
    view: View,
}

/// How well somebody matches; the least is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Exact,
    Start,
    Words,
}

fn cache<K: std::hash::Hash + Eq, V>(size: usize) -> Mutex<LruCache<K, V>> {
    Mutex::new(LruCache::new(std::num::NonZeroUsize::new(size).expect("sizes are not zero")))
}

impl UserDirectory {
    /// An empty memory of what the store holds.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env, members: cache(ROOMS_REMEMBERED), entries: cache(USERS_REMEMBERED) }
    }

    /// Users whose name or ID begins with the term, or has words that begin with the words of it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn search(
        &self,
        searcher: &UserId,
        term: &str,
        limit: usize,
    ) -> millrace_store::Result<SearchResults> {
        let term = term.trim().to_lowercase();
        let limit = limit.min(RESULTS_MAX);
        if term.is_empty() {
            return Ok(SearchResults { found: Vec::new(), limited: false });
        }
        let snapshot = self.env.store.snapshot();
        let mut ranked = BTreeMap::new();
        for user in self.candidates(&snapshot, searcher).await? {
            let entry = self.entry(&snapshot, &user).await?;
            if let Some(rank) = entry.rank(&term) {
                ranked.insert((rank, user), entry);
            }
        }
        let limited = ranked.len() > limit;
        let found = ranked.into_values().take(limit).map(|entry| entry.found.clone()).collect();
        Ok(SearchResults { found, limited })
    }

    async fn candidates(
        &self,
        snapshot: &Snapshot,
        searcher: &UserId,
    ) -> millrace_store::Result<FxHashSet<OwnedUserId>> {
        let own = snapshot.scan(&USER_ROOMS, searcher, Scan::all()).await?;
        let own = own.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
        let published = snapshot.scan(&PUBLISHED_ROOMS, Node, Scan::all()).await?;
        let rooms: FxHashSet<OwnedRoomId> =
            own.map(|(room, _)| room).chain(published.into_iter().map(|(room, ())| room)).collect();
        let mut candidates = FxHashSet::default();
        for room in rooms {
            candidates.extend(self.members(snapshot, &room).await?.iter().cloned());
            if candidates.len() > CANDIDATES_MAX {
                break;
            }
        }
        candidates.remove(searcher);
        Ok(candidates)
    }

    /// Who is joined to a room. The list is good as long as the room's state is the same.
    async fn members(&self, snapshot: &Snapshot, room: &RoomId) -> millrace_store::Result<Members> {
        let Some(RoomHead { root, .. }) = snapshot.get(&ROOM_HEAD, room, ()).await? else {
            return Ok(Arc::default());
        };
        if let Some((known, members)) = self.members.lock().get(room)
            && *known == root
        {
            return Ok(Arc::clone(members));
        }
        let rows = snapshot.scan(&MEMBERS, room, Scan::all().limit(CANDIDATES_MAX)).await?;
        let joined = rows.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
        let members: Members = joined.map(|(user, _)| user).collect();
        self.members.lock().put(room.to_owned(), (root, Arc::clone(&members)));
        Ok(members)
    }

    /// A user's names. They are good as long as there is no news of the user.
    async fn entry(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> millrace_store::Result<Arc<Entry>> {
        let partition = PartitionId::of::<OwnedUserId>(&user);
        if let Some(entry) = self.entries.lock().get(user)
            && self.env.store.news_of(partition, &entry.view) == News::None
        {
            return Ok(Arc::clone(entry));
        }
        let (display_name, avatar_url) = profiles::shown_in_rooms(snapshot, user).await?;
        let entry = Arc::new(Entry {
            name: display_name.as_deref().unwrap_or_default().to_lowercase(),
            localpart: user.localpart().to_lowercase(),
            found: Found { user: user.to_owned(), display_name, avatar_url },
            view: snapshot.view().clone(),
        });
        self.entries.lock().put(user.to_owned(), Arc::clone(&entry));
        Ok(entry)
    }
}

impl Entry {
    fn rank(&self, term: &str) -> Option<Rank> {
        let id = self.found.user.as_str();
        if term.starts_with('@') {
            return id.to_lowercase().starts_with(term).then_some(match id == term {
                true => Rank::Exact,
                false => Rank::Start,
            });
        }
        if self.localpart == term || self.name == term {
            return Some(Rank::Exact);
        }
        if self.localpart.starts_with(term) || self.name.starts_with(term) {
            return Some(Rank::Start);
        }
        let mut wanted = term.split(is_separator).filter(|word| !word.is_empty()).peekable();
        wanted.peek()?;
        wanted.all(|word| self.has_word(word)).then_some(Rank::Words)
    }

    fn has_word(&self, start: &str) -> bool {
        let words = self.name.split(is_separator).chain(self.localpart.split(is_separator));
        words.into_iter().any(|word| word.starts_with(start))
    }
}

fn is_separator(c: char) -> bool {
    !c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rooms::test_room::{TestRoom, user};

    async fn names(directory: &UserDirectory, searcher: &str, term: &str) -> Vec<String> {
        let results = directory.search(&user(searcher), term, 10).await.unwrap();
        results.found.iter().map(|found| found.user.localpart().to_owned()).collect()
    }

    async fn world() -> (TestRoom, UserDirectory) {
        let room = TestRoom::with_visibility("shared").await;
        for name in ["bob", "bobby", "carol"] {
            room.member(name, name, "join").await;
        }
        let env = room.rooms.env.clone();
        let name = json!("Robert 'Bob' Smith");
        profiles::set_field(&env, &user("carol"), "displayname", &name).await.unwrap();
        (room, UserDirectory::new(env))
    }

    #[tokio::test]
    async fn names_and_ids_are_found_by_their_words_best_first() {
        let (_room, directory) = world().await;
        for (term, found) in [
            ("bob", vec!["bob", "bobby", "carol"]),
            ("BOBB", vec!["bobby"]),
            ("smi rob", vec!["carol"]),
            ("mith", vec![]),
            ("@bob", vec!["bob", "bobby"]),
            ("@bob:test.example", vec!["bob"]),
            ("alice", vec![]),
            ("  ", vec![]),
        ] {
            assert_eq!(names(&directory, "alice", term).await, found, "{term}");
        }
        let limited = directory.search(&user("alice"), "bob", 2).await.unwrap();
        assert_eq!((limited.found.len(), limited.limited), (2, true));
    }

    #[tokio::test]
    async fn a_search_follows_changes_and_shows_only_who_can_be_known() {
        let (room, directory) = world().await;
        assert_eq!(names(&directory, "alice", "robert").await, ["carol"]);
        assert!(names(&directory, "eve", "robert").await.is_empty(), "eve shares no room");
        let env = &room.rooms.env;
        profiles::set_field(env, &user("carol"), "displayname", &json!("Carol")).await.unwrap();
        assert!(names(&directory, "alice", "robert").await.is_empty());
        room.member("bob", "bob", "leave").await;
        assert_eq!(names(&directory, "alice", "bob").await, ["bobby"]);
    }
}
