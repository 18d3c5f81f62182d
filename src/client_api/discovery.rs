//! How clients find this server and learn what it can do: `.well-known` files and `/versions`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use millrace_domain::deliveries::Deliveries;
use ruma::{
    OwnedUserId,
    api::client::discovery::{
        discover_homeserver, discover_policy_server, discover_support, get_supported_versions,
    },
    serde::Base64,
};
use serde_json::{Value, json};

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

/// Specification versions whose client-server API is served.
const VERSIONS: [&str; 22] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8",
    "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18",
    "v1.19",
];

/// Receipts of delivery: a feature that an administrator can switch off.
const DELIVERY_RECEIPTS: &str = "org.matrix.msc4089";

/// Features that clients ask for by name, because they existed before a version had them.
const FEATURES: [&str; 16] = [
    "org.matrix.msc2285.stable", // private read receipts
    "org.matrix.msc3391",        // account data can be deleted
    "org.matrix.msc3440.stable", // threads
    "org.matrix.msc3771",        // receipts of threads
    "org.matrix.msc3773",        // notification counts of threads
    "org.matrix.msc3814",        // dehydrated devices
    "org.matrix.msc3827.stable", // room directory filtered by room type
    "org.matrix.msc3874",        // messages filtered by kind of relation
    "org.matrix.msc3981",        // recursive relations
    "org.matrix.msc4155",        // invitations filtered by user and server
    "org.matrix.msc4306",        // thread subscriptions
    "org.matrix.msc4308",        // and in sliding sync
    "org.matrix.msc4380",        // invitations blocked
    "org.matrix.simplified_msc3575",
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.tcpip.msc4133.stable", // arbitrary profile fields
];

/// What the `.well-known` files say. What is absent is not served (404).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Discovery {
    /// Base URL of the client-server API, as clients reach it.
    pub client_base_url: Option<String>,
    /// Where other servers reach this one: `host` or `host:port`.
    pub server: Option<String>,
    /// A page that helps users of this server.
    pub support_page: Option<String>,
    /// The key with which a policy server of this server name signs.
    pub policy_key: Option<Base64>,
    /// Whom to turn to.
    pub contacts: Vec<SupportContact>,
}

/// A person or mailbox that helps users or is told of security problems.
#[derive(Debug, Clone, PartialEq)]
pub struct SupportContact {
    /// `m.role.admin`, `m.role.security`, or a namespaced one.
    pub role: String,
    /// A mail address. This or `matrix_id` is there.
    pub email_address: Option<String>,
    /// A Matrix user, possibly of another server.
    pub matrix_id: Option<OwnedUserId>,
}

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(versions)
        .matrix(well_known_client)
        .matrix(well_known_support)
        .matrix(well_known_policy_server)
        .merge(server_routes())
}

/// What other servers ask for.
pub(crate) fn server_routes() -> Router<App> {
    // ruma has this one in its federation crate only.
    Router::new().route("/.well-known/matrix/server", get(well_known_server))
}

/// `GET /_matrix/client/versions`
#[tracing::instrument(name = "client.versions.read", skip_all)]
async fn versions(
    State(deliveries): State<Arc<Deliveries>>,
    Matrix(_): Matrix<get_supported_versions::Request>,
) -> Matrix<get_supported_versions::Response> {
    let versions = VERSIONS.map(str::to_owned).to_vec();
    let mut response = get_supported_versions::Response::new(versions);
    let switchable = (DELIVERY_RECEIPTS.to_owned(), deliveries.are_enabled());
    let always = FEATURES.iter().map(|name| ((*name).to_owned(), true));
    response.unstable_features = always.chain([switchable]).collect();
    Matrix(response)
}

/// `GET /.well-known/matrix/client`
#[tracing::instrument(name = "client.well_known_client.read", skip_all)]
async fn well_known_client(
    State(discovery): State<Arc<Discovery>>,
    Matrix(_): Matrix<discover_homeserver::Request>,
) -> Result<Matrix<discover_homeserver::Response>, ApiError> {
    let base_url = discovery
        .client_base_url
        .clone()
        .ok_or_else(|| ApiError::not_found("No client URL is configured"))?;
    let homeserver = discover_homeserver::HomeserverInfo::new(base_url);
    Ok(Matrix(discover_homeserver::Response::new(homeserver)))
}

/// `GET /.well-known/matrix/server`
#[tracing::instrument(name = "client.well_known_server.read", skip_all)]
async fn well_known_server(
    State(discovery): State<Arc<Discovery>>,
) -> Result<Json<Value>, ApiError> {
    let server = discovery
        .server
        .as_ref()
        .ok_or_else(|| ApiError::not_found("No server address is configured"))?;
    Ok(Json(json!({ "m.server": server })))
}

/// `GET /.well-known/matrix/support`
#[tracing::instrument(name = "client.well_known_support.read", skip_all)]
async fn well_known_support(
    State(discovery): State<Arc<Discovery>>,
    Matrix(_): Matrix<discover_support::Request>,
) -> Result<Matrix<discover_support::Response>, ApiError> {
    if discovery.contacts.is_empty() && discovery.support_page.is_none() {
        return Err(ApiError::not_found("No support contact is configured"));
    }
    let contacts = discovery.contacts.iter().filter_map(contact).collect();
    let mut response = discover_support::Response::with_contacts(contacts);
    response.support_page.clone_from(&discovery.support_page);
    Ok(Matrix(response))
}

/// `GET /.well-known/matrix/policy_server`
#[tracing::instrument(name = "client.well_known_policy_server.read", skip_all)]
async fn well_known_policy_server(
    State(discovery): State<Arc<Discovery>>,
    Matrix(_): Matrix<discover_policy_server::Request>,
) -> Result<Matrix<discover_policy_server::Response>, ApiError> {
    let key = discovery.policy_key.clone();
    let key = key.ok_or_else(|| ApiError::not_found("No policy server is configured"))?;
    Ok(Matrix(discover_policy_server::Response::new(key)))
}

fn contact(contact: &SupportContact) -> Option<discover_support::Contact> {
    use discover_support::Contact;
    let role = contact.role.as_str().into();
    match (&contact.matrix_id, &contact.email_address) {
        (Some(user), email) => {
            let mut wire = Contact::with_matrix_id(role, user.clone());
            wire.email_address.clone_from(email);
            Some(wire)
        }
        (None, Some(email)) => Some(Contact::with_email_address(role, email.clone())),
        (None, None) => None,
    }
}
