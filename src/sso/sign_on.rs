//! Sign-ons under way: a browser has gone to a provider and is to come back.
//!
//! They are kept in memory. After a restart whoever was on the way begins anew.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use lru::LruCache;
use millrace_domain::{Env, accounts::SsoIdentity};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Provider, ProviderError, WebClient, claims::BadClaim, jwt::JwtError};
use crate::config::sso::SsoProvider;

/// Sign-ons remembered at once; beyond, the oldest is forgotten.
const SIGN_ONS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// How long somebody may take at the provider.
const LIFETIME_MS: u64 = Duration::from_mins(15).as_millis() as u64;
/// Letters of random texts.
const RANDOM_LEN: usize = 43;

/// What somebody signs on for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To log a client in, which is at this address.
    LogIn {
        /// The client's address.
        redirect_url: String,
    },
    /// For a stage of user-interactive authentication.
    Confirm {
        /// The dialogue.
        session: String,
    },
}

/// What only we and one browser know of a sign-on.
#[derive(Clone)]
pub(super) struct Secrets {
    /// Ties the ID token to the sign-on.
    pub nonce: String,
    /// Ties the code to us (RFC 7636).
    pub verifier: String,
}

impl Secrets {
    /// What the provider learns of the verifier at first.
    pub fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }
}

#[derive(Clone)]
struct SignOn {
    provider: usize,
    purpose: Purpose,
    secrets: Secrets,
    /// What the browser was given, so that no other comes back in its place.
    browser: String,
    expires_ms: u64,
}

/// A sign-on that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Where the browser is sent.
    pub url: String,
    /// The name of the cookie that it is given.
    pub cookie_name: String,
    /// The cookie.
    pub cookie: String,
}

/// A browser that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What it signed on for.
    pub purpose: Purpose,
    /// Who it is.
    pub identity: SsoIdentity,
}

/// Why somebody could not sign on.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// There is no provider of this name.
    #[error("there is no identity provider {0:?}")]
    NoProvider(String),
    /// The sign-on is unknown, over, or another browser's.
    #[error("this sign-on is unknown or too old; begin again")]
    Unknown,
    /// The provider cannot be asked.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The provider calls itself otherwise than it is configured.
    #[error("the provider calls itself {said}, and is configured as {issuer}")]
    OtherIssuer {
        /// What it says.
        said: String,
        /// What is configured.
        issuer: String,
    },
    /// The ID token is not believed.
    #[error(transparent)]
    Token(#[from] JwtError),
    /// The ID token is not for this.
    #[error(transparent)]
    Claim(#[from] BadClaim),
    /// The provider speaks of two people.
    #[error("the provider's userinfo is about somebody else")]
    OtherSubject,
    /// What the template of the name needs is missing.
    #[error("the provider does not say what the name is made of: {0}")]
    NoName(String),
}

/// What is configured about signing on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignOnSettings {
    /// The providers.
    pub providers: Vec<SsoProvider>,
    /// Where browsers come back to.
    pub redirect_uri: String,
    /// Hosts of clients to which people go on at once, in small letters.
    pub known_clients: Vec<String>,
}

/// The providers, and who is on the way.
pub struct SignOns {
    env: Env,
    providers: Vec<Arc<Provider>>,
    redirect_uri: String,
    known_clients: Vec<String>,
    under_way: Mutex<LruCache<String, SignOn>>,
}

impl SignOns {
    /// Sign-ons as they are configured; providers are asked by `client`.
    #[must_use]
    pub fn new(env: Env, settings: SignOnSettings, client: &WebClient) -> Self {
        let provider = |settings| Arc::new(Provider::new(settings, client.clone()));
        let SignOnSettings { providers, redirect_uri, known_clients } = settings;
        let providers = providers.into_iter().map(provider).collect();
        let under_way = Mutex::new(LruCache::new(SIGN_ONS_MAX));
        Self { env, providers, redirect_uri, known_clients, under_way }
    }

    /// Whether browsers come back over HTTPS.
    #[must_use]
    pub fn over_https(&self) -> bool {
        self.redirect_uri.starts_with("https://")
    }

    /// Whether people go on to the client of this host at once.
    #[must_use]
    pub fn is_known_client(&self, host: &str) -> bool {
        self.known_clients.iter().any(|known| known == host)
    }

    /// The providers, in the order of the configuration.
    pub fn providers(&self) -> impl Iterator<Item = &SsoProvider> {
        self.providers.iter().map(|provider| &provider.settings)
    }

    /// Begins a sign-on by a provider.
    ///
    /// # Errors
    /// Where there is no such provider, or it does not say where to sign on.
    pub async fn begin(&self, provider: &str, purpose: Purpose) -> Result<Begun, FinishError> {
        let no_provider = || FinishError::NoProvider(provider.to_owned());
        let place = self.providers.iter().position(|known| known.settings.id == provider);
        let place = place.ok_or_else(no_provider)?;
        let now_ms = self.now_ms();
        let random = || self.env.random_text(RANDOM_LEN);
        let (state, browser) = (random(), random());
        let secrets = Secrets { nonce: random(), verifier: random() };
        let provider = &self.providers[place];
        let url = provider.authorization_url(&self.redirect_uri, &state, &secrets, now_ms).await?;
        let cookie_name = cookie_name(&state);
        let expires_ms = now_ms + LIFETIME_MS;
        let sign_on =
            SignOn { provider: place, purpose, secrets, browser: browser.clone(), expires_ms };
        self.under_way.lock().put(state, sign_on);
        Ok(Begun { url, cookie_name, cookie: browser })
    }

    /// Takes back a browser with the code that its provider gave it. `cookie` is the value of the
    /// browser's cookie of a name. A sign-on can be finished once.
    ///
    /// # Errors
    /// Where the sign-on is not this browser's, or the provider's word does not hold.
    pub async fn finish(
        &self,
        state: &str,
        code: &str,
        cookie: impl Fn(&str) -> Option<String>,
    ) -> Result<Finished, FinishError> {
        let cookie = cookie(&cookie_name(state)).ok_or(FinishError::Unknown)?;
        let sign_on = {
            let mut under_way = self.under_way.lock();
            let ours = under_way.peek(state).is_some_and(|known| {
                known.expires_ms > self.now_ms()
                    && bool::from(known.browser.as_bytes().ct_eq(cookie.as_bytes()))
            });
            let sign_on = if ours { under_way.pop(state) } else { None };
            sign_on.ok_or(FinishError::Unknown)?
        };
        let provider = &self.providers[sign_on.provider];
        let place = (&*self.redirect_uri, code);
        let identity = provider.identify(place, &sign_on.secrets, self.now_ms()).await?;
        Ok(Finished { purpose: sign_on.purpose, identity })
    }

    fn now_ms(&self) -> u64 {
        self.env.now().get().into()
    }
}

/// A cookie for each sign-on, since one browser may have several under way.
fn cookie_name(state: &str) -> String {
    let part: String = state.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("millrace_sso_{part}")
}
