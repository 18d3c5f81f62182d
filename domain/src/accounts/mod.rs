//! Accounts, their devices, and everything that proves who somebody is.
//!
//! Start at [`Requester`]: [`authenticate()`] turns an access token into one, by one read. A session
//! begins in [`register()`] or [`log_in_by_password`], goes on by [`refresh()`], and ends in
//! [`log_out`], [`change_password()`] or [`deactivate()`]. What needs more than a token is
//! confirmed through [`uiaa`].

mod authenticate;
mod belongings;
mod change_password;
mod consent;
mod deactivate;
mod dehydrated_device;
mod device_list;
mod devices;
mod erase;
mod last_seen;
mod log_in;
mod log_out;
mod login_token;
mod moderate;
mod openid;
mod password;
mod refresh;
mod register;
mod registration_token;
mod requester;
mod reserved;
mod sessions;
mod set_admin;
mod shared_secret;
mod sso;
#[cfg(test)]
mod tests;
mod token;
pub mod uiaa;
mod username;
mod who_is;

use std::{sync::Arc, time::Duration};

pub(crate) use self::log_out::log_out_all;
pub use self::{
    authenticate::{AuthenticateError, authenticate, confirm},
    change_password::{ChangePasswordError, NewPassword, change_password},
    consent::{Agreed, agree, consent_word, has_agreed, is_consent_word},
    deactivate::{DeactivateError, deactivate, depart, departing, find_deactivation},
    dehydrated_device::{
        DehydratedError, NewDehydratedDevice, dehydrate, dehydrated, dehydrated_events,
        delete_dehydrated,
    },
    device_list::{DeviceFate, device_list_changed, devices_changed, signing_keys_changed},
    devices::{
        DeviceError, DeviceInfo, NAME_BYTES_MAX as DEVICE_NAME_BYTES_MAX, create_device,
        delete_devices, device, devices, rename_device,
    },
    last_seen::{LastSeen, Origin},
    log_in::{
        LogInError, identified_user, log_in_by_password, log_in_by_service, log_in_by_token,
        named_user,
    },
    log_out::{log_out, log_out_everywhere},
    login_token::{LoginTokenError, issue_login_token},
    moderate::{ModerateError, Moderated, Moderation, moderate, moderated},
    openid::{OPENID_TOKEN_LIFETIME, OpenIdError, issue_openid_token, openid_user},
    password::{HashError, PasswordCost, Passwords},
    refresh::{RefreshError, refresh},
    register::{
        Credentials, NewAccount, RegisterError, Registered, check_available, create_service_user,
        register, upgrade_guest,
    },
    registration_token::is_registration_token_valid,
    requester::{ByService, Requester},
    reserved::{NoneReserved, ReservedNames},
    sessions::{Login, NewDevice},
    set_admin::set_admin,
    shared_secret::{Nonces, SharedSecretError, SharedSecretRequest, check_shared_secret},
    sso::{SsoError, SsoIdentity, SsoLogin, linked_user, log_in_by_sso},
    token::hash_token,
    username::{InvalidUsername, parse_username},
    who_is::who_is,
};
use crate::{Env, threepids};

/// What administrators decide about accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether anybody may register over the network.
    pub registration: bool,
    /// Whether guests may have accounts.
    pub guests: bool,
    /// A word that whoever registers must know, without end or count.
    pub registration_token: Option<String>,
    /// The secret with which tools register accounts.
    pub shared_secret: Option<String>,
    /// What whoever registers must agree to.
    pub terms: Vec<Policy>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
    /// What a password hash costs.
    pub password_cost: PasswordCost,
    /// What is decided about third-party identifiers.
    pub threepids: threepids::Settings,
    /// Whether other services say who somebody is.
    pub sso: bool,
    /// Whether who has not agreed to the documents does nothing that others see.
    pub require_consent: bool,
}

/// A document that users agree to (`m.login.terms`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A stable identifier, such as `privacy_policy`.
    pub id: String,
    /// The version of the text.
    pub version: String,
    /// The language of the text, such as `en`.
    pub language: String,
    /// The title shown to users.
    pub name: String,
    /// Where the text can be read.
    pub url: String,
}

/// How long tokens live; none is without end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// Access tokens of clients that refresh them.
    pub refreshable_access_token: Option<Duration>,
    /// Access tokens of clients that do not.
    pub access_token: Option<Duration>,
    /// Refresh tokens.
    pub refresh_token: Option<Duration>,
    /// Tokens with which one device logs in another.
    pub login_token: Duration,
    /// A dialogue of user-interactive authentication.
    pub uiaa_session: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            refreshable_access_token: Some(Duration::from_mins(5)),
            access_token: None,
            refresh_token: None,
            login_token: Duration::from_mins(2),
            uiaa_session: Duration::from_hours(1),
        }
    }
}

/// What the operations on accounts need.
pub struct Accounts {
    /// Store, clock, randomness, identity.
    pub env: Env,
    /// What administrators decided.
    pub settings: Settings,
    /// Hashes passwords, a few at a time.
    pub passwords: Passwords,
    /// Dialogues of user-interactive authentication under way.
    pub uiaa: uiaa::Dialogues,
    /// Tells people from programmes, if whoever registers is to be a person.
    pub captcha: Option<Arc<dyn uiaa::Captcha>>,
    /// Names that only application services give.
    pub reserved: Arc<dyn ReservedNames>,
    /// Nonces of the shared-secret registration.
    pub nonces: Nonces,
    /// Where devices were last seen.
    pub last_seen: LastSeen,
    /// Who has agreed to the documents.
    pub agreed: Agreed,
}

impl Accounts {
    /// `hashes_at_once` bounds the passwords hashed at the same time: each takes a core, and the
    /// memory that [`PasswordCost`] says.
    #[must_use]
    pub fn new(env: Env, settings: Settings, hashes_at_once: usize) -> Self {
        let passwords = Passwords::new(settings.password_cost, hashes_at_once);
        let last_seen = LastSeen::new(env.now());
        Self {
            env,
            settings,
            passwords,
            uiaa: uiaa::Dialogues::default(),
            captcha: None,
            reserved: Arc::new(NoneReserved),
            nonces: Nonces::default(),
            last_seen,
            agreed: Agreed::default(),
        }
    }

    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.env.now().get().into()
    }
}

/// The moment `lifetime` after `now_ms`.
pub(crate) fn expiry_ms(now_ms: u64, lifetime: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
}
