//! Who asks: requests of other servers are signed (spec: Server-Server API, Request Authentication).

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRef, FromRequest, Request},
};
use http::StatusCode;
use millrace_federation::{Federation, signing};
use ruma::{
    OwnedServerName,
    api::{
        IncomingRequest,
        error::ErrorKind,
        federation::authentication::{ServerSignatures, XMatrix},
    },
};

use crate::client_api::{
    error::ApiError,
    extract::{self, RequestLimits},
    limits::{EndpointClass, RateLimiter},
};

/// A request whose signature holds, as a handler's last argument, and the server that sent it.
#[derive(Debug, Clone)]
pub(crate) struct Signed<T> {
    /// The server that signed the request.
    pub origin: OwnedServerName,
    /// What it asks.
    pub request: T,
}

impl<T, S> FromRequest<S> for Signed<T>
where
    T: IncomingRequest<Authentication = ServerSignatures>,
    S: Send + Sync,
    RequestLimits: FromRef<S>,
    Federation: FromRef<S>,
    Arc<RateLimiter>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let header = XMatrix::extract_from_http_headers(request.headers()).map_err(unauthorised)?;
        let federation = Federation::from_ref(state);
        if federation.peers.are_closed() {
            return Err(ApiError::forbidden("This server does not talk to other servers"));
        }
        let received = extract::receive(request, RequestLimits::from_ref(state)).await?;
        check(&federation, &header, received.as_sent()).await?;
        let (limits, now) = (Arc::<RateLimiter>::from_ref(state), federation.env.now());
        limits.check(EndpointClass::Federation, header.origin.as_str(), now)?;
        Ok(Self { origin: header.origin, request: received.parse()? })
    }
}

async fn check(
    federation: &Federation,
    header: &XMatrix,
    request: &http::Request<Bytes>,
) -> Result<(), ApiError> {
    let keys = federation.keyring.key(&header.origin, &header.key).await.map_err(unauthorised)?;
    let us = &federation.env.identity.name;
    signing::verify(request, header, us, &keys).map_err(unauthorised)?;
    federation.destinations.heard_from(&header.origin);
    Ok(())
}

/// 401: we do not know who asks.
fn unauthorised(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, ErrorKind::Unauthorized, error)
}
