//! The riddle of `m.login.recaptcha`: Google's reCAPTCHA, or a service that is asked in the same way.

use futures::{FutureExt, future::BoxFuture};
use millrace_domain::accounts::uiaa::Captcha;
use serde::Deserialize;

use crate::sso::WebClient;

/// A captcha that is checked by a service.
pub struct Recaptcha {
    /// What clients show it with.
    pub public_key: String,
    /// What we ask with.
    pub private_key: String,
    /// Where we ask.
    pub url: String,
    /// Who asks.
    pub client: WebClient,
}

#[derive(Deserialize)]
struct Verdict {
    success: bool,
}

impl Captcha for Recaptcha {
    fn public_key(&self) -> &str {
        &self.public_key
    }

    fn is_solved<'a>(&'a self, response: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        async move {
            let form = [("secret", &*self.private_key), ("response", response)];
            let verdict = self.client.post_form::<Verdict>(&self.url, None, &form).await;
            verdict.map(|verdict| verdict.success).map_err(|error| error.to_string())
        }
        .boxed()
    }
}
