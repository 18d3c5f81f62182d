//! The options of an app: some that all have, others by vendor. Named as Sygnal names them.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

/// How the devices of an app are reached.
#[derive(Debug, Clone)]
pub struct App {
    /// What is the same for all vendors.
    pub common: Common,
    /// The rest.
    pub vendor: VendorOptions,
}

/// Options that every app has.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Common {
    /// Devices get no more than the IDs of event and room and the counts, whatever the homeserver sends.
    pub event_id_only: bool,
    /// The priority with which notifications are sent.
    pub priority: SentPriority,
    /// Whether counts are sent, and notifications that have nothing else.
    pub badge: bool,
    /// What every payload begins with; what the app says when it makes a pusher goes above it.
    pub default_payload: Map<String, Value>,
    /// Requests to the vendor at the same time.
    pub inflight_request_limit: usize,
    /// Notifications that may wait for one of those requests, or to be tried again.
    pub queue_max: usize,
}

/// The keys of [`Common`].
const COMMON: [&str; 6] = [
    "event_id_only",
    "priority",
    "badge",
    "default_payload",
    "inflight_request_limit",
    "queue_max",
];

/// The priority with which notifications are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentPriority {
    /// As the homeserver says.
    Given,
    /// High, always.
    High,
    /// Low, always.
    Low,
}

/// Options by vendor.
#[derive(Debug, Clone)]
pub enum VendorOptions {
    /// `type = "apns"`
    Apns(ApnsOptions),
    /// `type = "fcm"`, or `"gcm"` as Sygnal has it.
    Fcm(FcmOptions),
    /// `type = "webpush"`
    WebPush(WebPushOptions),
}

/// Apple.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApnsOptions {
    /// Certificate and key in one file (PEM).
    pub certfile: Option<PathBuf>,
    /// A key for tokens (.p8).
    pub keyfile: Option<PathBuf>,
    /// The ID of `keyfile`.
    pub key_id: Option<String>,
    /// The ID of the team.
    pub team_id: Option<String>,
    /// The bundle ID; the app ID where it is absent.
    pub topic: Option<String>,
    /// Which of Apple's servers.
    #[serde(default)]
    pub platform: Platform,
    /// Another server instead.
    pub url: Option<String>,
    /// What `apns-push-type` says.
    #[serde(default)]
    pub push_type: PushType,
    /// Whether push keys are base64 of a token. Otherwise they are the token in hexadecimal digits.
    #[serde(default = "yes")]
    pub convert_device_token_to_hex: bool,
    /// The sound of a notification for which push rules chose none.
    pub sound: Option<String>,
    /// How long Apple keeps what cannot be delivered, in seconds. Apple decides where it is absent.
    pub ttl: Option<u64>,
}

/// Apple's servers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// For apps from the store.
    #[default]
    #[serde(alias = "prod")]
    Production,
    /// For apps under development.
    Sandbox,
}

/// What `apns-push-type` says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushType {
    /// Something is shown.
    #[default]
    Alert,
    /// The app is woken, nothing is shown.
    Background,
    /// A call.
    Voip,
}

/// Google.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FcmOptions {
    /// The key of a service account (JSON).
    pub service_account_file: PathBuf,
    /// The project; that of the service account where it is absent.
    pub project_id: Option<String>,
    /// What every message begins with, such as `android` or `notification`.
    #[serde(default)]
    pub fcm_options: Map<String, Value>,
    /// Sygnal's; only `v1` exists any more.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Another server instead.
    pub url: Option<String>,
}

/// The version of Google's API.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiVersion {
    /// HTTP v1.
    #[default]
    V1,
}

/// Browsers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebPushOptions {
    /// The private key of VAPID (PEM).
    pub vapid_private_key: PathBuf,
    /// Whom the operator of a push service can write to.
    pub vapid_contact_email: String,
    /// Hosts, or patterns of hosts, to which notifications go; all where it is absent.
    pub allowed_endpoints: Option<Vec<String>>,
    /// How long a push service keeps what cannot be delivered, in seconds.
    #[serde(default = "quarter_of_an_hour")]
    pub ttl: u64,
}

fn yes() -> bool {
    true
}

fn quarter_of_an_hour() -> u64 {
    15 * 60
}

impl Default for Common {
    fn default() -> Self {
        Self {
            event_id_only: false,
            priority: SentPriority::Given,
            badge: true,
            default_payload: Map::new(),
            inflight_request_limit: 512,
            queue_max: 8192,
        }
    }
}

impl<'de> Deserialize<'de> for App {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut all = Map::<String, Value>::deserialize(from)?;
        let common = COMMON.iter().filter_map(|key| all.remove_entry(*key)).collect();
        let vendor = match all.remove("type").as_ref().and_then(Value::as_str) {
            Some("apns") => VendorOptions::Apns(options(all)?),
            Some("fcm" | "gcm") => VendorOptions::Fcm(options(all)?),
            Some("webpush") => VendorOptions::WebPush(options(all)?),
            _ => return Err(D::Error::custom("type must be \"apns\", \"fcm\" or \"webpush\"")),
        };
        Ok(Self { common: options(common)?, vendor })
    }
}

fn options<T: serde::de::DeserializeOwned, E: Error>(from: Map<String, Value>) -> Result<T, E> {
    serde_json::from_value(Value::Object(from)).map_err(E::custom)
}

impl App {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.common.inflight_request_limit == 0 || self.common.queue_max == 0 {
            return Err("inflight_request_limit and queue_max: must not be 0".to_owned());
        }
        match &self.vendor {
            VendorOptions::Apns(apns) => apns.validate(),
            VendorOptions::Fcm(fcm) => {
                let own = ["token", "topic", "condition"];
                match own.iter().find(|key| fcm.fcm_options.contains_key(**key)) {
                    Some(key) => Err(format!("fcm_options.{key}: says who gets it; remove it")),
                    None => Ok(()),
                }
            }
            VendorOptions::WebPush(web) => {
                let contact = web.vapid_contact_email.contains('@');
                if contact { Ok(()) } else { Err("vapid_contact_email: is no address".to_owned()) }
            }
        }
    }
}

impl ApnsOptions {
    fn validate(&self) -> Result<(), String> {
        match (&self.certfile, &self.keyfile) {
            (Some(_), Some(_)) => Err("certfile: and keyfile exclude each other".to_owned()),
            (None, None) => Err("keyfile: either it or certfile is needed".to_owned()),
            (None, Some(_)) if self.key_id.is_none() || self.team_id.is_none() => {
                Err("keyfile: needs key_id and team_id beside it".to_owned())
            }
            (None, Some(_)) if self.topic.is_none() => {
                Err("topic: is needed with a keyfile: the app's bundle ID".to_owned())
            }
            _ => Ok(()),
        }
    }
}
