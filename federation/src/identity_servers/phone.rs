//! Text messages, which a configured identity server sends for us (spec: Identity Service API, Phone
//! number associations).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{IdentityError, IdentityServers};

/// What a message is to be sent for.
#[derive(Debug, Clone, Copy)]
pub struct PhoneRequest<'a> {
    /// The client's secret.
    pub client_secret: &'a str,
    /// The country, as two letters.
    pub country: &'a str,
    /// The number as it is dialled there.
    pub phone_number: &'a str,
    /// A number that the client raises to have another message sent.
    pub send_attempt: u64,
}

/// The identity server's session.
#[derive(Debug, Clone, Deserialize)]
pub struct PhoneSession {
    /// Its name.
    pub sid: String,
}

#[derive(Deserialize)]
struct Submitted {
    success: bool,
}

impl IdentityServers {
    /// Has a word sent to a phone number.
    ///
    /// # Errors
    /// Where no identity server is configured for it, or it refuses.
    pub async fn send_message(
        &self,
        request: &PhoneRequest<'_>,
    ) -> Result<PhoneSession, IdentityError> {
        let body = json!({
            "client_secret": request.client_secret,
            "country": request.country,
            "phone_number": request.phone_number,
            "send_attempt": request.send_attempt,
        });
        self.ask_phones("requestToken", &body).await
    }

    /// Passes on the word that came back; whether it is the right one.
    ///
    /// # Errors
    /// Where no identity server is configured for it, or it cannot be asked.
    pub async fn submit_message(
        &self,
        (sid, client_secret): (&str, &str),
        token: &str,
    ) -> Result<bool, IdentityError> {
        let body = json!({ "sid": sid, "client_secret": client_secret, "token": token });
        match self.ask_phones::<Submitted>("submitToken", &body).await {
            Ok(submitted) => Ok(submitted.success),
            Err(IdentityError::Refused { status, .. }) if status.is_client_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn ask_phones<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        body: &Value,
    ) -> Result<T, IdentityError> {
        let phones = self.settings.phones.as_ref();
        let (url, token) = phones.ok_or(IdentityError::NotConfigured)?;
        let url = url.trim_end_matches('/');
        let url = format!("{url}/_matrix/identity/v2/validate/msisdn/{what}");
        self.ask_at(&url, token.as_deref(), body).await
    }
}
