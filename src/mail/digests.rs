//! Mails about what is unread, and the links that end them.

use std::{fmt::Write, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use millrace_domain::Identity;
use millrace_pushers::{DigestMail, MailError, Mails};
use ruma::{UserId, signatures::KeyPair};

use super::{Messages, escape};

/// Where the links lead that end the mails to an address.
pub const UNSUBSCRIBE_PATH: &str = "/_matrix/millrace/email/unsubscribe";

/// Sends mails about unread messages.
pub struct Digests {
    /// The mail server and the texts.
    pub messages: Arc<Messages>,
    /// Whose key vouches for the links.
    pub identity: Arc<Identity>,
}

/// What a link that ends mails says, and the proof that we wrote it: our signature.
#[must_use]
pub fn unsubscribe_proof(
    identity: &Identity,
    user: &UserId,
    app_id: &str,
    address: &str,
) -> String {
    let text = serde_json::json!(["unsubscribe", user, app_id, address]).to_string();
    URL_SAFE_NO_PAD.encode(identity.key.sign(text.as_bytes()).as_bytes())
}

#[async_trait]
impl Mails for Digests {
    async fn send(&self, to: &UserId, mail: DigestMail) -> Result<(), MailError> {
        let proof = unsubscribe_proof(&self.identity, to, &mail.app_id, &mail.address);
        let query: String = form_urlencoded(&[
            ("user", to.as_str()),
            ("app_id", &mail.app_id),
            ("address", &mail.address),
            ("proof", &proof),
        ]);
        let link = self.messages.url(&format!("{UNSUBSCRIBE_PATH}?{query}"));
        let (text, html) = content(&mail);
        let sent = self.messages.digest(&mail.address, (&text, &html), &link).await;
        sent.map_err(|error| MailError(error.to_string()))
    }
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

/// The rooms and messages, as text and as HTML.
fn content(mail: &DigestMail) -> (String, String) {
    let (mut text, mut html) = (String::new(), String::new());
    for room in &mail.rooms {
        let _ = writeln!(text, "{}", room.name);
        let _ = writeln!(html, "<h3>{}</h3>", escape(&room.name));
        if room.more > 0 {
            let _ = writeln!(text, "  ({} more)", room.more);
            let _ = writeln!(html, "<p>({} more)</p>", room.more);
        }
        for (sender, message) in &room.messages {
            let message =
                message.as_deref().unwrap_or("(a message that only your devices can show)");
            let _ = writeln!(text, "  {sender}: {message}");
            let _ = writeln!(html, "<p><b>{}</b>: {}</p>", escape(sender), escape(message));
        }
        text.push('\n');
    }
    (text, html)
}
