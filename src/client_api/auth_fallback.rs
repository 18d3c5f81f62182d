//! Stages of user-interactive authentication on pages, for clients that do not know them (spec:
//! Client-Server API, Fallback), and logging in on a page.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::StatusCode;
use millrace_domain::accounts::{
    Accounts,
    uiaa::{PageStep, has_stage, step_on_page},
};
use ruma::{
    api::client::uiaa::{AuthData, AuthType},
    serde::JsonObject,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    account_limits::AccountLimits,
    consent::documents,
    error::ApiError,
    extract::{PathArguments, QueryArguments},
    limits::EndpointClass,
    pages::{Form, page_with_policy},
};
use crate::{
    app::{AccountsPart, App},
    config::sso::SsoProvider,
    mail::{Messages, escape},
    sso::SignOns,
};

/// Where a browser goes to sign on for a dialogue.
pub(super) const CONFIRM_PATH: &str = "/_matrix/millrace/sso/confirm";
/// Where a browser goes to log in with a provider, whose ID follows.
pub(super) const REDIRECT_PATH: &str = "/_matrix/client/v3/login/sso/redirect";
/// Letters of a word that only the scripts of one page know.
const NONCE_LEN: usize = 22;

pub(crate) fn routes() -> Router<App> {
    let routes = fallback_paths("{stage}")
        .into_iter()
        .fold(Router::new(), |router, path| router.route(&path, get(show).post(submit)));
    routes
        .route("/_matrix/static/client/login", get(login_page))
        .route("/_matrix/static/client/login/", get(login_page))
        .route("/_matrix/static/client/register", get(register_page))
        .route("/_matrix/static/client/register/", get(register_page))
}

/// Where a stage's page is.
pub(super) fn fallback_paths(stage: &str) -> [String; 2] {
    ["r0", "v3"].map(|version| format!("/_matrix/client/{version}/auth/{stage}/fallback/web"))
}

#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    session: String,
}

/// What a page needs to be shown.
pub(super) struct Shown<'a> {
    accounts: &'a Accounts,
    messages: &'a Messages,
    session: &'a str,
    nonce: String,
}

/// `GET /_matrix/client/v3/auth/{authType}/fallback/web`
#[tracing::instrument(name = "client.auth_fallback.show", skip_all)]
async fn show(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    State(sign_ons): State<Arc<SignOns>>,
    PathArguments(stage): PathArguments<String>,
    QueryArguments(Session { session }): QueryArguments<Session>,
) -> Result<Response, ApiError> {
    let stage = AuthType::from(stage);
    if !has_stage(&accounts, &session, &stage) {
        return Err(unknown());
    }
    let shown = Shown::new(&accounts, &messages, &session);
    shown.stage(&stage, &sign_ons, "")
}

/// The fields of the stages' forms, each of which has some of them.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    session: String,
    #[serde(rename = "g-recaptcha-response")]
    recaptcha: Option<String>,
    token: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

/// `POST /_matrix/client/v3/auth/{authType}/fallback/web`: what the page above sends.
#[tracing::instrument(name = "client.auth_fallback.submit", skip_all)]
async fn submit(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    State(sign_ons): State<Arc<SignOns>>,
    limits: AccountLimits,
    PathArguments(stage): PathArguments<String>,
    Form(fields): Form<Fields>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let stage = AuthType::from(stage);
    let auth = auth_data(&stage, &fields)?;
    let shown = Shown::new(&accounts, &messages, &fields.session);
    match step_on_page(&accounts, &fields.session, &auth).await? {
        PageStep::Completed => Ok(shown.done()),
        PageStep::Failed(why) => shown.stage(&stage, &sign_ons, why),
        PageStep::Unknown => Err(unknown()),
    }
}

pub(super) fn unknown() -> ApiError {
    ApiError::not_found("There is no such dialogue, or it has no such stage")
}

/// What a client would have sent for the stage.
fn auth_data(stage: &AuthType, fields: &Fields) -> Result<AuthData, ApiError> {
    let text = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
    let mut data = JsonObject::new();
    let mut put = |field: &str, value: Value| data.insert(field.to_owned(), value);
    match stage {
        AuthType::ReCaptcha => drop(put("response", text(&fields.recaptcha))),
        AuthType::RegistrationToken => drop(put("token", text(&fields.token))),
        AuthType::Password => {
            put("identifier", serde_json::json!({ "type": "m.id.user", "user": fields.user }));
            put("password", text(&fields.password));
        }
        AuthType::Terms | AuthType::Dummy => {}
        _ => return Err(unknown()),
    }
    put("type", stage.as_str().into());
    put("session", fields.session.as_str().into());
    serde_json::from_value(Value::Object(data)).map_err(ApiError::invalid_param)
}

impl<'a> Shown<'a> {
    pub fn new(accounts: &'a Accounts, messages: &'a Messages, session: &'a str) -> Self {
        Self { accounts, messages, session, nonce: accounts.env.random_text(NONCE_LEN) }
    }

    /// The page of a stage. `failure` says what went wrong before.
    fn stage(
        &self,
        stage: &AuthType,
        sign_ons: &SignOns,
        failure: &str,
    ) -> Result<Response, ApiError> {
        let body = match stage {
            AuthType::ReCaptcha => self.captcha()?,
            AuthType::RegistrationToken => self.form(
                "<h1>Registration token</h1>\n<p>Enter the word that you were given.</p>",
                "<p><input name=\"token\" autocomplete=\"off\" required></p>",
            ),
            AuthType::Terms => self.form(&self.terms(), ""),
            AuthType::Dummy => self.form("<h1>Go on</h1>", ""),
            AuthType::Password => self.form(
                "<h1>Confirm with your password</h1>",
                "<p><input name=\"user\" placeholder=\"Username\" required></p>\n<p><input \
                 name=\"password\" type=\"password\" placeholder=\"Password\" required></p>",
            ),
            AuthType::Sso => self.sign_ons(sign_ons),
            _ => return Err(unknown()),
        };
        Ok(self.say(failure, &body))
    }

    /// A page, after what went wrong before, if anything did.
    pub fn say(&self, failure: &str, body: &str) -> Response {
        if failure.is_empty() {
            return self.page(StatusCode::OK, body);
        }
        let failure = format!("<p><strong>{}</strong></p>\n", escape(failure));
        self.page(StatusCode::UNAUTHORIZED, &format!("{failure}{body}"))
    }

    /// A form that goes on with the dialogue.
    pub fn form(&self, intro: &str, fields: &str) -> String {
        let session = escape(self.session);
        format!(
            "{intro}\n<form method=\"post\">\n<input type=\"hidden\" name=\"session\" \
             value=\"{session}\">\n{fields}\n<button type=\"submit\">Go on</button>\n</form>"
        )
    }

    fn terms(&self) -> String {
        let documents = documents(&self.accounts.settings.terms);
        format!("<h1>Please read and agree to these</h1>\n{documents}")
    }

    fn captcha(&self) -> Result<String, ApiError> {
        let captcha = self.accounts.captcha.as_ref().ok_or_else(unknown)?;
        let (key, nonce) = (escape(captcha.public_key()), &self.nonce);
        let script = format!(
            "<script nonce=\"{nonce}\" src=\"https://www.recaptcha.net/recaptcha/api.js\" async \
             defer></script>\n<div class=\"g-recaptcha\" data-sitekey=\"{key}\"></div>"
        );
        Ok(self.form("<h1>Are you a person?</h1>", &script))
    }

    fn sign_ons(&self, sign_ons: &SignOns) -> String {
        let session = crate::sso::encoded(self.session);
        let link = |provider: &SsoProvider| {
            let (id, name) = (escape(&provider.id), escape(&provider.name));
            format!(
                "<p><a class=\"button\" href=\"{CONFIRM_PATH}?idp={id}&amp;session={session}\">Go \
                 on with {name}</a></p>\n"
            )
        };
        let links: String = sign_ons.providers().map(link).collect();
        format!("<h1>Confirm that it is you</h1>\n{links}")
    }

    /// Tells the client, which has opened the page, that the stage is done.
    pub fn done(&self) -> Response {
        let nonce = &self.nonce;
        let body = format!(
            "<h1>Thank you</h1>\n<p>You can close this page and go back to your client.</p>\n\
             <script nonce=\"{nonce}\">\n\
             if (window.onAuthDone) {{ window.onAuthDone(); }}\n\
             else if (window.opener && window.opener.postMessage) {{\n\
             window.opener.postMessage(\"authDone\", \"*\");\n}}\n</script>"
        );
        self.page(StatusCode::OK, &body)
    }

    fn page(&self, status: StatusCode, body: &str) -> Response {
        let nonce = &self.nonce;
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}' \
             'strict-dynamic'; connect-src 'self'; frame-src https://www.recaptcha.net \
             https://www.google.com; base-uri 'none'"
        );
        page_with_policy(status, self.messages.layout(body), &policy)
    }
}

/// The page that tells a client that single sign-on was its stage's.
pub(super) fn done_page(accounts: &Accounts, messages: &Messages, session: &str) -> Response {
    Shown::new(accounts, messages, session).done()
}

/// `GET /_matrix/static/client/login/`: logs in on a page, and hands what comes of it to
/// `window.matrixLogin.onLogin` (spec: Login Fallback).
#[tracing::instrument(name = "client.login.page", skip_all)]
async fn login_page(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    State(sign_ons): State<Arc<SignOns>>,
) -> Response {
    let shown = Shown::new(&accounts, &messages, "");
    let script = include_str!("login_page.js");
    // The script says where providers send the browser back to.
    let link = |provider: &SsoProvider| {
        let (id, name) = (escape(&provider.id), escape(&provider.name));
        format!("<p><a class=\"button\" href=\"{REDIRECT_PATH}/{id}\">Log in with {name}</a></p>\n")
    };
    let links: String = sign_ons.providers().map(link).collect();
    let body = format!(
        "<h1>Log in</h1>\n<p id=\"failure\"></p>\n<div id=\"ways\">\n<form id=\"login\">\n<p><input \
         name=\"user\" placeholder=\"Username\" autocomplete=\"username\" required></p>\n<p><input \
         name=\"password\" type=\"password\" placeholder=\"Password\" \
         autocomplete=\"current-password\" required></p>\n<button type=\"submit\">Log \
         in</button>\n</form>\n{links}</div>\n<script nonce=\"{}\">\n{script}\n</script>",
        shown.nonce
    );
    shown.page(StatusCode::OK, &body)
}

/// `GET /_matrix/static/client/register/`: registers on a page, and hands what comes of it to
/// `window.matrixRegistration.onRegistered`. The stages are pages of their own.
#[tracing::instrument(name = "client.register.page", skip_all)]
async fn register_page(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
) -> Response {
    let shown = Shown::new(&accounts, &messages, "");
    let script = include_str!("register_page.js");
    let body = format!(
        "<h1>Create an account</h1>\n<p id=\"failure\"></p>\n<form id=\"register\">\n<p><input \
         name=\"user\" placeholder=\"Username\" autocomplete=\"username\" required></p>\n<p><input \
         name=\"password\" type=\"password\" placeholder=\"Password\" \
         autocomplete=\"new-password\" required></p>\n<button type=\"submit\">Create an \
         account</button>\n</form>\n<script nonce=\"{}\">\n{script}\n</script>",
        shown.nonce
    );
    shown.page(StatusCode::OK, &body)
}
