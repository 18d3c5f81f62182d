//! Rate limits of whatever tries passwords or makes accounts.

use std::{convert::Infallible, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::request;
use millrace_domain::Env;
use ruma::MilliSecondsSinceUnixEpoch;

use super::{
    client_ip::ClientIp,
    error::ApiError,
    limits::{EndpointClass, RateLimiter},
    requester::is_unlimited,
};
use crate::app::App;

/// Counts one request of an address, and of an account.
pub(crate) struct AccountLimits {
    limiter: Arc<RateLimiter>,
    ip: ClientIp,
    now: MilliSecondsSinceUnixEpoch,
    /// An application service asks whose requests are not counted.
    unlimited: bool,
}

impl AccountLimits {
    /// Takes one token of the client's address.
    pub fn check_address(&self, class: EndpointClass) -> Result<(), ApiError> {
        self.check_name(class, &self.ip.limit_key())
    }

    /// Takes one token of `name`, whatever the address: guesses spread over many addresses count.
    pub fn check_name(&self, class: EndpointClass, name: &str) -> Result<(), ApiError> {
        if self.unlimited {
            return Ok(());
        }
        self.limiter.check(class, name, self.now)
    }
}

impl FromRequestParts<App> for AccountLimits {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, Infallible> {
        let ip = ClientIp::from_request_parts(parts, app).await?;
        let (now, unlimited) = (Env::from_ref(app).now(), is_unlimited(parts, app));
        Ok(Self { limiter: Arc::from_ref(app), ip, now, unlimited })
    }
}
