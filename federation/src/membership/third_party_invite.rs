//! Invitations by e-mail address or phone number (spec: Server-Server API, Third-party invites).
//!
//! [`invite_by_address`] begins one; [`take_up`] ends it, when an identity server has said whose the
//! address is: here if we are in the room, else by the help of a server that is ([`exchange`]).

use millrace_domain::{
    rooms::{
        ReadError, Viewer,
        invite::Invitation,
        membership::{Direct, Guest, MembershipError},
        residence,
        set_state::{NewState, SetStateError, set_state},
        state::{Form, state_event},
        third_party_invite::{Pending, SignedInvite, check_may_invite, pending},
    },
    threepids::Address,
};
use millrace_store::{Read, tables::PROFILES};
use ruma::{
    CanonicalJsonObject, OwnedServerName, RoomId, UserId,
    api::federation::thirdparty::exchange_invite::v1 as exchange_api, events::TimelineEventType,
    serde::Raw,
};
use serde_json::{Value, json};

use super::invite::{self, InviteError};
use crate::{
    Federation, PeerError,
    identity_servers::{IdentityError, IdentityServers, RoomShown, StoreInvite},
};

/// Servers that are asked to take an invitation up, at most.
const HELPERS_MAX: usize = 3;

/// Somebody wants whoever has an address invited.
#[derive(Debug, Clone, Copy)]
pub struct ByAddress<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// Who invites, a user of this server.
    pub sender: &'a UserId,
    /// The address.
    pub address: &'a Address,
    /// The identity server, as the client names it.
    pub server: &'a str,
    /// The client's access token of it.
    pub access_token: &'a str,
}

/// Why nobody was invited by an address.
#[derive(Debug, thiserror::Error)]
pub enum ThirdPartyInviteError {
    /// The room does not allow it.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The identity server does not help.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The user that has the address could not be invited.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The room did not take the invitation of the address.
    #[error(transparent)]
    State(#[from] SetStateError),
    /// The room holds no such invitation, or not of this sender.
    #[error("no such invitation waits in this room")]
    NotPending,
    /// No key of the invitation signed the statement, or for somebody else.
    #[error("the invitation is not signed for this user by the identity server")]
    Unsigned,
    /// The key is not good any more, or nobody could say that it is.
    #[error("the key that signed the invitation is not valid any more")]
    Revoked,
    /// No server in the room helped.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<millrace_store::Error> for ThirdPartyInviteError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Invites the user that has the address, as an identity server says; where none has it yet, has the
/// identity server keep the invitation, and the room the keys that will say who it is.
///
/// # Errors
/// Where the room does not allow it, or the identity server does not help.
pub async fn invite_by_address(
    federation: &Federation,
    identity_servers: &IdentityServers,
    by: &ByAddress<'_>,
) -> Result<(), ThirdPartyInviteError> {
    let ByAddress { room, sender, address, access_token, .. } = *by;
    let server = identity_servers.trusted(by.server)?;
    check_may_invite(&federation.rooms, room, sender).await?;
    if let Some(invited) = identity_servers.lookup(&server, access_token, address).await? {
        let (invited, direct) = (&*invited, Direct::No);
        let invitation = Invitation { room, sender, invited, direct, reason: None, content: None };
        invite::invite(federation, &invitation).await?;
        return Ok(());
    }
    let shown = &shown(federation, room, sender).await?;
    let invite = StoreInvite { address, room, sender, shown };
    let stored = identity_servers.store_invite(&server, access_token, &invite).await?;
    let validity = |path: &str| format!("https://{server}/_matrix/identity/v2/pubkey/{path}");
    let first = stored.public_keys.first();
    let content = json!({
        "display_name": stored.display_name,
        "public_keys": stored.public_keys,
        // What there was before there were several keys.
        "public_key": first.map(|key| &key.public_key),
        "key_validity_url": first.map_or_else(|| validity("isvalid"), |key| key.key_validity_url.clone()),
    });
    let content: CanonicalJsonObject = serde_json::from_value(content).map_err(|error| {
        IdentityError::Unreadable { server: server.to_string(), reason: error.to_string() }
    })?;
    let state = NewState {
        sender: sender.to_owned(),
        guest: Guest::No,
        kind: TimelineEventType::RoomThirdPartyInvite,
        state_key: stored.token,
        content,
    };
    set_state(&federation.rooms, room, &state).await?;
    Ok(())
}

/// What the mail of the identity server may say, to the best of our knowledge.
async fn shown(
    federation: &Federation,
    room: &RoomId,
    sender: &UserId,
) -> Result<RoomShown, ThirdPartyInviteError> {
    let read = federation.env.store.snapshot();
    let viewer = Viewer::load(&read, sender, None).await?;
    let state = async |kind: &str, field: &str| {
        let place = (kind, "");
        let event = state_event(&federation.rooms, &viewer, room, place, Form::Content).await;
        let content: Value = serde_json::from_str(event.ok()?.get()).ok()?;
        content[field].as_str().map(ToOwned::to_owned)
    };
    let profile = read.get_many(&PROFILES, sender, ["displayname", "avatar_url"]).await?;
    let mut profile = profile.into_iter().map(|json| serde_json::from_str::<String>(&json?).ok());
    Ok(RoomShown {
        room_alias: state("m.room.canonical_alias", "alias").await,
        room_avatar_url: state("m.room.avatar", "url").await,
        room_join_rules: state("m.room.join_rules", "join_rule").await,
        room_name: state("m.room.name", "name").await,
        room_type: state("m.room.create", "type").await,
        sender_display_name: profile.next().flatten(),
        sender_avatar_url: profile.next().flatten(),
    })
}

/// Invites a user whom an identity server's statement names: in our room, or by the help of the
/// sender's server, the room's, or those of `via`.
///
/// # Errors
/// Where the statement does not fit an invitation, or nobody helps.
pub async fn take_up(
    federation: &Federation,
    identity_servers: &IdentityServers,
    (room, sender): (&RoomId, &UserId),
    signed: &SignedInvite,
    via: &[OwnedServerName],
) -> Result<(), ThirdPartyInviteError> {
    if residence::is_resident(&federation.env.store.snapshot(), room).await? {
        return exchange(federation, identity_servers, (room, sender), signed).await;
    }
    let unnamed =
        Pending { sender: sender.to_owned(), display_name: String::new(), keys: Vec::new() };
    let unwritable = |error: serde_json::Error| PeerError::Request(error.to_string());
    let content = Raw::new(&signed.content(&unnamed)).map_err(unwritable)?.cast_unchecked();
    let us = &federation.env.identity.name;
    let mut helpers: Vec<OwnedServerName> = vec![sender.server_name().to_owned()];
    helpers.extend(room.server_name().map(ToOwned::to_owned));
    helpers.extend(via.iter().cloned());
    helpers.retain(|helper| helper != us);
    helpers.dedup();
    let mut last = None;
    for helper in helpers.iter().take(HELPERS_MAX) {
        let request = exchange_api::Request::new(
            room.to_owned(),
            sender.to_owned(),
            signed.user.clone(),
            content.clone(),
        );
        match federation.peers.ask(helper, request).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(ThirdPartyInviteError::NotPending, Into::into))
}

/// Puts the invitation of a user whom an identity server's statement names into a room that we are
/// in (`PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`).
///
/// # Errors
/// Where no such invitation waits, or the statement is not signed by its keys.
pub async fn exchange(
    federation: &Federation,
    identity_servers: &IdentityServers,
    (room, sender): (&RoomId, &UserId),
    signed: &SignedInvite,
) -> Result<(), ThirdPartyInviteError> {
    let waiting = pending(&federation.rooms, room, &signed.token).await?;
    let waiting = waiting.filter(|waiting| waiting.sender == *sender);
    let waiting = waiting.ok_or(ThirdPartyInviteError::NotPending)?;
    let key = signed.signed_by(&waiting.keys).ok_or(ThirdPartyInviteError::Unsigned)?;
    if let Some(url) = &key.key_validity_url
        && !identity_servers.is_key_valid(url, &key.public_key).await
    {
        return Err(ThirdPartyInviteError::Revoked);
    }
    let content = &signed.content(&waiting);
    let invitation = Invitation {
        room,
        sender,
        invited: &signed.user,
        direct: Direct::No,
        reason: None,
        content: Some(content),
    };
    invite::invite(federation, &invitation).await?;
    Ok(())
}
