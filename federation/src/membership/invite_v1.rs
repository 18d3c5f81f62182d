//! An invitation by version 1 of the endpoint, whose body is the whole event (spec: Server-Server API,
//! `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`). ruma's type holds only a part of it.

use millrace_model::Pdu;
use ruma::api::{
    Metadata, OutgoingRequest,
    error::IntoHttpError,
    federation::membership::{
        RawStrippedState, create_invite::v1 as invite_v1, create_leave_event::v2 as send_leave,
    },
    path_builder::PathBuilder,
};
use serde_json::value::{RawValue, to_raw_value};

/// An event with an object in its `unsigned` that tells of the room.
#[derive(Debug, Clone)]
pub(super) struct InviteV1(send_leave::Request);

impl InviteV1 {
    pub fn new(event: &Pdu, shown: &[RawStrippedState]) -> serde_json::Result<Self> {
        let mut object = serde_json::to_value(event.to_canonical()?)?;
        object["unsigned"] = serde_json::json!({ "invite_room_state": shown });
        let body: Box<RawValue> = to_raw_value(&object)?;
        Ok(Self(send_leave::Request::new(event.room_id.clone(), event.event_id.clone(), body)))
    }
}

impl Metadata for InviteV1 {
    const METHOD: http::Method = <invite_v1::Request as Metadata>::METHOD;
    const RATE_LIMITED: bool = <invite_v1::Request as Metadata>::RATE_LIMITED;
    type Authentication = <invite_v1::Request as Metadata>::Authentication;
    type PathBuilder = <invite_v1::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = <invite_v1::Request as Metadata>::PATH_BUILDER;
}

impl OutgoingRequest for InviteV1 {
    type Body = <send_leave::Request as OutgoingRequest>::Body;
    type EndpointError = <invite_v1::Request as OutgoingRequest>::EndpointError;
    type IncomingResponse = invite_v1::Response;

    fn try_into_http_request_inner(
        self,
        base_url: &str,
        input: <Self::PathBuilder as PathBuilder>::Input<'_>,
    ) -> Result<http::Request<Self::Body>, IntoHttpError> {
        let arguments: [&dyn std::fmt::Display; 2] = [&self.0.room_id, &self.0.event_id];
        let url = Self::PATH_BUILDER.make_endpoint_url(input, base_url, &arguments, "")?;
        // The body is the same, one event; only the path is another.
        let mut request = self.0.try_into_http_request_inner(base_url, input)?;
        *request.uri_mut() = url.parse().map_err(http::Error::from)?;
        Ok(request)
    }
}
