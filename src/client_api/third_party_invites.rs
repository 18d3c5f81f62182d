//! Invitations by e-mail address or phone number, as clients ask for them.

use millrace_domain::{
    accounts::Requester, rooms::third_party_invite::SignedInvite, threepids::Address,
};
use millrace_federation::{
    Federation,
    identity_servers::IdentityServers,
    membership::third_party_invite::{
        ByAddress, ThirdPartyInviteError, invite_by_address, take_up,
    },
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, RoomId, UserId,
    api::client::membership::Invite3pid,
};

use super::error::ApiError;

/// Invites whoever has an address.
pub(super) async fn invite(
    (federation, identity_servers): (&Federation, &IdentityServers),
    room: &RoomId,
    sender: &UserId,
    invited: &Invite3pid,
) -> Result<(), ApiError> {
    let address = &Address::of(&invited.medium, &invited.address)?;
    let (server, access_token) = (&*invited.id_server, &*invited.id_access_token);
    let by = ByAddress { room, sender, address, server, access_token };
    Ok(invite_by_address(federation, identity_servers, &by).await?)
}

/// Invites who joins, where they bring an identity server's statement that they have the address of
/// an invitation (`third_party_signed`).
pub(super) async fn redeem(
    (federation, identity_servers): (&Federation, &IdentityServers),
    requester: &Requester,
    (room, via): (&RoomId, &[OwnedServerName]),
    body: &CanonicalJsonObject,
) -> Result<(), ApiError> {
    let Some(signed) = body.get("third_party_signed") else { return Ok(()) };
    let malformed = || ApiError::bad_json("third_party_signed is malformed");
    let object = signed.as_object().ok_or_else(malformed)?;
    let sender = object.get("sender").and_then(CanonicalJsonValue::as_str);
    let sender = sender.and_then(|sender| UserId::parse(sender).ok()).ok_or_else(malformed)?;
    let signed = SignedInvite::parse(object.clone()).ok_or_else(malformed)?;
    if signed.user != requester.user {
        return Err(ApiError::forbidden("third_party_signed names another user"));
    }
    Ok(take_up(federation, identity_servers, (room, &sender), &signed, via).await?)
}

impl From<ThirdPartyInviteError> for ApiError {
    fn from(error: ThirdPartyInviteError) -> Self {
        match error {
            ThirdPartyInviteError::Membership(error) => error.into(),
            ThirdPartyInviteError::Identity(error) => error.into(),
            ThirdPartyInviteError::Invite(error) => error.into(),
            ThirdPartyInviteError::State(error) => error.into(),
            ThirdPartyInviteError::Peer(error) => error.into(),
            ThirdPartyInviteError::NotPending
            | ThirdPartyInviteError::Unsigned
            | ThirdPartyInviteError::Revoked => Self::forbidden(error),
            ThirdPartyInviteError::Read(_) => Self::internal(error),
        }
    }
}
