//! Single sign-on and captchas: what other services say about people.

use serde::{Deserialize, Serialize};

use super::Problems;

/// Other services that are asked about people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sso {
    /// Identity providers (OpenID Connect).
    pub sso_providers: Vec<SsoProvider>,
    /// Hosts of clients to which people go on at once when they have signed on.
    pub sso_redirect_hosts: Vec<String>,
    /// The public key of a captcha that whoever registers has to solve.
    pub recaptcha_public_key: Option<String>,
    /// The private key that goes with it.
    pub recaptcha_private_key: Option<String>,
    /// Where solutions are checked.
    pub recaptcha_siteverify_api: String,
}

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsoProvider {
    /// A name for paths: letters, digits, `.`, `_`, `~`, `-`. It must not change.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// An `mxc:` address of its sign.
    pub icon: Option<String>,
    /// A brand that clients know, such as `github`.
    pub brand: Option<String>,
    /// Its address, as it calls itself.
    pub issuer: String,
    /// Its name of this server.
    pub client_id: String,
    /// The secret that goes with it.
    pub client_secret: Option<String>,
    /// What is asked for.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The localpart of a new account, made of claims.
    #[serde(default = "localpart")]
    pub localpart_template: String,
    /// The name that a new account is shown by, made of claims.
    #[serde(default = "display_name")]
    pub display_name_template: String,
    /// Whether an account with this localpart that is there already becomes theirs.
    #[serde(default)]
    pub allow_existing_users: bool,
    /// Whether accounts are made for who has none.
    #[serde(default = "yes")]
    pub enable_registration: bool,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(ToOwned::to_owned).to_vec()
}

fn localpart() -> String {
    "{{ preferred_username }}".to_owned()
}

fn display_name() -> String {
    "{{ name }}".to_owned()
}

fn yes() -> bool {
    true
}

impl Default for Sso {
    fn default() -> Self {
        Self {
            sso_providers: Vec::new(),
            sso_redirect_hosts: Vec::new(),
            recaptcha_public_key: None,
            recaptcha_private_key: None,
            recaptcha_siteverify_api: "https://www.recaptcha.net/recaptcha/api/siteverify"
                .to_owned(),
        }
    }
}

impl Sso {
    /// Checks the section; `client_url` is `well_known.client`, where browsers come back to.
    pub(super) fn validate(&self, problems: &mut Problems, client_url: Option<&str>) {
        let is_url = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        for (place, provider) in self.sso_providers.iter().enumerate() {
            let key = |field: &str| format!("sso_providers[{place}].{field}");
            let good = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
            let id = &provider.id;
            let is_id = (1..=255).contains(&id.len()) && id.chars().all(good);
            problems.require(is_id, &key("id"), "must be letters, digits, . _ ~ -");
            let unique = self.sso_providers.iter().filter(|other| other.id == *id).count() == 1;
            problems.require(unique, &key("id"), "is that of another provider too");
            let problem = "must start with https:// or http://";
            problems.require(is_url(&provider.issuer), &key("issuer"), problem);
            problems.require(!provider.client_id.is_empty(), &key("client_id"), "must be set");
            let openid = provider.scopes.iter().any(|scope| scope == "openid");
            problems.require(openid, &key("scopes"), "must have \"openid\"");
            let icon = provider.icon.as_ref().is_none_or(|icon| icon.starts_with("mxc://"));
            problems.require(icon, &key("icon"), "must start with mxc://");
        }
        let reachable = self.sso_providers.is_empty() || client_url.is_some();
        let problem = "must be set, because sso_providers is: browsers come back there";
        problems.require(reachable, "well_known.client", problem);
        let pair = self.recaptcha_public_key.is_some() == self.recaptcha_private_key.is_some();
        let problem = "must be set together with recaptcha_public_key";
        problems.require(pair, "recaptcha_private_key", problem);
        let problem = "must start with https:// or http://";
        let key = "recaptcha_siteverify_api";
        problems.require(is_url(&self.recaptcha_siteverify_api), key, problem);
    }
}
