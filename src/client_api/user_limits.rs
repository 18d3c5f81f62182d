//! Rate limits of what a user does.

use std::{convert::Infallible, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::request;
use millrace_domain::Env;
use ruma::{MilliSecondsSinceUnixEpoch, UserId};

use super::{
    error::ApiError,
    limits::{EndpointClass, RateLimiter},
    requester::is_unlimited,
};
use crate::app::App;

/// Counts the requests of a user.
pub(crate) struct UserLimits {
    limiter: Arc<RateLimiter>,
    now: MilliSecondsSinceUnixEpoch,
    /// An application service asks whose requests are not counted.
    unlimited: bool,
}

impl UserLimits {
    /// Takes one token of `user`.
    pub fn check(&self, class: EndpointClass, user: &UserId) -> Result<(), ApiError> {
        if self.unlimited {
            return Ok(());
        }
        self.limiter.check(class, user.as_str(), self.now)
    }
}

impl FromRequestParts<App> for UserLimits {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, Infallible> {
        let (now, unlimited) = (Env::from_ref(app).now(), is_unlimited(parts, app));
        Ok(Self { limiter: Arc::from_ref(app), now, unlimited })
    }
}
