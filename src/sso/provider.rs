//! One identity provider: what it says of itself, and what it says of people.

use std::time::Duration;

use millrace_domain::accounts::SsoIdentity;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    WebClient,
    claims::{self, Expected},
    client::form_encoded,
    jwt::{self, Jwks, JwtError},
    sign_on::{FinishError, Secrets},
    template,
};
use crate::config::sso::SsoProvider;

/// How long what a provider says of itself is taken as said, in milliseconds.
const METADATA_GOOD_FOR_MS: u64 = Duration::from_hours(1).as_millis() as u64;

/// An identity provider.
pub struct Provider {
    /// What is configured.
    pub settings: SsoProvider,
    client: WebClient,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    metadata: Metadata,
    keys: Jwks,
    until_ms: u64,
}

/// OpenID Connect Discovery 1.0, 3.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: Option<String>,
    id_token: String,
}

impl Provider {
    pub(super) fn new(settings: SsoProvider, client: WebClient) -> Self {
        Self { settings, client, known: Mutex::default() }
    }

    /// What the provider says of itself, fetched once in a while.
    async fn known(&self, now_ms: u64) -> Result<Known, FinishError> {
        if let Some(known) = self.known.lock().clone().filter(|known| known.until_ms > now_ms) {
            return Ok(known);
        }
        self.fetch(now_ms).await
    }

    async fn fetch(&self, now_ms: u64) -> Result<Known, FinishError> {
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.client.get(&url, None).await?;
        if metadata.issuer != *issuer {
            return Err(FinishError::OtherIssuer { said: metadata.issuer, issuer: issuer.clone() });
        }
        let keys: Jwks = self.client.get(&metadata.jwks_uri, None).await?;
        let known = Known { metadata, keys, until_ms: now_ms + METADATA_GOOD_FOR_MS };
        *self.known.lock() = Some(known.clone());
        Ok(known)
    }

    /// Where a browser is sent to sign on.
    pub(super) async fn authorization_url(
        &self,
        redirect_uri: &str,
        state: &str,
        secrets: &Secrets,
        now_ms: u64,
    ) -> Result<String, FinishError> {
        let metadata = self.known(now_ms).await?.metadata;
        let query = form_encoded(&[
            ("response_type", "code"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &self.settings.scopes.join(" ")),
            ("state", state),
            ("nonce", &secrets.nonce),
            ("code_challenge", &secrets.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        let endpoint = metadata.authorization_endpoint;
        let joined = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{joined}{query}"))
    }

    /// Who the code of a provider stands for.
    pub(super) async fn identify(
        &self,
        (redirect_uri, code): (&str, &str),
        secrets: &Secrets,
        now_ms: u64,
    ) -> Result<SsoIdentity, FinishError> {
        let known = self.known(now_ms).await?;
        let tokens = self.tokens(&known.metadata, (redirect_uri, code), secrets).await?;
        let claims = match jwt::verify(&tokens.id_token, &known.keys) {
            // It may have new keys.
            Err(JwtError::NoKey) => jwt::verify(&tokens.id_token, &self.fetch(now_ms).await?.keys)?,
            verified => verified?,
        };
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &secrets.nonce,
            now_s: now_ms / 1000,
        };
        let subject = claims::subject(&claims, &expected)?;
        let claims = self.with_userinfo(&known.metadata, &tokens, claims, &subject).await?;
        self.identity(subject, &claims)
    }

    async fn tokens(
        &self,
        metadata: &Metadata,
        (redirect_uri, code): (&str, &str),
        secrets: &Secrets,
    ) -> Result<Tokens, FinishError> {
        let SsoProvider { client_id, client_secret, .. } = &self.settings;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", &*secrets.verifier),
        ];
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let basic =
            methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        let login = match client_secret {
            Some(secret) if basic => Some((&**client_id, &**secret)),
            Some(secret) => {
                form.extend([("client_id", &**client_id), ("client_secret", &**secret)]);
                None
            }
            None => {
                form.push(("client_id", client_id));
                None
            }
        };
        Ok(self.client.post_form(&metadata.token_endpoint, login, &form).await?)
    }

    /// The claims of the ID token, and what the provider says besides where it is asked.
    async fn with_userinfo(
        &self,
        metadata: &Metadata,
        tokens: &Tokens,
        claims: Map<String, Value>,
        subject: &str,
    ) -> Result<Map<String, Value>, FinishError> {
        let endpoint = metadata.userinfo_endpoint.as_ref().zip(tokens.access_token.as_ref());
        let Some((url, token)) = endpoint else { return Ok(claims) };
        let mut all: Map<String, Value> = self.client.get(url, Some(token)).await?;
        if all.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(FinishError::OtherSubject);
        }
        all.extend(claims);
        Ok(all)
    }

    fn identity(
        &self,
        subject: String,
        claims: &Map<String, Value>,
    ) -> Result<SsoIdentity, FinishError> {
        let settings = &self.settings;
        let localpart = template::fill(&settings.localpart_template, claims);
        let localpart =
            localpart.ok_or_else(|| FinishError::NoName(settings.localpart_template.clone()))?;
        Ok(SsoIdentity {
            provider: settings.id.clone(),
            subject,
            localpart,
            display_name: template::fill(&settings.display_name_template, claims),
            take_over: settings.allow_existing_users,
            create: settings.enable_registration,
        })
    }
}
