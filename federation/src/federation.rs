//! What all that concerns other servers stands on.

use std::{ops::Deref, sync::Arc};

use millrace_domain::{Env, rooms::Rooms};
use ruma::OwnedServerName;
use tokio::sync::Notify;

use crate::{
    destinations::Destinations,
    hierarchy::ToldSpaces,
    keyring::{Keyring, OldKey},
    membership::Handshakes,
    pages::Pages,
    peers::Peers,
    policy::PolicyPeers,
    transport::Transport,
};

/// Our side of the federation. Clones are cheap.
#[derive(Clone)]
pub struct Federation(Arc<FederationParts>);

/// What operations of this crate take.
pub struct FederationParts {
    /// Store, clock, randomness, identity.
    pub env: Env,
    /// Rooms, their events and state.
    pub rooms: Rooms,
    /// Which other servers are down.
    pub destinations: Destinations,
    /// Other servers, to ask them.
    pub peers: Peers,
    /// Pages anywhere.
    pub pages: Pages,
    /// Keys of other servers, to check what they say.
    pub keyring: Keyring,
    /// Rooms that users of ours are getting into.
    pub(crate) handshakes: Handshakes,
    /// A room was joined of which only a part of the state is known.
    pub(crate) partial_room: Notify,
    /// What others have told of their spaces.
    pub(crate) spaces: ToldSpaces,
}

/// What is configured about other servers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether other servers are neither asked nor answered.
    pub closed: bool,
    /// Servers that are asked for the keys of others.
    pub notaries: Vec<OwnedServerName>,
    /// The keys that we signed with in the past.
    pub old_keys: Vec<OldKey>,
}

impl Federation {
    /// Joins the federation over `transport`. Its `rooms` ask their policy servers; the given ones
    /// cannot.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(
        rooms: Rooms,
        transport: Arc<dyn Transport>,
        settings: Settings,
    ) -> millrace_store::Result<Self> {
        let env = rooms.env.clone();
        let destinations = Destinations::open(env.clone()).await?;
        let Settings { closed, notaries, old_keys } = settings;
        let pages = Pages::new(Arc::clone(&transport));
        let transport = (!closed).then_some(transport);
        let peers = Peers::new(env.clone(), transport, destinations.clone());
        let rooms = rooms.asking(Arc::new(PolicyPeers::new(peers.clone())));
        let keyring = Keyring::new(env.clone(), peers.clone(), notaries, &old_keys);
        Ok(Self(Arc::new(FederationParts {
            destinations,
            env,
            rooms,
            peers,
            pages,
            keyring,
            handshakes: Handshakes::default(),
            partial_room: Notify::new(),
            spaces: ToldSpaces::default(),
        })))
    }
}

impl Deref for Federation {
    type Target = FederationParts;

    fn deref(&self) -> &FederationParts {
        &self.0
    }
}
