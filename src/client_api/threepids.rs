//! The third-party identifiers of an account: `/account/3pid` and what is below it.

use axum::{Json, Router, extract::State, routing::post};
use millrace_domain::{
    Env,
    accounts::{
        Accounts, Requester,
        uiaa::{Challenge, authorise},
    },
    threepids::{
        AddError, Address, Binding, ThreepidInfo, add, bindings, note_binding, note_unbinding,
        remove, threepids,
    },
};
use millrace_federation::identity_servers::{IdentityServers, Unbound};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::{
        client::account::{
            ThirdPartyIdRemovalStatus, add_3pid, bind_3pid, delete_3pid, get_3pids, unbind_3pid,
        },
        error::ErrorKind,
    },
    thirdparty::{ThirdPartyIdentifier, ThirdPartyIdentifierInit},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    account_limits::AccountLimits,
    error::ApiError,
    extract::{JsonBody, Matrix},
    limits::EndpointClass,
    router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::{AccountsPart, App};

pub(crate) fn routes() -> Router<App> {
    let routes =
        Router::new().matrix(list).matrix(add_validated).matrix(bind).matrix(unbind).matrix(delete);
    // Deprecated, and not among ruma's types.
    ["/_matrix/client/r0/account/3pid", "/_matrix/client/v3/account/3pid"]
        .into_iter()
        .fold(routes, |router, path| router.route(path, post(add_or_bind)))
}

/// `GET /_matrix/client/v3/account/3pid`
#[tracing::instrument(name = "client.threepids.list", skip_all)]
async fn list(
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_3pids::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let found = threepids(&env, &requester.user).await.map_err(ApiError::internal)?;
    let found: Vec<ThirdPartyIdentifier> = found.into_iter().map(wire).collect();
    // ruma's type leaves out an empty list, which clients look for.
    Ok(Json(json!({ "threepids": found })))
}

fn wire(info: ThreepidInfo) -> ThirdPartyIdentifier {
    let at = |ms: u64| MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap_or(UInt::MAX));
    let ThreepidInfo { medium, address, validated_ms, added_ms } = info;
    let (validated_at, added_at) = (at(validated_ms), at(added_ms));
    ThirdPartyIdentifierInit { address, medium, validated_at, added_at }.into()
}

/// `POST /_matrix/client/v3/account/3pid/add`
#[tracing::instrument(name = "client.threepids.add", skip_all)]
async fn add_validated(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<add_3pid::v3::Request>,
) -> Result<Matrix<add_3pid::v3::Response>, ApiError> {
    changes_allowed(&accounts)?;
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let challenge = Challenge::password("account/3pid/add", &requester.user);
    authorise(&accounts, &challenge, request.auth.as_ref()).await?;
    let (sid, secret) = (request.sid.as_str(), request.client_secret.as_str());
    add(&accounts, &requester, sid, secret).await?;
    Ok(Matrix(add_3pid::v3::Response::new()))
}

/// Refuses where users may not change their addresses.
pub(super) fn changes_allowed(accounts: &Accounts) -> Result<(), ApiError> {
    if accounts.settings.threepids.changes {
        return Ok(());
    }
    Err(ApiError::forbidden("Addresses can be neither added nor removed on this server"))
}

/// `POST /_matrix/client/v3/account/3pid/bind`
#[tracing::instrument(name = "client.threepids.bind", skip_all)]
async fn bind(
    State(env): State<Env>,
    State(identity_servers): State<IdentityServers>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<bind_3pid::v3::Request>,
) -> Result<Matrix<bind_3pid::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let info = &request.identity_server_info;
    let session = (request.sid.as_str(), request.client_secret.as_str());
    let server = (&*info.id_server, &*info.id_access_token);
    bind_at(&env, &identity_servers, &requester.user, server, session).await?;
    Ok(Matrix(bind_3pid::v3::Response::new()))
}

/// Publishes an address on an identity server, and notes where, so that it can be taken back.
async fn bind_at(
    env: &Env,
    identity_servers: &IdentityServers,
    user: &UserId,
    (server, access_token): (&str, &str),
    session: (&str, &str),
) -> Result<(), ApiError> {
    let server = identity_servers.trusted(server)?;
    let bound = identity_servers.bind(&server, access_token, session, user).await?;
    let address = Address::of(&bound.medium, &bound.address)?;
    let binding = Binding { address, server: server.to_string() };
    note_binding(env, user, &binding).await.map_err(ApiError::internal)
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(alias = "threePidCreds")]
    three_pid_creds: SessionCredentials,
}

#[derive(Deserialize)]
struct SessionCredentials {
    sid: String,
    client_secret: String,
    id_server: Option<String>,
    id_access_token: Option<String>,
}

/// `POST /_matrix/client/v3/account/3pid`: publishes where the client names an identity server, as
/// the specification has it, else adds what was proved to this server, as clients use it.
#[tracing::instrument(name = "client.threepids.add_or_bind", skip_all)]
async fn add_or_bind(
    State(accounts): State<AccountsPart>,
    State(identity_servers): State<IdentityServers>,
    limits: UserLimits,
    requester: Requester,
    JsonBody(Credentials { three_pid_creds }): JsonBody<Credentials>,
) -> Result<Json<Value>, ApiError> {
    changes_allowed(&accounts)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    let SessionCredentials { sid, client_secret, id_server, id_access_token } = three_pid_creds;
    let session = (&*sid, &*client_secret);
    match id_server.zip(id_access_token) {
        Some((server, token)) => {
            let (env, server) = (&accounts.env, (&*server, &*token));
            bind_at(env, &identity_servers, &requester.user, server, session).await?;
        }
        None => add(&accounts, &requester, session.0, session.1).await?,
    }
    Ok(Json(json!({})))
}

/// `POST /_matrix/client/v3/account/3pid/unbind`
#[tracing::instrument(name = "client.threepids.unbind", skip_all)]
async fn unbind(
    State(accounts): State<AccountsPart>,
    State(identity_servers): State<IdentityServers>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<unbind_3pid::v3::Request>,
) -> Result<Matrix<unbind_3pid::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let address = Address::of(&request.medium, &request.address)?;
    let server = request.id_server.as_deref();
    let user = &requester.user;
    let result = unbind_address(&accounts, &identity_servers, user, &address, server).await?;
    Ok(Matrix(unbind_3pid::v3::Response::new(result)))
}

/// `POST /_matrix/client/v3/account/3pid/delete`
#[tracing::instrument(name = "client.threepids.delete", skip_all)]
async fn delete(
    State(accounts): State<AccountsPart>,
    State(identity_servers): State<IdentityServers>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_3pid::v3::Request>,
) -> Result<Matrix<delete_3pid::v3::Response>, ApiError> {
    changes_allowed(&accounts)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    let address = Address::of(&request.medium, &request.address)?;
    let server = request.id_server.as_deref();
    let user = &requester.user;
    // First, since an identity server may refuse the one that the client names.
    let result = unbind_address(&accounts, &identity_servers, user, &address, server).await?;
    remove(&accounts, &requester, &address).await?;
    Ok(Matrix(delete_3pid::v3::Response::new(result)))
}

/// Takes an address from the identity server that is named, else from those that it was published
/// on through us.
async fn unbind_address(
    accounts: &Accounts,
    identity_servers: &IdentityServers,
    user: &UserId,
    address: &Address,
    server: Option<&str>,
) -> Result<ThirdPartyIdRemovalStatus, ApiError> {
    let bound = match server {
        Some(server) => {
            let server = identity_servers.trusted(server)?.to_string();
            vec![Binding { address: address.clone(), server }]
        }
        None => {
            let mut bound = bindings(&accounts.env, user).await.map_err(ApiError::internal)?;
            bound.retain(|binding| binding.address == *address);
            bound
        }
    };
    if bound.is_empty() {
        return Ok(ThirdPartyIdRemovalStatus::NoSupport);
    }
    Ok(unbind_all(accounts, identity_servers, user, &bound).await)
}

/// Takes back what was published; success where all of it is.
pub(super) async fn unbind_all(
    accounts: &Accounts,
    identity_servers: &IdentityServers,
    user: &UserId,
    bound: &[Binding],
) -> ThirdPartyIdRemovalStatus {
    let mut result = ThirdPartyIdRemovalStatus::Success;
    for binding in bound {
        if let Err(error) = unbind_one(accounts, identity_servers, user, binding).await {
            tracing::warn!(server = binding.server, error, "an address stays published");
            result = ThirdPartyIdRemovalStatus::NoSupport;
        }
    }
    result
}

async fn unbind_one(
    accounts: &Accounts,
    identity_servers: &IdentityServers,
    user: &UserId,
    binding: &Binding,
) -> Result<(), String> {
    let server = identity_servers.trusted(&binding.server).map_err(|error| error.to_string())?;
    let unbound = identity_servers.unbind(&server, &binding.address, user).await;
    match unbound.map_err(|error| error.to_string())? {
        Unbound::Yes => {
            note_unbinding(&accounts.env, user, binding).await.map_err(|error| error.to_string())
        }
        Unbound::NotSupported => Err("the identity server does not unbind".to_owned()),
    }
}

impl From<AddError> for ApiError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotValidated => Self::bad_request(ErrorKind::ThreepidAuthFailed, error),
            AddError::InUse => Self::bad_request(ErrorKind::ThreepidInUse, error),
            AddError::Session(error) => error.into(),
            AddError::Store(_) => Self::internal(error),
        }
    }
}
