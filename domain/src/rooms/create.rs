//! Creating a room (spec: Client-Server API, Creation).

use futures::FutureExt;
use millrace_model::{
    identifiers::{self, InvalidName},
    rules::room_version,
};
use millrace_store::{
    Node, Read, Tx,
    rows::room::Alias,
    tables::{ALIASES, PUBLISHED_ROOMS, ROOM_ALIASES, ROOM_HEAD},
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedUserId,
    RoomId, RoomVersionId, UInt, UserId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms,
    membership::{Action, Change, Direct, Guest, MembershipError},
    new_room::{self, MalformedContent},
};

/// How often a room whose ID exists already is made again, a millisecond later each time.
pub(super) const COLLISIONS_MAX: u32 = 50;

/// A set of defaults for a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Only who is invited joins.
    Private,
    /// As `Private`, and who is invited at the creation may do what the creator may.
    TrustedPrivate,
    /// Anybody joins.
    Public,
}

/// Whether a room is listed in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It is.
    Published,
    /// It is not.
    Unlisted,
}

/// A state event of a room to be.
#[derive(Debug, Clone, PartialEq)]
pub struct InitialState {
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: CanonicalJsonObject,
}

impl InitialState {
    /// An event of `kind` with an empty state key.
    pub(super) fn of(kind: TimelineEventType, content: CanonicalJsonObject) -> Self {
        Self { kind, state_key: String::new(), content }
    }

    fn draft(&self, sender: &UserId) -> Draft {
        Draft::state(sender, self.kind.clone(), &self.state_key, self.content.clone())
    }
}

/// A room to be.
#[derive(Debug, Clone)]
pub struct NewRoom {
    /// Who creates it.
    pub creator: OwnedUserId,
    /// The room's version.
    pub version: RoomVersionId,
    /// The defaults.
    pub preset: Preset,
    /// What the create event says beside version and creator.
    pub creation_content: CanonicalJsonObject,
    /// Replaces fields of the default power levels.
    pub power_levels: CanonicalJsonObject,
    /// State events of the client's choice.
    pub initial_state: Vec<InitialState>,
    /// The name.
    pub name: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Who is invited.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invitations are to a direct chat.
    pub direct: Direct,
    /// The local part of its canonical alias.
    pub alias_name: Option<String>,
    /// Whether it is listed in the directory.
    pub listing: Listing,
}

impl NewRoom {
    /// A private room without any wishes.
    #[must_use]
    pub fn plain(creator: OwnedUserId, version: RoomVersionId) -> Self {
        Self {
            creator,
            version,
            preset: Preset::Private,
            creation_content: CanonicalJsonObject::new(),
            power_levels: CanonicalJsonObject::new(),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            invite: Vec::new(),
            direct: Direct::No,
            alias_name: None,
            listing: Listing::Unlisted,
        }
    }
}

/// Why a room was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A room version that this server does not have.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// The alias cannot be.
    #[error("the alias cannot be: {0}")]
    AliasName(#[from] InvalidName),
    /// The alias leads to another room.
    #[error("the alias {0} is in use")]
    AliasInUse(OwnedRoomAliasId),
    /// Something that cannot be said in the create event or the power levels.
    #[error(transparent)]
    Malformed(#[from] MalformedContent),
    /// The rules of rooms do not allow the state that was asked for.
    #[error("the room cannot be made like this: {0}")]
    State(AppendError),
    /// Somebody cannot be invited.
    #[error(transparent)]
    Invite(MembershipError),
    /// The same room was made already, many times over.
    #[error("could not find a free room ID")]
    Collision,
    /// The store failed.
    #[error("could not create the room")]
    Store(#[from] millrace_store::Error),
}

impl From<AppendError> for CreateError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(error) => Self::Store(error),
            error => Self::State(error),
        }
    }
}

/// Creates a room with all its first events in one transaction, and returns its ID. The invitations
/// of other servers' users are left to the caller, since their servers have to be asked.
///
/// # Errors
/// Where the room cannot be made as asked; then nothing is.
pub async fn create(rooms: &Rooms, new: &NewRoom) -> Result<OwnedRoomId, CreateError> {
    let plan = &Plan::new(rooms, new)?;
    let numbers = &Numbers::draw(rooms, plan.events()).await?;
    for attempt in 0..COLLISIONS_MAX {
        let at = creation_time(rooms, attempt);
        let body = |tx: Tx| {
            async move {
                let room = plan.carry_out(&tx, rooms, numbers, at).await?;
                let room_id = room.room_id.clone();
                room.finish();
                Ok(room_id)
            }
            .boxed()
        };
        match rooms.env.store.transact(body).await {
            Err(CreateError::Collision) => {}
            created => return created,
        }
    }
    Err(CreateError::Collision)
}

/// A fresh room ID, where the room version does not name rooms by their create event.
pub(super) fn room_id_for(rooms: &Rooms, rules: &RoomVersionRules) -> Option<OwnedRoomId> {
    let text = || format!("!{}:{}", rooms.env.random_text(18), rooms.env.identity.name);
    let random = || RoomId::parse(text()).expect("a random text and a server name are a room ID");
    (!rules.authorization.room_create_event_id_as_room_id).then(random)
}

/// When a room is said to be created, another time for each attempt.
pub(super) fn creation_time(rooms: &Rooms, attempt: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(rooms.env.now().0 + UInt::from(attempt))
}

/// A room to be, its wishes turned into events.
pub(super) struct Plan<'a> {
    new: &'a NewRoom,
    alias: Option<OwnedRoomAliasId>,
    /// The create event, then all state after the creator has joined.
    state: Vec<InitialState>,
    /// Where the room version does not name it by its create event.
    room_id: Option<OwnedRoomId>,
}

impl<'a> Plan<'a> {
    pub fn new(rooms: &Rooms, new: &'a NewRoom) -> Result<Self, CreateError> {
        Self::named(rooms, new, None)
    }

    /// The same for a room whose ID has been drawn already.
    pub fn named(
        rooms: &Rooms,
        new: &'a NewRoom,
        room_id: Option<OwnedRoomId>,
    ) -> Result<Self, CreateError> {
        let rules = room_version::rules(&new.version)
            .ok_or_else(|| CreateError::Version(new.version.clone()))?;
        let server = &rooms.env.identity.name;
        let alias = new.alias_name.as_deref();
        let alias = alias.map(|name| identifiers::alias_from_name(name, server)).transpose()?;
        let state = new_room::first_state(new, rules, alias.as_deref())?;
        let room_id = room_id.or_else(|| room_id_for(rooms, rules));
        Ok(Self { new, alias, state, room_id })
    }

    /// How many events it takes.
    pub fn events(&self) -> usize {
        self.state.len() + 1 + self.new.invite.len()
    }

    /// Makes the room within a transaction. [`RoomTx::finish`] is left to the caller.
    ///
    /// A room of version 12 is named by its create event, so two that are alike in everything, the
    /// millisecond too, would be one: then `at` has to be another time.
    pub async fn carry_out<'t>(
        &self,
        tx: &'t Tx,
        rooms: &'t Rooms,
        numbers: &Numbers,
        at: MilliSecondsSinceUnixEpoch,
    ) -> Result<RoomTx<'t>, CreateError> {
        let new = self.new;
        let unnamed = || ruma::owned_room_id!("!unnamed");
        let room_id = self.room_id.clone().unwrap_or_else(unnamed);
        let mut room = RoomTx::create(tx, rooms, room_id, new.version.clone(), numbers)?;
        let mut state = self.state.iter();
        if let Some(create) = state.next() {
            room.append(Draft { at: Some(at), ..create.draft(&new.creator) }).await?;
        }
        if tx.get(&ROOM_HEAD, &room.room_id, ()).await?.is_some() {
            return Err(CreateError::Collision);
        }
        let join = Change::own(&new.creator, Action::Join(Guest::No), None);
        join.apply(&mut room).await.map_err(CreateError::Invite)?;
        for event in state {
            room.append(event.draft(&new.creator)).await?;
        }
        for invited in &new.invite {
            self.invite(&mut room, invited).await?;
        }
        self.list(tx, &room.room_id).await?;
        Ok(room)
    }

    async fn invite(&self, room: &mut RoomTx<'_>, invited: &UserId) -> Result<(), CreateError> {
        let action = Action::Invite(self.new.direct);
        let sender = &self.new.creator;
        let change = Change::of(sender, invited, action, None);
        match change.apply(room).await {
            // Who belongs to another server is invited by its help, once the room is there.
            Ok(_) | Err(MembershipError::OtherServer(_)) => Ok(()),
            Err(MembershipError::Append(error)) => Err(error.into()),
            Err(error) => Err(CreateError::Invite(error)),
        }
    }

    /// Enters the room into the tables beside its events.
    async fn list(&self, tx: &Tx, room_id: &RoomId) -> Result<(), CreateError> {
        if let Some(alias) = &self.alias {
            if tx.get(&ALIASES, alias, ()).await?.is_some() {
                return Err(CreateError::AliasInUse(alias.clone()));
            }
            let row = Alias { room: room_id.to_owned(), creator: self.new.creator.clone() };
            tx.put(&ALIASES, alias, (), &row);
            tx.put(&ROOM_ALIASES, room_id, alias, &());
        }
        if self.new.listing == Listing::Published {
            tx.put(&PUBLISHED_ROOMS, Node, room_id, &());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
