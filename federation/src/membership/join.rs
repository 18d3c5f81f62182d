//! Joining a room, wherever it is (spec: Server-Server API, Joining Rooms).

use std::{collections::HashSet, time::Duration};

use millrace_domain::rooms::{
    AppendError, auth_chain,
    import::{self, ImportError, Omitted},
    join,
    membership::{Guest, MembershipError},
    partial, profile,
    receive::{self, ReceiveError, Received},
    residence,
};
use millrace_model::{Pdu, rules::room_version};
use ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId,
    RoomVersionId, ServerName,
    api::federation::membership::{
        create_join_event::v2 as send_join, prepare_join_event::v1 as make_join,
    },
    events::room::member::MembershipState,
};

use super::{
    admission::{self, Answer, BadAnswer},
    candidates::{Candidates, NobodyHelped},
    template::Wanted,
};
use crate::{Federation, transport::ExchangeLimits};

/// Bounds on the answer to a join, which holds the whole state of a room.
const SEND_JOIN_LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(300), answer_bytes_max: 512 << 20 };

/// Servers that a room can be said to have.
const SERVERS_MAX: usize = 100_000;

/// A user of ours wants into a room.
#[derive(Debug, Clone)]
pub struct Join {
    /// The room.
    pub room: OwnedRoomId,
    /// The user.
    pub user: OwnedUserId,
    /// Whether the user is a guest.
    pub guest: Guest,
    /// Servers that may be in the room, as the client or the alias's server names them.
    pub via: Vec<OwnedServerName>,
    /// What the member event says beside membership and profile, such as a reason.
    pub content: CanonicalJsonObject,
}

/// Why a user was not joined to a room.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The room is here, and does not admit them.
    #[error(transparent)]
    Here(#[from] MembershipError),
    /// The room is elsewhere, and nobody there admitted them.
    #[error(transparent)]
    Elsewhere(#[from] NobodyHelped),
    /// The room is elsewhere, and guests do not get there.
    #[error("guests can only join rooms of this server")]
    Guest,
    /// What was admitted could not be stored.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The join could not be put into the room, which we are in.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Joins a user to a room: here where this server is in it, else by another server's help. Goes on
/// when its caller gives up, since the other servers will count the user as joined.
///
/// # Errors
/// Where the room does not admit the user or nobody can be reached who is in it.
///
/// # Panics
/// Where joining itself panics.
pub async fn join(federation: &Federation, request: Join) -> Result<(), JoinError> {
    let federation = federation.clone();
    let work = tokio::spawn(async move { run(&federation, &request).await });
    work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn run(federation: &Federation, request: &Join) -> Result<(), JoinError> {
    let Join { room, user, guest, .. } = request;
    let rooms = &federation.rooms;
    let _turn = federation.handshakes.turn(room).await;
    let snapshot = federation.env.store.snapshot();
    let resident = residence::is_resident(&snapshot, room).await?;
    if resident && partial::may_be_excluded(&snapshot, room, user).await? {
        return elsewhere(federation, request, Residence::Partial).await;
    }
    if resident {
        match join::join_with(rooms, room, user, *guest, &request.content).await {
            // Another server may know more, or be able to do more.
            Err(error @ (MembershipError::CannotTell | MembershipError::NobodyAuthorises)) => {
                return match elsewhere(federation, request, Residence::Resident).await {
                    Err(JoinError::Elsewhere(NobodyHelped::NoCandidates)) => Err(error.into()),
                    joined => joined,
                };
            }
            joined => return Ok(joined?),
        }
    }
    if *guest == Guest::Yes {
        return Err(JoinError::Guest);
    }
    elsewhere(federation, request, Residence::Stranger).await
}

/// Whether we are in the room already, for other users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Residence {
    Resident,
    /// As above, but who else is in it, or banned, is not known yet.
    Partial,
    Stranger,
}

async fn elsewhere(
    federation: &Federation,
    request: &Join,
    residence: Residence,
) -> Result<(), JoinError> {
    let env = &federation.env;
    let mut candidates = Candidates::of(env, &request.room, &request.user, &request.via).await?;
    if residence != Residence::Stranger {
        candidates.add_residents(env, &request.room).await?;
    }
    let mut content = request.content.clone();
    profile::add_profile(&env.store.snapshot(), &request.user, &mut content).await?;
    let mut failure = NobodyHelped::NoCandidates;
    for server in candidates.iter() {
        let attempt = Attempt { federation, request, content: &content, server };
        match attempt.make(residence).await {
            Ok(()) => return Ok(()),
            Err(JoinError::Elsewhere(error)) => {
                tracing::info!(%server, room = %request.room, %error, "a join did not come about");
                failure = failure.or(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure.into())
}

/// One server asked to let a user in.
struct Attempt<'a> {
    federation: &'a Federation,
    request: &'a Join,
    content: &'a CanonicalJsonObject,
    server: &'a ServerName,
}

impl Attempt<'_> {
    async fn make(&self, residence: Residence) -> Result<(), JoinError> {
        let (version, join) = self.template().await?;
        let answer = self.send(&version, &join).await?;
        match residence {
            Residence::Stranger | Residence::Partial => {
                let unusable = |error| match error {
                    BadAnswer::NotAdmitted(refused) => {
                        NobodyHelped::NotAdmitted { server: self.server.to_owned(), refused }
                    }
                    error => NobodyHelped::unusable(self.server, error),
                };
                let answer = self.with_stored(&join, answer).await?;
                let admission = admission::admission(&self.request.room, &version, join, answer);
                import::import(&self.federation.rooms, admission.map_err(unusable)?).await?;
                self.federation.partial_room.notify_one();
                Ok(())
            }
            Residence::Resident => self.hear_of(answer.join.unwrap_or(join)).await,
        }
    }

    /// What authorises the join and was not sent may be here, from an earlier stay in the room.
    async fn with_stored(&self, join: &Pdu, mut answer: Answer) -> Result<Answer, JoinError> {
        let sent = answer.state.iter().chain(&answer.auth_chain);
        let sent: HashSet<&EventId> = sent.map(|pdu| &*pdu.event_id).collect();
        let lacked = join.auth_events.iter().filter(|id| !sent.contains(&***id));
        let lacked: Vec<OwnedEventId> = lacked.cloned().collect();
        if !lacked.is_empty() {
            let stored = auth_chain::stored(&self.federation.rooms, &self.request.room, &lacked);
            let stored = stored.await.map_err(AppendError::from).map_err(ImportError::from)?;
            answer.auth_chain.extend(stored);
        }
        Ok(answer)
    }

    /// Our join event, made of the server's template.
    async fn template(&self) -> Result<(RoomVersionId, Pdu), NobodyHelped> {
        let (room, user) = (&self.request.room, &self.request.user);
        let mut ask = make_join::Request::new(room.clone(), user.clone());
        ask.ver = room_version::supported().collect();
        let answer = self.federation.peers.insisting().ask(self.server, ask).await?;
        let version = answer.room_version.unwrap_or(RoomVersionId::V1);
        let membership = MembershipState::Join;
        let wanted = Wanted { room, user, membership, content: self.content };
        let event = wanted
            .sign(&self.federation.env, self.server, &version, &answer.event)
            .map_err(|error| NobodyHelped::unusable(self.server, error))?;
        Ok((version, event))
    }

    async fn send(&self, version: &RoomVersionId, join: &Pdu) -> Result<Answer, NobodyHelped> {
        let unusable = |error: &dyn std::fmt::Display| NobodyHelped::unusable(self.server, error);
        let pdu = join.to_raw().map_err(|error| unusable(&error))?;
        let room = self.request.room.clone();
        let mut ask = send_join::Request::new(room, join.event_id.clone(), pdu);
        ask.omit_members = true;
        let peers = self.federation.peers.insisting();
        let answer = peers.ask_within(self.server, ask, SEND_JOIN_LIMITS).await?.room_state;
        let omitted = match answer.members_omitted {
            false => None,
            true => Some(self.omitted(answer.servers_in_room)?),
        };
        let (states, returns) = (answer.state.len(), answer.event.is_some());
        let mut pdus = answer.state;
        pdus.extend(answer.event);
        pdus.extend(answer.auth_chain);
        let mut checked = self.federation.check_pdus(version, pdus).await.into_iter();
        let state = checked.by_ref().take(states).flatten().collect();
        let join = match returns {
            true => checked.next().transpose().map_err(|error| unusable(&error))?,
            false => None,
        };
        Ok(Answer { state, auth_chain: checked.flatten().collect(), join, omitted })
    }

    /// What is told in the place of the members: without it we would not know whom to tell what
    /// happens in the room, nor whom to ask.
    fn omitted(&self, servers: Option<Vec<String>>) -> Result<Omitted, NobodyHelped> {
        let servers = servers.into_iter().flatten().take(SERVERS_MAX);
        let servers = servers.filter_map(|server| OwnedServerName::try_from(server).ok());
        let servers: Vec<OwnedServerName> = servers.collect();
        if servers.is_empty() {
            let missing = "members are left out, and the servers in the room are not named";
            return Err(NobodyHelped::unusable(self.server, missing));
        }
        Ok(Omitted { told_by: self.server.to_owned(), servers })
    }

    /// A server let a user into a room that we are in: it tells us of that as it tells all others,
    /// but the user need not wait for it.
    async fn hear_of(&self, join: Pdu) -> Result<(), JoinError> {
        let room = &self.request.room;
        match receive::receive(&self.federation.rooms, room, join).await? {
            Received::Accepted | Received::Known => Ok(()),
            Received::SoftFailed | Received::Rejected => {
                Err(NobodyHelped::unusable(self.server, "the join is not allowed here").into())
            }
        }
    }
}
