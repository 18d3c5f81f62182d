//! Asking a service over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use reqwest::Client;
use serde::Deserialize;
use url::Url;

use crate::Service;

/// Largest answer, in bytes: nothing that is asked for needs more.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a service did not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Its registration has no URL.
    #[error("it has no url")]
    NoUrl,
    /// It takes too long.
    #[error("it did not answer in time")]
    Timeout,
    /// Nobody is there, or the connection broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with another status than success.
    #[error("it answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What it said, or the beginning of that.
        body: String,
    },
    /// Its answer is too large.
    #[error("its answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

/// What a service is asked, by the specification's words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint<'a> {
    Transaction(&'a str),
    User(&'a str),
    Alias(&'a str),
    Ping,
    /// Below `thirdparty`.
    ThirdParty(&'a [&'a str]),
}

/// In which form a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the specification has it.
    Stable,
    /// As services did before there were versions of the API.
    Legacy,
}

impl Endpoint<'_> {
    fn method(self) -> Method {
        match self {
            Self::Transaction(_) => Method::PUT,
            Self::Ping => Method::POST,
            Self::User(_) | Self::Alias(_) | Self::ThirdParty(_) => Method::GET,
        }
    }

    /// The path's segments; none where this form has no such endpoint.
    fn path(self, form: Form) -> Option<Vec<String>> {
        let stable = form == Form::Stable;
        let (base, own): (&[&str], Vec<&str>) = match self {
            Self::Transaction(id) if stable => (&STABLE, vec!["transactions", id]),
            Self::User(user) if stable => (&STABLE, vec!["users", user]),
            Self::Alias(alias) if stable => (&STABLE, vec!["rooms", alias]),
            Self::Ping if stable => (&STABLE, vec!["ping"]),
            Self::Ping => return None,
            Self::Transaction(id) => (&[], vec!["transactions", id]),
            Self::User(user) => (&[], vec!["users", user]),
            Self::Alias(alias) => (&[], vec!["rooms", alias]),
            Self::ThirdParty(rest) => {
                let base: &[&str] = if stable { &STABLE } else { &UNSTABLE };
                (base, [&["thirdparty"], rest].concat())
            }
        };
        Some(base.iter().copied().chain(own).map(str::to_owned).collect())
    }
}

const STABLE: [&str; 3] = ["_matrix", "app", "v1"];
const UNSTABLE: [&str; 3] = ["_matrix", "app", "unstable"];

/// A request to a service.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub endpoint: Endpoint<'a>,
    pub query: &'a [(String, String)],
    pub body: Option<Bytes>,
    pub timeout: Duration,
}

impl<'a> Call<'a> {
    /// A question without a body.
    pub fn get(endpoint: Endpoint<'a>, query: &'a [(String, String)], timeout: Duration) -> Self {
        Self { endpoint, query, body: None, timeout }
    }
}

/// The body of a successful answer. A service that does not know the endpoint is asked in the older
/// form at once.
pub(crate) async fn call(
    client: &Client,
    service: &Service,
    call: &Call<'_>,
) -> Result<Bytes, CallError> {
    match call_as(client, service, call, Form::Stable).await {
        Err(error) if is_unknown_endpoint(&error) => {
            let older = call_as(client, service, call, Form::Legacy).await;
            // What it says in the form that it should know is worth more.
            older.map_err(|again| if is_unknown_endpoint(&again) { error } else { again })
        }
        answer => answer,
    }
}

/// Whether the service says that there is no such endpoint; that there is no such user is another
/// thing, said by an errcode.
pub(crate) fn is_unknown_endpoint(error: &CallError) -> bool {
    #[derive(Deserialize)]
    struct Said {
        errcode: String,
    }
    let CallError::Status { status, body } = error else { return false };
    let absent =
        [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    let said = serde_json::from_str::<Said>(body);
    absent.contains(status) && said.map_or(true, |said| said.errcode == "M_UNRECOGNIZED")
}

/// As [`call`], in one form.
pub(crate) async fn call_as(
    client: &Client,
    service: &Service,
    call: &Call<'_>,
    form: Form,
) -> Result<Bytes, CallError> {
    let url = service.url.as_ref().ok_or(CallError::NoUrl)?;
    let Some(path) = call.endpoint.path(form) else {
        let status = StatusCode::NOT_FOUND;
        return Err(CallError::Status { status, body: String::new() });
    };
    let url = address(url, &path, call.query, (form == Form::Legacy).then_some(&service.hs_token));
    let mut request = client
        .request(call.endpoint.method(), url)
        .bearer_auth(&service.hs_token)
        .timeout(call.timeout);
    if let Some(body) = &call.body {
        request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.clone());
    }
    let mut answer = request.send().await.map_err(failure)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let status = answer.status();
    if !status.is_success() {
        let body = String::from_utf8_lossy(&body).chars().take(1000).collect();
        return Err(CallError::Status { status, body });
    }
    Ok(body.into())
}

fn failure(error: reqwest::Error) -> CallError {
    if error.is_timeout() {
        return CallError::Timeout;
    }
    // Its own text repeats the address, which may hold a token; the cause does not.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    CallError::Unreachable(cause.to_string())
}

fn address(url: &Url, path: &[String], query: &[(String, String)], token: Option<&String>) -> Url {
    let mut url = url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() || token.is_some() {
        let mut pairs = url.query_pairs_mut();
        pairs.extend_pairs(query);
        if let Some(token) = token {
            pairs.append_pair("access_token", token);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_the_services_own_path_and_escape_identifiers() {
        let base = Url::parse("http://bridge:9000/irc/").unwrap();
        let path = |endpoint: Endpoint<'_>, form| endpoint.path(form).unwrap();
        let user = Endpoint::User("@irc_a/b:test");
        assert_eq!(
            address(&base, &path(user, Form::Stable), &[], None).as_str(),
            "http://bridge:9000/irc/_matrix/app/v1/users/@irc_a%2Fb:test"
        );
        let token = "hs".to_owned();
        assert_eq!(
            address(&base, &path(user, Form::Legacy), &[], Some(&token)).as_str(),
            "http://bridge:9000/irc/users/@irc_a%2Fb:test?access_token=hs"
        );
        let query = [("channel".to_owned(), "#a b".to_owned())];
        let location = Endpoint::ThirdParty(&["location", "irc"]);
        assert_eq!(
            address(&base, &path(location, Form::Legacy), &query, None).as_str(),
            "http://bridge:9000/irc/_matrix/app/unstable/thirdparty/location/irc?channel=%23a+b"
        );
        assert!(Endpoint::Ping.path(Form::Legacy).is_none());
    }

    #[test]
    fn an_unknown_user_is_not_an_unknown_endpoint() {
        let said = |status, body: &str| CallError::Status { status, body: body.to_owned() };
        for (error, unknown) in [
            (said(StatusCode::NOT_FOUND, "<html>"), true),
            (said(StatusCode::NOT_FOUND, "{\"errcode\":\"M_UNRECOGNIZED\"}"), true),
            (said(StatusCode::METHOD_NOT_ALLOWED, ""), true),
            (said(StatusCode::NOT_FOUND, "{\"errcode\":\"M_NOT_FOUND\"}"), false),
            (said(StatusCode::FORBIDDEN, ""), false),
            (CallError::Timeout, false),
        ] {
            assert_eq!(is_unknown_endpoint(&error), unknown, "{error:?}");
        }
    }
}
