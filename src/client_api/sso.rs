//! Single sign-on: `/login/sso/redirect`, and where browsers come back (spec: Client-Server API, SSO
//! client login/authentication).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use millrace_domain::accounts::{
    Accounts, SsoError, SsoIdentity, linked_user, log_in_by_sso,
    uiaa::{PageStep, signed_on},
};
use ruma::api::client::session::{sso_login, sso_login_with_provider};
use serde::Deserialize;

use super::{
    account_limits::AccountLimits,
    auth_fallback::{CONFIRM_PATH, REDIRECT_PATH, done_page},
    error::ApiError,
    extract::{Matrix, QueryArguments},
    limits::EndpointClass,
    pages::{page, redirect},
    router::MatrixRouter,
};
use crate::{
    app::{AccountsPart, App},
    config::sso::SsoProvider,
    mail::{Messages, escape},
    sso::{Begun, FinishError, Finished, Purpose, SignOns, encoded},
};

/// Where browsers come back to.
pub(crate) const CALLBACK_PATH: &str = "/_matrix/millrace/sso/callback";
/// How long a browser keeps what it was given.
const COOKIE_AGE_S: u64 = 900;
/// Schemes of addresses that are programmes, or files of whoever follows them.
const NO_CLIENTS: [&str; 6] = ["javascript", "data", "vbscript", "blob", "file", "about"];
/// The longest address of a client.
const URL_BYTES_MAX: usize = 4096;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(choose)
        .matrix(go)
        .route(CONFIRM_PATH, get(confirm))
        .route(CALLBACK_PATH, get(come_back))
}

/// `GET /_matrix/client/v3/login/sso/redirect`
#[tracing::instrument(name = "client.sso.choose", skip_all)]
async fn choose(
    (State(sign_ons), State(messages)): (State<Arc<SignOns>>, State<Arc<Messages>>),
    limits: AccountLimits,
    Matrix(request): Matrix<sso_login::v3::Request>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let to = &request.redirect_url;
    let _: String = client_of(to).ok_or_else(no_client)?;
    let providers: Vec<_> = sign_ons.providers().collect();
    match providers.as_slice() {
        [] => Err(ApiError::not_found("This server has no single sign-on")),
        [only] => start(&sign_ons, &only.id, log_in_at(to)).await,
        several => {
            let link = |provider: &&SsoProvider| {
                let (id, to) = (escape(&provider.id), encoded(to));
                let name = escape(&provider.name);
                format!(
                    "<p><a class=\"button\" href=\"{REDIRECT_PATH}/{id}?redirectUrl={to}\">{name}\
                     </a></p>\n"
                )
            };
            let links: String = several.iter().map(link).collect();
            let body = format!("<h1>Log in with</h1>\n{links}");
            Ok(page(StatusCode::OK, messages.layout(&body)))
        }
    }
}

/// `GET /_matrix/client/v3/login/sso/redirect/{idpId}`
#[tracing::instrument(name = "client.sso.go", skip_all)]
async fn go(
    State(sign_ons): State<Arc<SignOns>>,
    limits: AccountLimits,
    Matrix(request): Matrix<sso_login_with_provider::v3::Request>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let _: String = client_of(&request.redirect_url).ok_or_else(no_client)?;
    start(&sign_ons, &request.idp_id, log_in_at(&request.redirect_url)).await
}

fn log_in_at(url: &str) -> Purpose {
    Purpose::LogIn { redirect_url: url.to_owned() }
}

fn no_client() -> ApiError {
    ApiError::invalid_param("The redirectUrl is not the address of a client")
}

/// What a client's address shows of it: its host, or the scheme of an app.
fn client_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let good = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.chars().all(good);
    let visible = !url.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\');
    if !is_scheme || NO_CLIENTS.contains(&&*scheme) || !visible || url.len() > URL_BYTES_MAX {
        return None;
    }
    if matches!(&*scheme, "http" | "https") {
        let uri: http::Uri = url.split('#').next()?.parse().ok()?;
        return uri.host().map(str::to_ascii_lowercase);
    }
    (!rest.is_empty()).then_some(scheme)
}

#[derive(Deserialize)]
struct Confirm {
    idp: String,
    session: String,
}

/// `GET /_matrix/millrace/sso/confirm`: signs on for a stage of user-interactive authentication.
#[tracing::instrument(name = "client.sso.confirm", skip_all)]
async fn confirm(
    State(sign_ons): State<Arc<SignOns>>,
    limits: AccountLimits,
    QueryArguments(Confirm { idp, session }): QueryArguments<Confirm>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    start(&sign_ons, &idp, Purpose::Confirm { session }).await
}

/// Sends a browser to a provider, with a cookie by which it is known again.
async fn start(sign_ons: &SignOns, provider: &str, purpose: Purpose) -> Result<Response, ApiError> {
    let Begun { url, cookie_name, cookie } = sign_ons.begin(provider, purpose).await?;
    let secure = if sign_ons.over_https() { "; Secure" } else { "" };
    let cookie = format!(
        "{cookie_name}={cookie}; Path={CALLBACK_PATH}; Max-Age={COOKIE_AGE_S}; HttpOnly; \
         SameSite=Lax{secure}"
    );
    let cookie = HeaderValue::from_str(&cookie).map_err(ApiError::internal)?;
    let location = HeaderValue::from_str(&url).map_err(ApiError::internal)?;
    let headers = [
        (header::LOCATION, location),
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

#[derive(Deserialize)]
struct ComeBack {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// `GET /_matrix/millrace/sso/callback`
#[tracing::instrument(name = "client.sso.come_back", skip_all)]
async fn come_back(
    (State(sign_ons), State(messages)): (State<Arc<SignOns>>, State<Arc<Messages>>),
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    headers: HeaderMap,
    QueryArguments(query): QueryArguments<ComeBack>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let failed = |status: StatusCode, why: &str| {
        let body = format!("<h1>You could not be logged in</h1>\n<p>{}</p>", escape(why));
        page(status, messages.layout(&body))
    };
    let Some(code) = query.code else {
        let why = query.error_description.or(query.error);
        return Ok(failed(StatusCode::BAD_REQUEST, &why.unwrap_or_default()));
    };
    let cookie = |name: &str| cookie(&headers, name);
    let Finished { purpose, identity } = match sign_ons.finish(&query.state, &code, cookie).await {
        Ok(finished) => finished,
        Err(FinishError::Unknown) => {
            return Ok(failed(StatusCode::BAD_REQUEST, &FinishError::Unknown.to_string()));
        }
        Err(error) => {
            tracing::warn!(%error, "a sign-on failed");
            let why = "The identity provider's answer cannot be used. Try again later.";
            return Ok(failed(StatusCode::BAD_GATEWAY, why));
        }
    };
    match purpose {
        Purpose::LogIn { redirect_url } => {
            match hand_over(&accounts, &sign_ons, &messages, &identity, &redirect_url).await {
                Ok(response) => response,
                Err(SsoError::Store(error)) => Err(ApiError::internal(error)),
                Err(error) => Ok(failed(StatusCode::FORBIDDEN, &error.to_string())),
            }
        }
        Purpose::Confirm { session } => {
            let place = (&*identity.provider, &*identity.subject);
            let user = linked_user(&accounts, place).await.map_err(ApiError::internal)?;
            let step = user.map_or(PageStep::Failed("No account is yours here"), |user| {
                signed_on(&accounts, &session, &user)
            });
            Ok(match step {
                PageStep::Completed => done_page(&accounts, &messages, &session),
                PageStep::Failed(why) => failed(StatusCode::FORBIDDEN, why),
                PageStep::Unknown => failed(StatusCode::BAD_REQUEST, "Begin again in your client."),
            })
        }
    }
}

/// Gives a login token to the client: at once where its host is known, else by a link that says where
/// it leads.
async fn hand_over(
    accounts: &Accounts,
    sign_ons: &SignOns,
    messages: &Messages,
    identity: &SsoIdentity,
    redirect_url: &str,
) -> Result<Result<Response, ApiError>, SsoError> {
    let login = log_in_by_sso(accounts, identity).await?;
    let (before, fragment) =
        redirect_url.split_once('#').map_or((redirect_url, None), |(b, f)| (b, Some(f)));
    let joined = if before.contains('?') { '&' } else { '?' };
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    let to = format!("{before}{joined}loginToken={}{fragment}", encoded(&login.login_token));
    let client = client_of(redirect_url).unwrap_or_default();
    if sign_ons.is_known_client(&client) {
        return Ok(redirect(&to));
    }
    let body = format!(
        "<h1>Log in to {client}?</h1>\n<p>You are about to give <strong>{client}</strong> access to \
         your account {user}. If you did not ask for that, close this page.</p>\n<p><a \
         class=\"button\" href=\"{to}\">Go on to {client}</a></p>",
        client = escape(&client),
        user = escape(login.user.as_str()),
        to = escape(&to),
    );
    Ok(Ok(page(StatusCode::OK, messages.layout(&body))))
}

/// The value of a cookie.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.trim() == name)?;
    Some(value.trim().to_owned())
}

impl From<FinishError> for ApiError {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::NoProvider(_) => Self::not_found(error),
            FinishError::Unknown => Self::forbidden(error),
            FinishError::Provider(_)
            | FinishError::OtherIssuer { .. }
            | FinishError::Token(_)
            | FinishError::Claim(_)
            | FinishError::OtherSubject
            | FinishError::NoName(_) => {
                tracing::warn!(%error, "an identity provider cannot be used");
                let kind = ruma::api::error::ErrorKind::Unknown;
                Self::new(StatusCode::BAD_GATEWAY, kind, "The identity provider cannot be used")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_host_or_scheme_and_programmes_are_none() {
        for (url, client) in [
            ("https://App.example.org/#/login", Some("app.example.org")),
            ("https://good.org@evil.org/", Some("evil.org")),
            ("http://localhost:1234/x?y", Some("localhost")),
            ("element://vector/webapp/?x=1", Some("element")),
            ("javascript:alert(1)", None),
            ("JavaScript:alert(1)", None),
            ("data:text/html,x", None),
            ("java\nscript:alert(1)", None),
            ("https:\\\\evil.org", None),
            ("/relative", None),
            ("https://", None),
        ] {
            assert_eq!(client_of(url).as_deref(), client, "{url:?}");
        }
    }
}
