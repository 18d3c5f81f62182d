//! Which servers to ask about a room that we are not in, and in which order.

use millrace_domain::{Env, rooms::servers};
use millrace_model::rules::auth::Refused;
use millrace_store::{
    Read,
    tables::{OUTSIDE_VIAS, USER_ROOMS},
};
use ruma::{
    OwnedServerName, RoomId, ServerName, UserId, api::error::ErrorKind,
    events::room::member::MembershipState,
};

use crate::peers::PeerError;

/// How many servers are asked one after the other.
const CANDIDATES_MAX: usize = 20;

/// Servers in the order in which they are asked, each once, never ourselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates(Vec<OwnedServerName>);

impl Candidates {
    /// Who may know the room: those that the client names, who invited the user, through whom the
    /// user knocked; where there is nobody else, the server that the room's ID names.
    pub async fn of(
        env: &Env,
        room: &RoomId,
        user: &UserId,
        named: &[OwnedServerName],
    ) -> millrace_store::Result<Self> {
        let mut candidates = Self::default();
        for server in named {
            candidates.add(env, server);
        }
        let read = env.store.snapshot();
        if let Some(row) = read.get(&USER_ROOMS, user, room).await?
            && row.membership == MembershipState::Invite
        {
            candidates.add(env, row.sender.server_name());
        }
        if let Some(vias) = read.get(&OUTSIDE_VIAS, user, room).await? {
            for server in &vias.servers {
                candidates.add(env, server);
            }
        }
        // That a room was created on a server says little of who is in it now.
        if candidates.0.is_empty()
            && let Some(server) = room.server_name()
        {
            candidates.add(env, server);
        }
        Ok(candidates)
    }

    /// Adds the other servers that are in a room that we are in too.
    pub async fn add_residents(&mut self, env: &Env, room: &RoomId) -> millrace_store::Result<()> {
        for server in servers::servers_of(&env.store.snapshot(), room).await? {
            self.add(env, &server);
        }
        Ok(())
    }

    fn add(&mut self, env: &Env, server: &ServerName) {
        let new = server != env.identity.name && !self.0.iter().any(|known| known == server);
        if new && self.0.len() < CANDIDATES_MAX {
            self.0.push(server.to_owned());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &OwnedServerName> {
        self.0.iter()
    }
}

/// Why none of the servers did what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NobodyHelped {
    /// There was nobody to ask.
    #[error("no server is known that is in the room")]
    NoCandidates,
    /// The most telling of their answers.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// What they said cannot be used.
    #[error("{server} gave an answer that cannot be used: {reason}")]
    Unusable {
        /// Who said it.
        server: OwnedServerName,
        /// What is wrong with it.
        reason: String,
    },
    /// What they let the user into does not admit the user.
    #[error("the room does not admit the user, as {server} tells its state: {refused}")]
    NotAdmitted {
        /// Who told it.
        server: OwnedServerName,
        /// Which rule forbids it.
        refused: Refused,
    },
}

impl NobodyHelped {
    pub(super) fn unusable(server: &ServerName, reason: impl std::fmt::Display) -> Self {
        Self::Unusable { server: server.to_owned(), reason: reason.to_string() }
    }

    /// The one of two errors that says more about the room.
    pub(super) fn or(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    /// A refusal by the room's rules tells more than a server that does not know the room, and that
    /// more than one that does not answer.
    fn weight(&self) -> u8 {
        match self {
            Self::NoCandidates => 0,
            Self::Peer(PeerError::Refused { error, status, .. }) => match error.error_kind() {
                Some(ErrorKind::Forbidden | ErrorKind::IncompatibleRoomVersion(_)) => 6,
                Some(ErrorKind::UnableToGrantJoin | ErrorKind::UnableToAuthorizeJoin) => 5,
                _ if status.as_u16() == 404 => 3,
                _ if status.is_client_error() => 4,
                _ => 2,
            },
            Self::NotAdmitted { .. } => 5,
            Self::Unusable { .. } => 2,
            Self::Peer(_) => 1,
        }
    }
}
