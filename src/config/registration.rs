//! Who may create an account.

use serde::{Deserialize, Serialize};

use super::Problems;

/// Ways to register, and what users agree to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Whether anybody may register over the network.
    pub allow_registration: bool,
    /// A word that whoever registers must know.
    pub registration_token: Option<String>,
    /// The secret with which tools, and `millrace register-user`, create accounts.
    pub registration_shared_secret: Option<String>,
    /// Whether guests may have accounts without a password.
    pub allow_guest_registration: bool,
    /// Documents that a user must agree to before registering.
    pub terms: Vec<Policy>,
    /// Whether users who have not agreed to their present versions do nothing that others see.
    pub require_consent: bool,
}

/// A document that users agree to (`m.login.terms`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A stable identifier, such as `privacy_policy`.
    pub id: String,
    /// The version of the text.
    pub version: String,
    /// The language of the text, such as `en`.
    #[serde(default = "english")]
    pub language: String,
    /// The title shown to users.
    pub name: String,
    /// Where the text can be read.
    pub url: String,
}

fn english() -> String {
    "en".to_owned()
}

impl Registration {
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, secret) in [
            ("registration_token", &self.registration_token),
            ("registration_shared_secret", &self.registration_shared_secret),
        ] {
            let empty = secret.as_ref().is_some_and(String::is_empty);
            problems.require(!empty, key, "must not be empty; remove the line to have none");
        }
        let some = !self.require_consent || !self.terms.is_empty();
        problems.require(some, "require_consent", "needs terms, which are empty");
        for policy in &self.terms {
            let is_url = policy.url.starts_with("https://") || policy.url.starts_with("http://");
            problems.require(is_url, "terms.url", "must start with https:// or http://");
            problems.require(!policy.id.is_empty(), "terms.id", "must not be empty");
        }
    }
}
