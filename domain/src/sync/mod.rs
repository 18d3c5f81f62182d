//! `/sync`: what is new to a device since a token (spec: Client-Server API, Syncing).
//!
//! Start at [`sync`]. One file builds one section of the response; each reads through the same
//! snapshot, whose view becomes the next token. A quiet room costs one look-up in memory.

mod deliveries;
mod device_lists;
mod ephemeral;
#[cfg(test)]
mod graph_tests;
pub mod interest;
mod joined;
mod lazy;
mod one_time_keys;
mod outside;
mod partial;
mod request;
pub mod sliding;
mod state;
mod summary;
mod timeline;
mod user;

use std::{sync::Arc, time::Duration};

use millrace_model::SyncToken;
use millrace_store::{PartitionId, Snapshot, View, rows::room::UserRoom};
use ruma::RoomId;
use tokio::time::{Instant, timeout_at};

pub use self::{
    device_lists::{DeviceLists, device_lists},
    request::{SyncFilter, SyncRequest},
    summary::heroes,
};
use self::{
    interest::{Interest, Interests},
    lazy::{LazyMembers, LazyStep},
};
use crate::{
    deliveries::{Deliveries, Telling},
    ephemeral::{EphemeralClock, EphemeralRange},
    json::{Array, Object},
    presence::Presence,
    rooms::{
        ReadError, RoomView, Rooms, Seen, Viewer, events::LoadError, recent::UntilNews,
        states::StateError,
    },
    to_device::Pending,
    typing::Typing,
    unread::{UnreadError, Unreads},
};

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Events cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is unread cannot be counted.
    #[error(transparent)]
    Unread(#[from] UnreadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// What syncs share.
#[derive(Clone)]
pub struct Syncs {
    /// The rooms.
    pub rooms: Rooms,
    /// The clock of typing and presence.
    pub ephemeral: Arc<EphemeralClock>,
    /// Who types.
    pub typing: Arc<Typing>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// Who has not read what.
    pub unreads: Arc<Unreads>,
    /// How far messages have come.
    pub deliveries: Arc<Deliveries>,
    interests: Arc<Interests>,
    lazy: Arc<LazyMembers>,
    sliding: Arc<sliding::Memory>,
    /// Rooms in which nobody has a receipt.
    unreceipted: Arc<UntilNews<()>>,
    /// How many keys devices have left, as it is told.
    key_counts: Arc<UntilNews<Arc<one_time_keys::Told>>>,
}

/// What syncs are made of.
pub struct SyncParts {
    /// The rooms.
    pub rooms: Rooms,
    /// The clock of typing and presence.
    pub ephemeral: Arc<EphemeralClock>,
    /// Who types.
    pub typing: Arc<Typing>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// Who has not read what.
    pub unreads: Arc<Unreads>,
    /// How far messages have come.
    pub deliveries: Arc<Deliveries>,
}

impl Syncs {
    /// Syncs over these parts.
    #[must_use]
    pub fn new(parts: SyncParts) -> Self {
        let SyncParts { rooms, ephemeral, typing, presence, unreads, deliveries } = parts;
        let (interests, lazy, sliding, unreceipted, key_counts) = Default::default();
        Self {
            rooms,
            ephemeral,
            typing,
            presence,
            unreads,
            deliveries,
            interests,
            lazy,
            sliding,
            unreceipted,
            key_counts,
        }
    }
}

/// One attempt at a response: from where, to where.
struct Step<'a> {
    syncs: &'a Syncs,
    request: &'a SyncRequest,
    snapshot: Snapshot,
    interest: Arc<Interest>,
    /// What the client has seen; `None` at an initial sync.
    since: Option<&'a SyncToken>,
    /// The token that the response will carry.
    next: SyncToken,
    /// Messages to the device that the client has not seen.
    messages: Vec<Pending>,
    /// What the device knows of members, where it loads them lazily.
    lazy: Option<LazyStep>,
    /// What the response tells of the messages of others, where that is noted.
    telling: Option<Telling>,
    /// The changes of typing and presence between the two.
    ephemeral: EphemeralRange,
    /// The user, as who reads rooms.
    viewer: Viewer,
}

impl Step<'_> {
    /// What the client has seen; nothing at an initial sync.
    fn since_view(&self) -> View {
        self.since.map_or_else(View::empty, |since| since.view.clone())
    }

    /// A room as the user sees it; they have `row` of it.
    async fn view<'s>(
        &'s self,
        room: &'s RoomId,
        row: &UserRoom,
    ) -> Result<Option<RoomView<'s>>, SyncError> {
        let rooms = &self.syncs.rooms;
        let row = Some(row.clone());
        Ok(RoomView::open_as(rooms, &self.snapshot, room, &self.viewer, row).await?)
    }

    /// Adds room events, in the form and with the fields that the filter asks for, as `events`.
    async fn put_events(
        &self,
        view: &RoomView<'_>,
        seen: &[Seen],
        object: &mut Object<'_>,
    ) -> Result<(), SyncError> {
        let SyncFilter { form, fields, .. } = &self.request.filter;
        let out = object.field("events");
        let Some(fields) = fields else { return Ok(view.write_array(out, seen, *form).await?) };
        let mut events = Array::begin(out);
        for event in view.render_as(seen, *form).await? {
            events.item().push_str(fields.pick(&event).get());
        }
        events.end();
        Ok(())
    }
}

/// What a sync answers.
#[derive(Debug)]
pub struct Response {
    /// The body: a JSON object.
    pub json: String,
    /// Whether it holds nothing but the next token.
    is_empty: bool,
}

/// Answers a sync: at once where there is news (or all is wanted), else as soon as there is, else
/// empty after `request.timeout`. `ended` completes when the server is to stop.
///
/// # Errors
/// Where the store cannot be read.
pub async fn sync(
    syncs: &Syncs,
    request: &SyncRequest,
    ended: impl Future<Output = ()>,
) -> Result<Response, SyncError> {
    let deadline = Instant::now() + request.timeout;
    let mut since = request.since.clone();
    user::acknowledge(syncs, request).await?;
    if let Some(since) = &since {
        syncs.deliveries.acknowledge(&request.user, request.device.as_deref(), since);
    }
    let (mut response, mut interest) = attempt(syncs, request, since.as_mut()).await?;
    let at_once = since.is_none() || request.full_state || request.timeout == Duration::ZERO;
    if at_once || !response.is_empty {
        return Ok(response);
    }
    tokio::pin!(ended);
    loop {
        // Watch first, then look: what is committed in between is seen by the look.
        let watch = syncs.rooms.env.store.watch(partitions(syncs, request, &interest));
        loop {
            let before = Arc::clone(&interest);
            (response, interest) = attempt(syncs, request, since.as_mut()).await?;
            if !response.is_empty {
                return Ok(response);
            }
            if !Arc::ptr_eq(&before, &interest) {
                break;
            }
            tokio::select! {
                woken = timeout_at(deadline, watch.changed()) => if woken.is_err() {
                    return Ok(response);
                },
                () = &mut ended => return Ok(response),
            }
        }
    }
}

/// The token of a client that has seen everything there is now.
#[must_use]
pub fn now(syncs: &Syncs) -> SyncToken {
    // The moment before the view: what happens in between is told again, never lost.
    let moment = syncs.ephemeral.token();
    let view = syncs.rooms.env.store.snapshot().view().clone();
    SyncToken { view, to_device: 0, ephemeral: Some(moment) }
}

fn partitions(syncs: &Syncs, request: &SyncRequest, interest: &Interest) -> Vec<PartitionId> {
    let delivered = deliveries::partition(syncs, request);
    interest.joined_partitions.iter().copied().chain([interest.user]).chain(delivered).collect()
}

/// Builds a response. Where it is empty, `since` moves on to what was looked at.
async fn attempt(
    syncs: &Syncs,
    request: &SyncRequest,
    since: Option<&mut SyncToken>,
) -> Result<(Response, Arc<Interest>), SyncError> {
    let seen = since.as_deref().map_or(0, |since| since.to_device);
    let step = begin(syncs, request, since.as_deref(), Some(seen)).await?;
    let response = build(&step).await?;
    let Step { next, interest, lazy, telling, .. } = step;
    if let Some(lazy) = lazy {
        lazy.end(&syncs.lazy, request, &next);
    }
    if let Some(telling) = telling {
        syncs.deliveries.tell(telling, request.device.as_deref(), &next);
    }
    if let Some(since) = since
        && response.is_empty
    {
        *since = next;
    }
    Ok((response, interest))
}

/// Gathers what a response is built from; with the messages to the device after the `seen`th, where
/// they are wanted.
async fn begin<'a>(
    syncs: &'a Syncs,
    request: &'a SyncRequest,
    since: Option<&'a SyncToken>,
    seen: Option<u64>,
) -> Result<Step<'a>, SyncError> {
    // Before the snapshot is taken: what happens in between is told again, never lost.
    let moment = syncs.ephemeral.token();
    let snapshot = syncs.rooms.env.store.snapshot();
    let store = &syncs.rooms.env.store;
    let interest = syncs.interests.of(store, &snapshot, &request.user).await?;
    let messages = match seen {
        Some(seen) => user::messages(&snapshot, request, seen).await?,
        None => Vec::new(),
    };
    let shown = messages.last().map(|message| message.n);
    let next = SyncToken {
        view: snapshot.view().clone(),
        to_device: shown.or(seen).unwrap_or(0),
        ephemeral: Some(moment),
    };
    Ok(Step {
        syncs,
        request,
        viewer: Viewer {
            user: request.user.clone(),
            device: request.device.clone(),
            ignored: Arc::clone(&interest.ignored),
        },
        snapshot,
        interest,
        since,
        next,
        messages,
        lazy: LazyStep::begin(&syncs.lazy, request),
        telling: syncs.deliveries.telling(&request.user),
        ephemeral: syncs.ephemeral.range(since.and_then(|since| since.ephemeral), moment),
    })
}

async fn build(step: &Step<'_>) -> Result<Response, SyncError> {
    let mut json = String::new();
    let mut body = Object::begin(&mut json);
    let news = user::News::read(step).await?;
    let mut rooms = body.object("rooms");
    let told = joined::put(step, &news, &mut rooms).await?;
    outside::put(step, &news, &mut rooms).await?;
    rooms.end_unless_empty();
    user::put(step, &news, &mut body);
    ephemeral::put_presence(step, &told.members, &mut body);
    device_lists::put(step, &news, &told, &mut body).await?;
    let is_empty = body.is_empty();
    one_time_keys::put(step, &mut body).await?;
    body.put_str("next_batch", &step.next.to_string());
    body.end();
    Ok(Response { json, is_empty })
}
