//! Asking people to prove an address: the endpoints named `requestToken`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, FromRequestParts},
};
use http::{StatusCode, request};
use millrace_domain::threepids::{
    Address, BeginError, Begun, InvalidAddress, NewSession, Purpose, begin, note_remote, note_sent,
};
use millrace_federation::identity_servers::{IdentityServers, PhoneRequest};
use ruma::{
    OwnedSessionId,
    api::{
        client::account::{
            request_3pid_management_token_via_email as add_email,
            request_3pid_management_token_via_msisdn as add_msisdn,
            request_password_change_token_via_email as reset_email,
            request_password_change_token_via_msisdn as reset_msisdn,
            request_registration_token_via_email as register_email,
            request_registration_token_via_msisdn as register_msisdn,
        },
        error::ErrorKind,
    },
};

use super::{
    account_limits::AccountLimits, error::ApiError, extract::Matrix, limits::EndpointClass,
    router::MatrixRouter, threepids::changes_allowed, validation_words::SUBMIT_MSISDN_PATH,
};
use crate::{
    app::{AccountsPart, App},
    mail::{Messages, SendError},
};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(for_registration_by_email)
        .matrix(for_registration_by_msisdn)
        .matrix(for_adding_by_email)
        .matrix(for_adding_by_msisdn)
        .matrix(for_new_password_by_email)
        .matrix(for_new_password_by_msisdn)
}

/// What all of them need.
pub(super) struct Asking {
    accounts: AccountsPart,
    messages: Arc<Messages>,
    identity_servers: IdentityServers,
    limits: AccountLimits,
}

impl FromRequestParts<App> for Asking {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let limits = match AccountLimits::from_request_parts(parts, app).await {
            Ok(limits) => limits,
            Err(never) => match never {},
        };
        Ok(Self {
            accounts: FromRef::from_ref(app),
            messages: FromRef::from_ref(app),
            identity_servers: FromRef::from_ref(app),
            limits,
        })
    }
}

macro_rules! by_email {
    ($handler:ident, $api:ident, $purpose:expr, $span:literal, $path:literal) => {
        #[doc = $path]
        #[tracing::instrument(name = $span, skip_all)]
        async fn $handler(
            asking: Asking,
            Matrix(request): Matrix<$api::v3::Request>,
        ) -> Result<Matrix<$api::v3::Response>, ApiError> {
            let new = NewSession {
                purpose: $purpose,
                address: Address::email(&request.email)?,
                client_secret: request.client_secret.as_str(),
                attempt: request.send_attempt.into(),
                next_link: request.next_link.as_deref(),
            };
            Ok(Matrix($api::v3::Response::new(asking.by_email(&new).await?)))
        }
    };
}

by_email!(
    for_registration_by_email,
    register_email,
    Purpose::Register,
    "client.register.email_token",
    "`POST /_matrix/client/v3/register/email/requestToken`"
);
by_email!(
    for_adding_by_email,
    add_email,
    Purpose::Add,
    "client.account.email_token",
    "`POST /_matrix/client/v3/account/3pid/email/requestToken`"
);
by_email!(
    for_new_password_by_email,
    reset_email,
    Purpose::ResetPassword,
    "client.password.email_token",
    "`POST /_matrix/client/v3/account/password/email/requestToken`"
);

macro_rules! by_msisdn {
    ($handler:ident, $api:ident, $purpose:expr, $span:literal, $path:literal) => {
        #[doc = $path]
        #[tracing::instrument(name = $span, skip_all)]
        async fn $handler(
            asking: Asking,
            Matrix(request): Matrix<$api::v3::Request>,
        ) -> Result<Matrix<$api::v3::Response>, ApiError> {
            let new = NewSession {
                purpose: $purpose,
                address: Address::phone(&request.country, &request.phone_number)?,
                client_secret: request.client_secret.as_str(),
                attempt: request.send_attempt.into(),
                next_link: request.next_link.as_deref(),
            };
            let phone = (&*request.country, &*request.phone_number);
            let mut response = $api::v3::Response::new(asking.by_msisdn(&new, phone).await?);
            response.submit_url = Some(asking.messages.url(SUBMIT_MSISDN_PATH));
            Ok(Matrix(response))
        }
    };
}

by_msisdn!(
    for_registration_by_msisdn,
    register_msisdn,
    Purpose::Register,
    "client.register.msisdn_token",
    "`POST /_matrix/client/v3/register/msisdn/requestToken`"
);
by_msisdn!(
    for_adding_by_msisdn,
    add_msisdn,
    Purpose::Add,
    "client.account.msisdn_token",
    "`POST /_matrix/client/v3/account/3pid/msisdn/requestToken`"
);
by_msisdn!(
    for_new_password_by_msisdn,
    reset_msisdn,
    Purpose::ResetPassword,
    "client.password.msisdn_token",
    "`POST /_matrix/client/v3/account/password/msisdn/requestToken`"
);

impl Asking {
    /// Sends a mail, unless that was done, and the session.
    pub async fn by_email(&self, new: &NewSession<'_>) -> Result<OwnedSessionId, ApiError> {
        self.check(new)?;
        let to = new.address.text();
        let sid = match begin(&self.accounts, new).await? {
            Begun::Send { sid, token } => {
                self.messages.ask(new.purpose, to, (&sid, &token)).await?;
                note_sent(&self.accounts, &sid, new.attempt).await.map_err(ApiError::internal)?;
                sid
            }
            Begun::Sent { sid } => sid,
            Begun::Unsaid { sid } => {
                if matches!(new.purpose, Purpose::Register | Purpose::Add) {
                    self.messages.tell_owner(to).await?;
                }
                sid
            }
        };
        session(sid)
    }

    /// Has a text message sent, unless that was done, and the session.
    pub async fn by_msisdn(
        &self,
        new: &NewSession<'_>,
        (country, phone_number): (&str, &str),
    ) -> Result<OwnedSessionId, ApiError> {
        self.check(new)?;
        let sid = match begin(&self.accounts, new).await? {
            Begun::Send { sid, .. } => {
                let (client_secret, send_attempt) = (new.client_secret, new.attempt);
                let request = PhoneRequest { client_secret, country, phone_number, send_attempt };
                let remote = self.identity_servers.send_message(&request).await?;
                note_remote(&self.accounts, &sid, &remote.sid).await.map_err(ApiError::internal)?;
                note_sent(&self.accounts, &sid, new.attempt).await.map_err(ApiError::internal)?;
                sid
            }
            Begun::Sent { sid } | Begun::Unsaid { sid } => sid,
        };
        session(sid)
    }

    /// Whether anybody may ask for this now.
    fn check(&self, new: &NewSession<'_>) -> Result<(), ApiError> {
        self.limits.check_address(EndpointClass::ThreepidValidation)?;
        match new.purpose {
            Purpose::Register if !self.accounts.settings.registration => {
                return Err(ApiError::forbidden("Registration is disabled on this server"));
            }
            Purpose::Add => changes_allowed(&self.accounts)?,
            Purpose::Register | Purpose::ResetPassword => {}
        }
        self.limits.check_name(EndpointClass::ThreepidValidation, new.address.text())
    }
}

fn session(sid: String) -> Result<OwnedSessionId, ApiError> {
    OwnedSessionId::try_from(sid).map_err(ApiError::internal)
}

impl From<InvalidAddress> for ApiError {
    fn from(error: InvalidAddress) -> Self {
        match error {
            InvalidAddress::Email | InvalidAddress::Phone | InvalidAddress::Country(_) => {
                Self::invalid_param(error)
            }
            InvalidAddress::Medium(_) => {
                Self::bad_request(ErrorKind::ThreepidMediumNotSupported, error)
            }
        }
    }
}

impl From<BeginError> for ApiError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Medium(_) => {
                Self::bad_request(ErrorKind::ThreepidMediumNotSupported, error)
            }
            BeginError::Denied => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::ThreepidDenied, error)
            }
            BeginError::InUse => Self::bad_request(ErrorKind::ThreepidInUse, error),
            BeginError::NotFound => Self::bad_request(ErrorKind::ThreepidNotFound, error),
            BeginError::Secret | BeginError::Link => Self::invalid_param(error),
            BeginError::Store(_) => Self::internal(error),
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Address(_) => Self::invalid_param(error),
            SendError::NotConfigured => {
                Self::bad_request(ErrorKind::ThreepidMediumNotSupported, error)
            }
            SendError::Message(_) | SendError::Smtp(_) | SendError::TimedOut => {
                Self::internal(error)
            }
        }
    }
}
