//! Invitations by address: what identity servers tell us, and what other servers ask of a server that
//! is in the room (spec: Server-Server API, Third-party invites).

use axum::{Router, extract::State};
use millrace_domain::{Env, rooms::third_party_invite::SignedInvite};
use millrace_federation::{
    Federation,
    identity_servers::IdentityServers,
    membership::third_party_invite::{exchange, take_up},
};
use millrace_model::json::canonical_object;
use ruma::{
    CanonicalJsonValue,
    api::federation::thirdparty::{
        bind_callback::v1 as on_bind, exchange_invite::v1 as exchange_api,
    },
    events::StateEventType,
};

use super::authenticate::Signed;
use crate::{
    app::App,
    client_api::{
        account_limits::AccountLimits, error::ApiError, extract::Matrix, limits::EndpointClass,
        router::MatrixRouter,
    },
};

/// Invitations of one address that are taken up at once; an identity server has them all.
const INVITES_MAX: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(exchange_invite).matrix(bound)
}

/// `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
#[tracing::instrument(name = "federation.third_party_invites.exchange", skip_all, fields(origin = %signed.origin))]
async fn exchange_invite(
    State(federation): State<Federation>,
    State(identity_servers): State<IdentityServers>,
    signed: Signed<exchange_api::Request>,
) -> Result<Matrix<exchange_api::Response>, ApiError> {
    let exchange_api::Request { room_id, kind, sender, state_key, content, .. } = signed.request;
    if kind != StateEventType::RoomMember {
        return Err(ApiError::invalid_param("The event's type is not m.room.member"));
    }
    let content = canonical_object(content.json().get())?;
    if content.get("membership").and_then(CanonicalJsonValue::as_str) != Some("invite") {
        return Err(ApiError::invalid_param("The event is no invitation"));
    }
    let statement = content.get("third_party_invite").and_then(|invite| {
        let signed = invite.as_object()?.get("signed")?.as_object()?;
        SignedInvite::parse(signed.clone()).filter(|signed| signed.user == state_key)
    });
    let statement = statement
        .ok_or_else(|| ApiError::invalid_param("third_party_invite.signed is malformed"))?;
    exchange(&federation, &identity_servers, (&room_id, &sender), &statement).await?;
    Ok(Matrix(exchange_api::Response::new()))
}

/// `PUT /_matrix/federation/v1/3pid/onbind`
///
/// Anybody may send this: what counts is the signature of each invitation, by a key of the room.
#[tracing::instrument(name = "federation.third_party_invites.bound", skip_all)]
async fn bound(
    (State(federation), State(identity_servers)): (State<Federation>, State<IdentityServers>),
    State(env): State<Env>,
    limits: AccountLimits,
    Matrix(request): Matrix<on_bind::Request>,
) -> Result<Matrix<on_bind::Response>, ApiError> {
    limits.check_address(EndpointClass::Federation)?;
    if !env.is_local(&request.mxid) {
        return Err(ApiError::invalid_param("The user belongs to another server"));
    }
    for invite in request.invites.iter().take(INVITES_MAX) {
        let statement = canonical_object(invite.signed.json().get()).ok();
        let statement = statement.and_then(SignedInvite::parse);
        let Some(statement) = statement.filter(|statement| statement.user == request.mxid) else {
            tracing::debug!(room = %invite.room_id, "an invitation of an address is malformed");
            continue;
        };
        let place = (&*invite.room_id, &*invite.sender);
        // One that cannot be taken up does not hinder the others.
        if let Err(error) = take_up(&federation, &identity_servers, place, &statement, &[]).await {
            tracing::info!(room = %invite.room_id, %error, "an invitation was not taken up");
        }
    }
    Ok(Matrix(on_bind::Response::new()))
}
