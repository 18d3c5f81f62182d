//! Requests of which we take more than ruma's types do, or less strictly.

use axum::extract::Query;
use http::Uri;
use millrace_model::filter::RelationSelection;
use ruma::{
    CanonicalJsonObject,
    api::{
        IncomingRequest, Metadata, client::message::get_message_events,
        error::DeserializationError, path_builder::PathBuilder,
    },
};
use serde::Deserialize;

/// A request and all of its body, where clients may say more than the specification lists.
#[derive(Debug, Clone)]
pub(super) struct WithBody<T> {
    /// The typed request.
    pub request: T,
    /// The whole body.
    pub body: CanonicalJsonObject,
}

impl<T: Metadata> Metadata for WithBody<T>
where
    T::PathBuilder: PathBuilder,
{
    const METHOD: http::Method = T::METHOD;
    const RATE_LIMITED: bool = T::RATE_LIMITED;
    type Authentication = T::Authentication;
    type PathBuilder = T::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = T::PATH_BUILDER;
}

impl<T: IncomingRequest> IncomingRequest for WithBody<T> {
    type EndpointError = T::EndpointError;
    type OutgoingResponse = T::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body = serde_json::from_slice(request.body())?;
        let request = T::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, body })
    }
}

/// `GET /rooms/{roomId}/messages`, where `dir` may be absent: forward, as servers have always had
/// it and clients rely on. Its filter may name kinds of relations (MSC3874).
#[derive(Debug, Clone)]
pub(super) struct Messages {
    /// The typed request.
    pub request: get_message_events::v3::Request,
    /// Which kinds of relations the filter asks for.
    pub relations: RelationSelection,
}

impl Metadata for Messages {
    const METHOD: http::Method = <get_message_events::v3::Request as Metadata>::METHOD;
    const RATE_LIMITED: bool = <get_message_events::v3::Request as Metadata>::RATE_LIMITED;
    type Authentication = <get_message_events::v3::Request as Metadata>::Authentication;
    type PathBuilder = <get_message_events::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder =
        <get_message_events::v3::Request as Metadata>::PATH_BUILDER;
}

impl IncomingRequest for Messages {
    type EndpointError = <get_message_events::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = get_message_events::v3::Response;

    fn try_from_http_request_inner(
        mut request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        if !query.split('&').any(|pair| pair.starts_with("dir=")) {
            let query = format!("/?{query}&dir=f");
            if let Ok(uri) = query.parse() {
                *request.uri_mut() = uri;
            }
        }
        let relations = relations(request.uri())?;
        let request =
            get_message_events::v3::Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, relations })
    }
}

#[derive(Deserialize)]
struct FilterQuery {
    filter: Option<String>,
}

/// What the filter in a query says of relations.
fn relations(uri: &Uri) -> Result<RelationSelection, DeserializationError> {
    let query = Query::<FilterQuery>::try_from_uri(uri).ok();
    let Some(filter) = query.and_then(|Query(query)| query.filter) else {
        return Ok(RelationSelection::default());
    };
    Ok(serde_json::from_str(&filter)?)
}
