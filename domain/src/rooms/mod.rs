//! Rooms: their events, state, members and history.
//!
//! Start at [`RoomTx`]: an open room within a transaction, to which events are appended.

mod accept;
pub mod aliases;
mod append;
pub mod auth_chain;
pub mod ban;
mod bundle;
#[cfg(test)]
mod change_tests;
pub mod context;
pub mod create;
#[cfg(test)]
mod dag_tests;
pub mod directory;
mod ends;
pub mod events;
pub mod find_event;
mod flat;
pub mod forget;
pub mod gap;
pub mod graph;
mod guests;
pub mod hierarchy;
pub mod history;
pub mod import;
pub mod invite;
pub mod join;
mod judge;
pub mod kick;
pub mod knock;
mod lazy_state;
pub mod leave;
pub mod media_uses;
pub mod members;
pub mod membership;
pub mod mutual;
pub mod new_room;
pub mod outliers;
pub mod outside;
pub mod partial;
pub mod peek;
pub mod policy;
pub mod profile;
mod queue;
pub mod receive;
pub mod recent;
pub mod redact;
mod relate;
pub mod relations;
mod render;
pub mod report;
pub mod residence;
pub mod resolve;
pub mod retention;
pub mod room_info;
mod room_tx;
pub mod send;
pub mod server_acl;
pub mod server_notices;
mod server_view;
pub mod servers;
pub mod set_state;
pub mod shown;
pub mod state;
pub mod states;
mod successor;
pub mod summary;
pub mod template;
#[cfg(test)]
pub(crate) mod test_graph;
#[cfg(test)]
pub(crate) mod test_room;
pub mod third_party_invite;
pub mod threads;
pub mod timestamp;
pub mod upgrade;
mod upgraded_levels;
mod view;

use std::sync::Arc;

use ruma::MilliSecondsSinceUnixEpoch;

pub(crate) use self::flat::membership_of;
pub use self::{
    append::{AppendError, Draft},
    events::{Event, Events},
    flat::stripped,
    queue::{OUTBOX_KEPT, RelayError, relay},
    receive::{ReceiveError, Received},
    render::Form,
    resolve::{Links, Resolutions},
    room_tx::{Numbers, RoomTx},
    server_view::ServerView,
    states::States,
    view::{ReadError, RoomView, Seen, Viewer},
};
use crate::Env;

/// What room operations share: the world outside, and caches of what never changes.
#[derive(Clone)]
pub struct Rooms {
    /// The world outside.
    pub env: Env,
    /// Bodies of events.
    pub events: Events,
    /// Trees of room state.
    pub states: States,
    /// The rooms that are being taken over.
    pub imports: import::Imports,
    lazy_states: Arc<lazy_state::LazyStates>,
    /// What authorises state events.
    pub links: Links,
    /// What forks were resolved into.
    pub resolutions: Resolutions,
    recent: Arc<recent::Recent>,
    /// Summaries of rooms that were searched before.
    directory: Arc<directory::Remembered>,
    policy_servers: Arc<dyn policy::PolicyServers>,
    /// When what is sent through these was sent, where that is not now.
    sent_at: Option<MilliSecondsSinceUnixEpoch>,
    retention: retention::RetentionSettings,
}

/// Sizes of caches, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct CacheSizes {
    /// For events.
    pub events_bytes: usize,
    /// For nodes of state trees.
    pub state_bytes: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self { events_bytes: 32 << 20, state_bytes: 32 << 20 }
    }
}

impl Rooms {
    /// Prepares the rooms of a store; draws the secret of the state trees at the first start.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn open(env: Env, caches: CacheSizes) -> millrace_store::Result<Self> {
        let states = States::open(&env, caches.state_bytes).await?;
        let (events, lazy_states) = (Events::new(caches.events_bytes), Arc::default());
        let (links, resolutions) = (Links::default(), Resolutions::default());
        let (imports, recent) = (import::Imports::default(), Arc::default());
        let policy_servers = Arc::new(policy::NoPolicyServers);
        Ok(Self {
            env,
            events,
            states,
            links,
            resolutions,
            lazy_states,
            imports,
            recent,
            directory: Arc::default(),
            policy_servers,
            sent_at: None,
            retention: retention::RetentionSettings::default(),
        })
    }

    /// The same rooms, whose policy servers are asked by `policy_servers`; before, nobody can ask.
    #[must_use]
    pub fn asking(self, policy_servers: Arc<dyn policy::PolicyServers>) -> Self {
        Self { policy_servers, ..self }
    }

    /// The same rooms, for events that are said to have been sent at another time than now (spec:
    /// Application Service API, Timestamp massaging).
    #[must_use]
    pub fn sending_at(self, at: MilliSecondsSinceUnixEpoch) -> Self {
        Self { sent_at: Some(at), ..self }
    }

    /// The same rooms, whose messages are kept so long; before, for ever.
    #[must_use]
    pub fn keeping(self, retention: retention::RetentionSettings) -> Self {
        Self { retention, ..self }
    }
}
