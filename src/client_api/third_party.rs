//! Networks that bridges lead to: client-server API, "Third-party Networks". What is asked of them is
//! passed on to the application services that lead there.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
};
use http::Uri;
use millrace_appservices::{AppServices, third_party::Kind};
use millrace_domain::accounts::Requester;
use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols,
    get_user_for_protocol, get_user_for_user_id,
};
use serde_json::Value;

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

/// Parameters that are meant for this server, and not for the network.
const OURS: [&str; 4] = ["access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"];

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(protocols)
        .matrix(protocol)
        .matrix(locations_of_protocol)
        .matrix(users_of_protocol)
        .matrix(locations_of_alias)
        .matrix(users_of_user)
}

fn unknown_protocol(protocol: &str) -> ApiError {
    ApiError::not_found(format_args!("This server knows no network {protocol}"))
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
#[tracing::instrument(name = "client.third_party.protocols", skip_all)]
async fn protocols(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    Matrix(_): Matrix<get_protocols::v3::Request>,
) -> Json<Value> {
    Json(Value::Object(services.protocols().await))
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`
#[tracing::instrument(name = "client.third_party.protocol", skip_all)]
async fn protocol(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    Matrix(request): Matrix<get_protocol::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let found = services.protocol(&request.protocol).await;
    found.map(Json).ok_or_else(|| unknown_protocol(&request.protocol))
}

/// `GET /_matrix/client/v3/thirdparty/location/{protocol}`
#[tracing::instrument(name = "client.third_party.locations", skip_all)]
async fn locations_of_protocol(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    uri: Uri,
    Matrix(request): Matrix<get_location_for_protocol::v3::Request>,
) -> Result<Json<Vec<Value>>, ApiError> {
    in_network(&services, Kind::Location, &request.protocol, &uri).await
}

/// `GET /_matrix/client/v3/thirdparty/user/{protocol}`
#[tracing::instrument(name = "client.third_party.users", skip_all)]
async fn users_of_protocol(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    uri: Uri,
    Matrix(request): Matrix<get_user_for_protocol::v3::Request>,
) -> Result<Json<Vec<Value>>, ApiError> {
    in_network(&services, Kind::User, &request.protocol, &uri).await
}

async fn in_network(
    services: &AppServices,
    kind: Kind,
    protocol: &str,
    uri: &Uri,
) -> Result<Json<Vec<Value>>, ApiError> {
    if !services.knows_protocol(protocol) {
        return Err(unknown_protocol(protocol));
    }
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(mut fields) = query.map_err(|error| ApiError::invalid_param(error.body_text()))?;
    fields.retain(|(name, _)| !OURS.contains(&name.as_str()));
    Ok(Json(services.find_in(kind, protocol, &fields).await))
}

/// `GET /_matrix/client/v3/thirdparty/location`
#[tracing::instrument(name = "client.third_party.locations_of", skip_all)]
async fn locations_of_alias(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    Matrix(request): Matrix<get_location_for_room_alias::v3::Request>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let alias = request.alias;
    let found = services.find_of(Kind::Location, ("alias", alias.as_str())).await;
    if found.is_empty() {
        return Err(ApiError::not_found(format_args!("{alias} leads to no other network")));
    }
    Ok(Json(found))
}

/// `GET /_matrix/client/v3/thirdparty/user`
#[tracing::instrument(name = "client.third_party.users_of", skip_all)]
async fn users_of_user(
    State(services): State<Arc<AppServices>>,
    _: Requester,
    Matrix(request): Matrix<get_user_for_user_id::v3::Request>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let user = request.userid;
    let found = services.find_of(Kind::User, ("userid", user.as_str())).await;
    if found.is_empty() {
        return Err(ApiError::not_found(format_args!("{user} is in no other network")));
    }
    Ok(Json(found))
}
