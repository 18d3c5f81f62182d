//! The gateway with its vendors around it.

use std::sync::Arc;

use millrace_push_gateway::{config, gateway::Gateway, router};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    apns_server::{ApnsServer, KEY_ID, TEAM_ID, TOPIC},
    fcm_server::FcmServer,
    server::Authority,
    web_push_server::{Browser, WebPushServer},
};

/// Whatever a test needs.
pub struct World {
    pub apns: ApnsServer,
    pub apns_by_certificate: ApnsServer,
    pub fcm: FcmServer,
    pub web: WebPushServer,
    pub gateway: Arc<Gateway>,
    url: String,
    client: reqwest::Client,
    _files: TempDir,
}

/// The answer to a call.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Answer {
    /// The keys that it calls dead; it is an error where it is no success.
    pub fn rejected(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body["rejected"]
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With further lines at the beginning of the configuration.
    pub async fn with(extra: &str) -> Self {
        Self::allowing(r#"["127.0.0.0/8", "::1"]"#, extra).await
    }

    /// Where Web Push must not come here.
    pub async fn private_refused() -> Self {
        Self::allowing("[]", "").await
    }

    async fn allowing(addresses: &str, extra: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        let authority = Authority::new();
        authority.write(&path("ca.pem"));
        authority.write_identity(&path("client.pem"));
        let key = KeyPair::generate().unwrap();
        std::fs::write(path("key.p8"), key.serialize_pem()).unwrap();
        let public = key.public_key_raw().to_vec();
        let apns = ApnsServer::start(&authority, Some(public)).await;
        let apns_by_certificate = ApnsServer::start(&authority, None).await;
        let fcm = FcmServer::start(&authority).await;
        let web = WebPushServer::start(&authority).await;
        std::fs::write(path("account.json"), fcm.service_account().to_string()).unwrap();
        let folder = files.path().display();
        let (apns_url, certificate_url) = (apns.server.url(), apns_by_certificate.server.url());
        let fcm_url = fcm.server.url();
        let text = format!(
            r#"
ca_certificates = ["{folder}/ca.pem"]
allowed_addresses = {addresses}
{extra}
[apps."ios"]
type = "apns"
keyfile = "{folder}/key.p8"
key_id = "{KEY_ID}"
team_id = "{TEAM_ID}"
topic = "{TOPIC}"
url = "{apns_url}"
convert_device_token_to_hex = false
queue_max = 64
[apps."ios.certificate"]
type = "apns"
certfile = "{folder}/client.pem"
topic = "{TOPIC}"
url = "{certificate_url}"
convert_device_token_to_hex = false
[apps."android*"]
type = "fcm"
service_account_file = "{folder}/account.json"
url = "{fcm_url}"
[apps."web"]
type = "webpush"
vapid_private_key = "{folder}/key.p8"
vapid_contact_email = "admin@example.com"
[apps."web.listed"]
type = "webpush"
vapid_private_key = "{folder}/key.p8"
vapid_contact_email = "admin@example.com"
allowed_endpoints = ["*.example.com"]
"#
        );
        let gateway = Arc::new(Gateway::new(&config::parse(&text).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router::public(Arc::clone(&gateway))).into_future());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
        let client = client.build().unwrap();
        Self { apns, apns_by_certificate, fcm, web, gateway, url, client, _files: files }
    }

    /// Calls with this text.
    pub async fn post(&self, body: impl Into<String>) -> Answer {
        let request = self.client.post(format!("{}/_matrix/push/v1/notify", self.url));
        let response = request.body(body.into()).send().await.unwrap();
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after");
        let retry_after = after.map(|after| after.to_str().unwrap().parse().unwrap());
        Answer { status, retry_after, body: response.json().await.unwrap_or_default() }
    }

    /// A message for these devices.
    pub async fn notify(&self, event: &str, devices: &[Value]) -> Answer {
        let body = json!({ "notification": {
            "event_id": event, "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
            "sender_display_name": "Ann", "room_name": "Kitchen", "prio": "high",
            "content": { "msgtype": "m.text", "body": "Tea?" },
            "counts": { "unread": 2 }, "devices": devices,
        } });
        self.post(body.to_string()).await
    }

    pub fn browser_at(&self, browser: &Browser, endpoint: &str) -> Value {
        json!({
            "app_id": "web", "pushkey": browser.pushkey(),
            "data": { "endpoint": endpoint, "auth": browser.auth(), "only_last_per_room": true },
        })
    }

    pub fn browser(&self, browser: &Browser) -> Value {
        self.browser_at(browser, &self.web.endpoint("inbox"))
    }
}

/// A device of Apple's: its number in all digits.
pub fn token(digit: char) -> String {
    digit.to_string().repeat(64)
}

pub fn device(app_id: &str, pushkey: &str) -> Value {
    json!({ "app_id": app_id, "pushkey": pushkey, "data": {}, "tweaks": { "sound": "bing" } })
}

/// Waits for something that happens after a call was answered.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it never came true: {what}");
}
