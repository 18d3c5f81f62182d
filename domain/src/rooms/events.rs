//! Events by number, remembered with what is known beside them.
//!
//! An event's body never changes, and redactions are applied by the reader: they are in the header,
//! which does change. A remembered header cannot be stale, because it is only used where the room's
//! head, read from the same snapshot as everything else, has the `amended` that it was read with:
//! whoever changes a header raises that count in the same transaction ([`super::RoomTx`]), so
//! between two snapshots with the same count, whichever is older, no header has changed.

use std::sync::{Arc, OnceLock};

use lru::LruCache;
use millrace_model::{
    ClientForm, Pdu,
    pdu::InvalidPdu,
    rules::{redaction, room_version},
};
use millrace_store::{
    Read, Snapshot,
    rows::room::{EventHeader, EventTransaction, RoomHead},
    tables::{EVENT_HEADERS, EVENT_NUMBERS, EVENT_TXNS, EVENTS},
};
use parking_lot::Mutex;
use ruma::{EventId, RoomId, RoomVersionId, UserId, room_version_rules::RoomVersionRules};

const SHARDS: usize = 16;

/// An event and the form in which clients see it, both made once.
#[derive(Debug)]
pub struct Event {
    /// Its number.
    pub number: u64,
    /// The event itself.
    pub pdu: Pdu,
    /// What clients are sent.
    pub client: ClientForm,
    /// The same once it is redacted, made when first asked for.
    redacted: OnceLock<Redacted>,
    /// What was last known beside it, and how often the room's headers had been amended by then.
    header: Mutex<Option<(u64, Arc<EventHeader>)>>,
    /// The request that made it, if one of its sender's devices did; written with the event and
    /// never changed.
    txn: OnceLock<Option<EventTransaction>>,
}

/// What is left of an event once it is redacted.
#[derive(Debug)]
pub struct Redacted {
    /// The event without what redaction takes away.
    pub pdu: Pdu,
    /// What clients are sent of it.
    pub client: ClientForm,
}

impl Event {
    /// An event and its client form.
    #[must_use]
    pub fn new(number: u64, pdu: Pdu, rules: &RoomVersionRules) -> Self {
        let client = ClientForm::new(&pdu, rules);
        let (redacted, header, txn) = Default::default();
        Self { number, pdu, client, redacted, header, txn }
    }

    /// The request by which one of its sender's devices sent it, if that is known: see
    /// [`Events::load_transactions`].
    #[must_use]
    pub fn transaction(&self) -> Option<&EventTransaction> {
        self.txn.get().and_then(Option::as_ref)
    }

    fn header_at(&self, amended: u64) -> Option<Arc<EventHeader>> {
        let known = self.header.lock();
        known.as_ref().filter(|(at, _)| *at == amended).map(|(_, header)| Arc::clone(header))
    }

    /// What is left of it once it is redacted.
    ///
    /// # Errors
    /// Where what is left no longer parses, which no accepted event causes.
    pub fn redacted(&self, rules: &RoomVersionRules) -> Result<&Redacted, InvalidPdu> {
        if let Some(redacted) = self.redacted.get() {
            return Ok(redacted);
        }
        let pdu = redaction::redacted(&self.pdu, rules)?;
        let client = ClientForm::new(&pdu, rules);
        Ok(self.redacted.get_or_init(|| Redacted { pdu, client }))
    }
}

/// Why events cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// An event that must be there is not.
    #[error("event number {number} of {room} is missing from the database")]
    Missing {
        /// The room.
        room: ruma::OwnedRoomId,
        /// The event's number.
        number: u64,
    },
    /// A stored event is not what was stored.
    #[error("a stored event is malformed: {0}")]
    Malformed(#[from] InvalidPdu),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
}

/// A bounded cache of events.
#[derive(Clone)]
pub struct Events {
    shards: Arc<[Mutex<Shard>; SHARDS]>,
    shard_bytes_max: usize,
}

struct Shard {
    events: LruCache<u64, Arc<Event>>,
    bytes: usize,
}

impl Events {
    /// A cache of about `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let shard = || Mutex::new(Shard { events: LruCache::unbounded(), bytes: 0 });
        Self {
            shards: Arc::new(std::array::from_fn(|_| shard())),
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    fn shard(&self, number: u64) -> &Mutex<Shard> {
        &self.shards[usize::try_from(number).unwrap_or(0) % SHARDS]
    }

    /// Puts an event into the cache, also one that is not durable yet: numbers are never reused.
    pub fn insert(&self, event: &Arc<Event>) {
        let mut shard = self.shard(event.number).lock();
        shard.bytes += size(event);
        if let Some(old) = shard.events.put(event.number, Arc::clone(event)) {
            shard.bytes -= size(&old);
        }
        while shard.bytes > self.shard_bytes_max {
            let Some((_, old)) = shard.events.pop_lru() else { break };
            shard.bytes -= size(&old);
        }
    }

    /// Puts an event into the cache that was read: who judged it meanwhile knows better whether it is
    /// rejected.
    fn insert_if_absent(&self, event: &Arc<Event>) {
        if !self.shard(event.number).lock().events.contains(&event.number) {
            self.insert(event);
        }
    }

    fn cached(&self, number: u64) -> Option<Arc<Event>> {
        self.shard(number).lock().events.get(&number).cloned()
    }

    /// Forgets events whose rows are not what they were.
    pub(super) fn forget(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let mut shard = self.shard(number).lock();
            if let Some(event) = shard.events.pop(&number) {
                shard.bytes = shard.bytes.saturating_sub(size(&event));
            }
        }
    }

    /// The events with these numbers, in their order, all of one room.
    ///
    /// # Errors
    /// Where one is missing or cannot be read.
    pub async fn load(
        &self,
        read: &impl Read,
        room: &RoomId,
        version: &RoomVersionId,
        numbers: &[u64],
    ) -> Result<Vec<Arc<Event>>, LoadError> {
        let mut events: Vec<_> = numbers.iter().map(|number| self.cached(*number)).collect();
        let absent: Vec<u64> = numbers
            .iter()
            .zip(&events)
            .filter_map(|(number, event)| event.is_none().then_some(*number))
            .collect();
        if !absent.is_empty() {
            let mut loaded = self.read(read, room, version, &absent).await?.into_iter();
            for slot in events.iter_mut().filter(|slot| slot.is_none()) {
                *slot = loaded.next();
            }
        }
        Ok(events.into_iter().flatten().collect())
    }

    /// As [`Events::load`], each with its header, at a snapshot in which the room has `head`.
    ///
    /// # Errors
    /// As [`Events::load`].
    pub async fn load_with_headers(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        head: &RoomHead,
        numbers: &[u64],
    ) -> Result<Vec<(Arc<Event>, Arc<EventHeader>)>, LoadError> {
        let events = self.load(snapshot, room, &head.version, numbers).await?;
        let known: Vec<_> = events.iter().map(|event| event.header_at(head.amended)).collect();
        let unknown = || events.iter().zip(&known).filter(|(_, header)| header.is_none());
        let absent: Vec<u64> = unknown().map(|(event, _)| event.number).collect();
        let mut read = match absent.is_empty() {
            true => Vec::new(),
            false => snapshot.get_many(&EVENT_HEADERS, room, absent).await?,
        }
        .into_iter();
        let mut both = Vec::with_capacity(events.len());
        for (event, header) in events.into_iter().zip(known) {
            let header = match header {
                Some(header) => header,
                None => {
                    let missing =
                        || LoadError::Missing { room: room.to_owned(), number: event.number };
                    let header = Arc::new(read.next().flatten().ok_or_else(missing)?);
                    *event.header.lock() = Some((head.amended, Arc::clone(&header)));
                    header
                }
            };
            both.push((event, header));
        }
        Ok(both)
    }

    /// Makes sure of [`Event::transaction`] for events that one user sent.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load_transactions(
        &self,
        snapshot: &Snapshot,
        sender: &UserId,
        events: impl Iterator<Item = &Event>,
    ) -> millrace_store::Result<()> {
        let unknown: Vec<_> = events.filter(|event| event.txn.get().is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let ids = unknown.iter().map(|event| &event.pdu.event_id);
        let rows = snapshot.get_many(&EVENT_TXNS, sender, ids).await?;
        for (event, row) in unknown.iter().zip(rows) {
            event.txn.get_or_init(|| row);
        }
        Ok(())
    }

    /// One event by its number.
    ///
    /// # Errors
    /// Where it is missing or cannot be read.
    pub async fn load_one(
        &self,
        read: &impl Read,
        room: &RoomId,
        version: &RoomVersionId,
        number: u64,
    ) -> Result<Arc<Event>, LoadError> {
        let missing = LoadError::Missing { room: room.to_owned(), number };
        self.load(read, room, version, &[number]).await?.pop().ok_or(missing)
    }

    async fn read(
        &self,
        read: &impl Read,
        room: &RoomId,
        version: &RoomVersionId,
        numbers: &[u64],
    ) -> Result<Vec<Arc<Event>>, LoadError> {
        let rules =
            room_version::rules(version).ok_or_else(|| LoadError::Version(version.clone()))?;
        let bodies = read.get_many(&EVENTS, room, numbers.iter().copied()).await?;
        let headers = read.get_many(&EVENT_HEADERS, room, numbers.iter().copied()).await?;
        let mut events = Vec::with_capacity(numbers.len());
        for ((number, body), header) in numbers.iter().zip(bodies).zip(headers) {
            let missing = || LoadError::Missing { room: room.to_owned(), number: *number };
            let (body, header) = body.zip(header).ok_or_else(missing)?;
            let mut pdu = Pdu::from_stored(body.into(), header.event_id, room.to_owned(), rules)?;
            pdu.rejected = header.rejected;
            let event = Arc::new(Event::new(*number, pdu, rules));
            self.insert_if_absent(&event);
            events.push(event);
        }
        Ok(events)
    }
}

fn size(event: &Event) -> usize {
    let known = size_of::<EventHeader>() + event.pdu.event_id.as_str().len();
    event.pdu.json().len() * 2 + event.client.size_bytes() + size_of::<Event>() + known
}

/// The number and header of an event of a room, if the room has it.
///
/// # Errors
/// Where the store cannot be read.
pub async fn find(
    read: &impl Read,
    room: &RoomId,
    event_id: &EventId,
) -> millrace_store::Result<Option<(u64, EventHeader)>> {
    let Some(number) = read.get(&EVENT_NUMBERS, room, event_id).await? else { return Ok(None) };
    Ok(read.get(&EVENT_HEADERS, room, number).await?.map(|header| (number, header)))
}
