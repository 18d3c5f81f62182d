//! What authorises state events, by number: written with each of them, read by walks over auth
//! chains, which so parse no event twice.

use std::sync::Arc;

use lru::LruCache;
use millrace_store::{
    Read, Tx,
    rows::room::AuthLinks,
    tables::{AUTH_LINKS, CITATIONS, EVENT_NUMBERS},
};
use parking_lot::Mutex;
use ruma::{RoomId, events::TimelineEventType};

use super::ResolveStateError;
use crate::rooms::Event;

const SHARDS: usize = 16;
/// Entries that a shard holds, of 200 bytes or so.
const SHARD_LINKS_MAX: usize = 4096;

type Shard = Mutex<LruCache<u64, Arc<AuthLinks>>>;

/// A bounded cache of [`AuthLinks`], shared by all rooms.
#[derive(Clone)]
pub struct Links {
    shards: Arc<[Shard; SHARDS]>,
}

impl Default for Links {
    fn default() -> Self {
        let shard = || Mutex::new(LruCache::unbounded());
        Self { shards: Arc::new(std::array::from_fn(|_| shard())) }
    }
}

impl Links {
    /// Records what authorises an event; to be called once by whoever writes the event, after the
    /// numbers of its auth events ([`EVENT_NUMBERS`]) are written. A message has nothing to record.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn write(&self, tx: &Tx, room: &RoomId, event: &Event) -> millrace_store::Result<()> {
        let Some(state_key) = event.pdu.state_key.as_deref() else { return Ok(()) };
        let cited = tx.get_many(&EVENT_NUMBERS, room, &event.pdu.auth_events).await?;
        let auth: Vec<u64> = cited.into_iter().flatten().collect();
        let found = self.find_many(tx, room, &auth).await?;
        let height = found.iter().flatten().map(|cited| cited.height + 1).max().unwrap_or(0);
        for (number, cited) in auth.iter().zip(&found) {
            if cited.as_ref().is_some_and(|cited| !is_create(cited)) {
                tx.put(&CITATIONS, room, (number, event.number), &());
            }
        }
        let (kind, state_key) = (event.pdu.kind.to_string(), state_key.to_owned());
        let links = AuthLinks { height, kind, state_key, auth };
        tx.put(&AUTH_LINKS, room, event.number, &links);
        // A transaction that runs again makes another event under the same number, and comes by
        // here again.
        self.insert(event.number, Arc::new(links));
        Ok(())
    }

    /// What authorises state events, in the order of their numbers.
    pub(super) async fn load(
        &self,
        read: &impl Read,
        room: &RoomId,
        numbers: &[u64],
    ) -> Result<Vec<Arc<AuthLinks>>, ResolveStateError> {
        let found = self.find_many(read, room, numbers).await?;
        let unlinked =
            |number: &u64| ResolveStateError::Unlinked { room: room.to_owned(), number: *number };
        let both = numbers.iter().zip(found);
        both.map(|(number, links)| links.ok_or_else(|| unlinked(number))).collect()
    }

    async fn find_many(
        &self,
        read: &impl Read,
        room: &RoomId,
        numbers: &[u64],
    ) -> millrace_store::Result<Vec<Option<Arc<AuthLinks>>>> {
        let mut found: Vec<_> =
            numbers.iter().map(|number| self.shard(*number).lock().get(number).cloned()).collect();
        let places: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
        if !places.is_empty() {
            let absent = places.iter().map(|at| numbers[*at]);
            let rows = read.get_many(&AUTH_LINKS, room, absent).await?;
            for (at, row) in places.into_iter().zip(rows) {
                let Some(links) = row.map(Arc::new) else { continue };
                self.insert(numbers[at], Arc::clone(&links));
                found[at] = Some(links);
            }
        }
        Ok(found)
    }

    fn shard(&self, number: u64) -> &Shard {
        &self.shards[usize::try_from(number).unwrap_or(0) % SHARDS]
    }

    fn insert(&self, number: u64, links: Arc<AuthLinks>) {
        let mut shard = self.shard(number).lock();
        shard.put(number, links);
        if shard.len() > SHARD_LINKS_MAX {
            shard.pop_lru();
        }
    }
}

/// Whether these are the links of a create event.
pub(super) fn is_create(links: &AuthLinks) -> bool {
    links.state_key.is_empty() && links.kind == TimelineEventType::RoomCreate.to_string()
}

/// Whether accepted events may name such an event among their auth events (spec: Server-Server API,
/// Auth events selection).
pub(super) fn can_authorise(links: &AuthLinks) -> bool {
    matches!(
        TimelineEventType::from(links.kind.as_str()),
        TimelineEventType::RoomCreate
            | TimelineEventType::RoomPowerLevels
            | TimelineEventType::RoomJoinRules
            | TimelineEventType::RoomMember
            | TimelineEventType::RoomThirdPartyInvite
    )
}
