//! The stages of user-interactive authentication about addresses, on pages (spec: Client-Server API,
//! Fallback): an address is entered, a message goes there, and its word comes back.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use millrace_domain::{
    accounts::uiaa::{PageStep, address_purpose, step_on_page},
    threepids::{Address, NewSession, Purpose},
};
use millrace_federation::identity_servers::IdentityServers;
use ruma::api::client::uiaa::{AuthData, AuthType};
use serde::Deserialize;
use serde_json::json;

use super::{
    account_limits::AccountLimits,
    auth_fallback::{Shown, fallback_paths, unknown},
    error::ApiError,
    extract::QueryArguments,
    limits::EndpointClass,
    pages::Form,
    validation_requests::Asking,
    validation_words::submit_word,
};
use crate::{
    app::{AccountsPart, App},
    mail::{Messages, escape},
};

/// Letters of the secret that a page has with the server.
const SECRET_LEN: usize = 32;
/// What is said while an address is not proved.
const NOT_PROVED: &str = "That is not done yet";

pub(crate) fn routes() -> Router<App> {
    let by_email = fallback_paths("m.login.email.identity").into_iter();
    let router = by_email.fold(Router::new(), |router, path| {
        router.route(&path, get(show_email).post(submit_email))
    });
    let by_phone = fallback_paths("m.login.msisdn").into_iter();
    by_phone.fold(router, |router, path| router.route(&path, get(show_phone).post(submit_phone)))
}

#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    session: String,
}

/// The fields of the forms: first an address, then what came of it.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    session: String,
    email: Option<String>,
    country: Option<String>,
    phone_number: Option<String>,
    sid: Option<String>,
    client_secret: Option<String>,
    token: Option<String>,
}

impl Fields {
    /// The session in which an address is being proved, once there is one.
    fn proving(&self) -> Option<Proving<'_>> {
        let (sid, client_secret) = (self.sid.as_deref()?, self.client_secret.as_deref()?);
        Some(Proving { sid, client_secret })
    }
}

/// A session in which an address is being proved.
#[derive(Clone, Copy)]
struct Proving<'a> {
    sid: &'a str,
    client_secret: &'a str,
}

/// `GET /_matrix/client/v3/auth/m.login.email.identity/fallback/web`
#[tracing::instrument(name = "client.auth_fallback.show_email", skip_all)]
async fn show_email(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    QueryArguments(Session { session }): QueryArguments<Session>,
) -> Result<Response, ApiError> {
    purpose(&accounts, &session, &AuthType::EmailIdentity)?;
    let shown = Shown::new(&accounts, &messages, &session);
    Ok(shown.say("", &ask_email(&shown)))
}

/// `POST /_matrix/client/v3/auth/m.login.email.identity/fallback/web`
#[tracing::instrument(name = "client.auth_fallback.submit_email", skip_all)]
async fn submit_email(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    limits: AccountLimits,
    asking: Asking,
    Form(fields): Form<Fields>,
) -> Result<Response, ApiError> {
    let purpose = purpose(&accounts, &fields.session, &AuthType::EmailIdentity)?;
    let shown = Shown::new(&accounts, &messages, &fields.session);
    if let Some(proving) = fields.proving() {
        limits.check_address(EndpointClass::Login)?;
        let step = prove(&accounts, &fields.session, &AuthType::EmailIdentity, proving).await?;
        return finish(&shown, step, &wait_for_email(&shown, proving));
    }
    let Ok(address) = Address::email(fields.email.as_deref().unwrap_or_default()) else {
        return Ok(shown.say("That is no e-mail address", &ask_email(&shown)));
    };
    let secret = accounts.env.random_text(SECRET_LEN);
    let new = NewSession { purpose, address, client_secret: &secret, attempt: 1, next_link: None };
    let sid = asking.by_email(&new).await?;
    let proving = Proving { sid: sid.as_str(), client_secret: &secret };
    Ok(shown.say("", &wait_for_email(&shown, proving)))
}

/// `GET /_matrix/client/v3/auth/m.login.msisdn/fallback/web`
#[tracing::instrument(name = "client.auth_fallback.show_phone", skip_all)]
async fn show_phone(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    QueryArguments(Session { session }): QueryArguments<Session>,
) -> Result<Response, ApiError> {
    purpose(&accounts, &session, &AuthType::Msisdn)?;
    let shown = Shown::new(&accounts, &messages, &session);
    Ok(shown.say("", &ask_phone(&shown)))
}

/// `POST /_matrix/client/v3/auth/m.login.msisdn/fallback/web`
#[tracing::instrument(name = "client.auth_fallback.submit_phone", skip_all)]
async fn submit_phone(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    State(identity_servers): State<IdentityServers>,
    limits: AccountLimits,
    asking: Asking,
    Form(fields): Form<Fields>,
) -> Result<Response, ApiError> {
    let purpose = purpose(&accounts, &fields.session, &AuthType::Msisdn)?;
    let shown = Shown::new(&accounts, &messages, &fields.session);
    if let Some(proving) = fields.proving() {
        limits.check_address(EndpointClass::Login)?;
        let token = fields.token.as_deref().unwrap_or_default();
        let place = (proving.sid, proving.client_secret);
        submit_word(&accounts, &identity_servers, place, token).await?;
        let step = prove(&accounts, &fields.session, &AuthType::Msisdn, proving).await?;
        return finish(&shown, step, &wait_for_phone(&shown, proving));
    }
    let country = fields.country.as_deref().unwrap_or_default().to_ascii_uppercase();
    let number = fields.phone_number.as_deref().unwrap_or_default();
    let Ok(address) = Address::phone(&country, number) else {
        return Ok(shown.say("That is no phone number", &ask_phone(&shown)));
    };
    let secret = accounts.env.random_text(SECRET_LEN);
    let new = NewSession { purpose, address, client_secret: &secret, attempt: 1, next_link: None };
    let sid = asking.by_msisdn(&new, (&country, number)).await?;
    let proving = Proving { sid: sid.as_str(), client_secret: &secret };
    Ok(shown.say("", &wait_for_phone(&shown, proving)))
}

fn purpose(accounts: &AccountsPart, session: &str, stage: &AuthType) -> Result<Purpose, ApiError> {
    address_purpose(accounts, session, stage).ok_or_else(unknown)
}

/// Takes the stage with what a client would have sent.
async fn prove(
    accounts: &AccountsPart,
    session: &str,
    stage: &AuthType,
    Proving { sid, client_secret }: Proving<'_>,
) -> Result<PageStep, ApiError> {
    let data = json!({
        "type": stage,
        "session": session,
        "threepid_creds": { "sid": sid, "client_secret": client_secret },
    });
    let auth: AuthData = serde_json::from_value(data).map_err(ApiError::invalid_param)?;
    Ok(step_on_page(accounts, session, &auth).await?)
}

fn finish(shown: &Shown<'_>, step: PageStep, again: &str) -> Result<Response, ApiError> {
    match step {
        PageStep::Completed => Ok(shown.done()),
        PageStep::Failed(_) => Ok(shown.say(NOT_PROVED, again)),
        PageStep::Unknown => Err(unknown()),
    }
}

fn ask_email(shown: &Shown<'_>) -> String {
    shown.form(
        "<h1>Your e-mail address</h1>\n<p>A message with a link will be sent there.</p>",
        "<p><input name=\"email\" type=\"email\" autocomplete=\"email\" required></p>",
    )
}

fn wait_for_email(shown: &Shown<'_>, proving: Proving<'_>) -> String {
    shown.form(
        "<h1>Look at your mail</h1>\n<p>Follow the link in the message, then go on here.</p>",
        &hidden(proving),
    )
}

fn ask_phone(shown: &Shown<'_>) -> String {
    shown.form(
        "<h1>Your phone number</h1>\n<p>A message with a code will be sent there.</p>",
        "<p><input name=\"country\" placeholder=\"Country, such as GB\" minlength=\"2\" \
         maxlength=\"2\" autocomplete=\"country\" required></p>\n<p><input \
         name=\"phone_number\" type=\"tel\" placeholder=\"Number\" autocomplete=\"tel\" \
         required></p>",
    )
}

fn wait_for_phone(shown: &Shown<'_>, proving: Proving<'_>) -> String {
    let fields = format!(
        "{}<p><input name=\"token\" placeholder=\"Code\" autocomplete=\"one-time-code\" \
         required></p>",
        hidden(proving)
    );
    shown.form("<h1>Enter the code that was sent to you</h1>", &fields)
}

fn hidden(Proving { sid, client_secret }: Proving<'_>) -> String {
    let field = |name: &str, value: &str| {
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">\n", escape(value))
    };
    field("sid", sid) + &field("client_secret", client_secret)
}
