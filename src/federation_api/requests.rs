//! Requests in forms that ruma has no types for: older paths, and bodies read less strictly.

use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId,
    api::{
        IncomingRequest, Metadata,
        error::DeserializationError,
        federation::membership::{
            RawStrippedState, create_invite, create_join_event::v2 as send_join,
            create_leave_event::v2 as send_leave,
        },
        path_builder::SinglePath,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A request on the path of version 1, which is otherwise the same; only the answer differs.
#[derive(Debug, Clone)]
pub(super) struct Version1<T>(pub T);

macro_rules! version_1 {
    ($($request:ty: $path:literal),+ $(,)?) => {$(
        impl Metadata for Version1<$request> {
            const METHOD: http::Method = <$request as Metadata>::METHOD;
            const RATE_LIMITED: bool = <$request as Metadata>::RATE_LIMITED;
            type Authentication = <$request as Metadata>::Authentication;
            type PathBuilder = <$request as Metadata>::PathBuilder;
            const PATH_BUILDER: Self::PathBuilder = SinglePath::new($path);
        }

        impl IncomingRequest for Version1<$request> {
            type EndpointError = <$request as IncomingRequest>::EndpointError;
            type OutgoingResponse = <$request as IncomingRequest>::OutgoingResponse;

            fn try_from_http_request_inner(
                request: http::Request<&[u8]>,
                path_args: &[&str],
            ) -> Result<Self, DeserializationError> {
                <$request>::try_from_http_request_inner(request, path_args).map(Self)
            }
        }
    )+};
}

version_1! {
    send_join::Request: "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
    send_leave::Request: "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
}

/// An invitation, which need not show anything of the room.
#[derive(Debug, Clone)]
pub(super) struct Invite {
    pub room_id: OwnedRoomId,
    pub event_id: OwnedEventId,
    /// The room's version; version 1 of the endpoint does not say it.
    pub version: Option<RoomVersionId>,
    pub event: Box<RawValue>,
    pub shown: Vec<RawStrippedState>,
}

#[derive(Deserialize)]
struct InviteBody {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<RawStrippedState>,
}

impl Metadata for Invite {
    const METHOD: http::Method = <create_invite::v2::Request as Metadata>::METHOD;
    const RATE_LIMITED: bool = <create_invite::v2::Request as Metadata>::RATE_LIMITED;
    type Authentication = <create_invite::v2::Request as Metadata>::Authentication;
    type PathBuilder = <create_invite::v2::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = <create_invite::v2::Request as Metadata>::PATH_BUILDER;
}

impl IncomingRequest for Invite {
    type EndpointError = <create_invite::v2::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = create_invite::v2::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (room_id, event_id) = path(path_args)?;
        let body: InviteBody = serde_json::from_slice(request.body())?;
        let (version, shown) = (Some(body.room_version), body.invite_room_state);
        Ok(Self { room_id, event_id, version, event: body.event, shown })
    }
}

/// An invitation by version 1 of the endpoint: the body is the event.
#[derive(Debug, Clone)]
pub(super) struct InviteV1(pub Invite);

#[derive(Deserialize)]
struct InvitedUnsigned {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    invite_room_state: Vec<RawStrippedState>,
}

impl Metadata for InviteV1 {
    const METHOD: http::Method = <create_invite::v1::Request as Metadata>::METHOD;
    const RATE_LIMITED: bool = <create_invite::v1::Request as Metadata>::RATE_LIMITED;
    type Authentication = <create_invite::v1::Request as Metadata>::Authentication;
    type PathBuilder = <create_invite::v1::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = <create_invite::v1::Request as Metadata>::PATH_BUILDER;
}

impl IncomingRequest for InviteV1 {
    type EndpointError = <create_invite::v1::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = create_invite::v1::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (room_id, event_id) = path(path_args)?;
        let event: Box<RawValue> = serde_json::from_slice(request.body())?;
        let InvitedUnsigned { unsigned } = serde_json::from_slice(request.body())?;
        let shown = unsigned.invite_room_state;
        Ok(Self(Invite { room_id, event_id, version: None, event, shown }))
    }
}

fn path(arguments: &[&str]) -> Result<(OwnedRoomId, OwnedEventId), DeserializationError> {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or_default();
    Ok((argument(0).try_into()?, argument(1).try_into()?))
}
