//! Telling keys: ours, and as a notary those of others, with our signature below theirs (spec:
//! Server-Server API, Publishing Keys; Querying Keys Through Another Server).

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use millrace_store::{Node, Read, tables::SERVER_KEYS_PUBLISHED};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId,
    api::federation::discovery::{OldVerifyKey, ServerSigningKeys, VerifyKey},
    serde::{Base64, Raw},
    signatures,
};

use super::{FETCHES_AT_ONCE, Keyring, WantedKeys};
use crate::time::later;

/// How long others may use our keys before they ask again. The specification bounds it to 7 days.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);
/// Servers whose keys one question may be about; the rest of a longer one is not answered.
const SERVERS_MAX: usize = 1000;
/// Servers that are asked for one question; of further ones what is known is told.
const FETCHES_MAX: usize = 100;

/// Why keys cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// They cannot be read.
    #[error("keys cannot be read: {0}")]
    Store(#[from] millrace_store::Error),
    /// They are not in a form that can be signed.
    #[error("keys cannot be signed: {0}")]
    Json(#[from] serde_json::Error),
    /// They cannot be signed.
    #[error("keys cannot be signed: {0}")]
    Sign(#[from] signatures::JsonError),
    /// Our key has an ID that cannot be published.
    #[error("the signing key has an unusable ID")]
    KeyId,
}

impl Keyring {
    /// Our keys, signed, the old ones too.
    ///
    /// # Errors
    /// Where they cannot be signed.
    pub fn ours(&self) -> Result<Raw<ServerSigningKeys>, TellError> {
        let identity = &self.0.env.identity;
        let now = self.0.env.now();
        let current = OwnedServerSigningKeyId::try_from(identity.key.key_id().as_str())
            .map_err(|_| TellError::KeyId)?;
        let mut keys = ServerSigningKeys::new(identity.name.clone(), later(now, VALID_FOR));
        for (id, old) in self.0.ours.keys.iter().filter(|(id, _)| **id != current) {
            keys.old_verify_keys.insert(id.clone(), OldVerifyKey::new(old.until, old.key.clone()));
        }
        let key = Base64::new(identity.key.public_bytes().to_vec());
        keys.verify_keys.insert(current, VerifyKey::new(key));
        self.signed(serde_json::from_value(serde_json::to_value(&keys)?)?)
    }

    /// The keys of servers, each to be valid at least until a moment, as they published them, with
    /// our signature. Who does not answer and is not known is left out; what is known of one that
    /// does not answer is told although it is old.
    ///
    /// # Errors
    /// Where keys cannot be read or signed.
    pub async fn tell(
        &self,
        wanted: BTreeMap<OwnedServerName, MilliSecondsSinceUnixEpoch>,
    ) -> Result<Vec<Raw<ServerSigningKeys>>, TellError> {
        let wanted: Vec<_> = wanted.into_iter().take(SERVERS_MAX).collect();
        self.fetch_old(&wanted).await;
        let mut told = Vec::with_capacity(wanted.len());
        let servers: Vec<_> = wanted.into_iter().map(|(server, _)| server).collect();
        if servers.contains(&self.0.env.identity.name) {
            told.push(self.ours()?);
        }
        let snapshot = self.0.env.store.snapshot();
        let texts = snapshot.get_many(&SERVER_KEYS_PUBLISHED, Node, &servers).await?;
        for text in texts.into_iter().flatten() {
            told.push(self.signed(serde_json::from_str(&text)?)?);
        }
        Ok(told)
    }

    /// Asks those servers whose keys are not known or not valid for as long as is wanted.
    async fn fetch_old(&self, wanted: &[(OwnedServerName, MilliSecondsSinceUnixEpoch)]) {
        let mut all = WantedKeys::default();
        for (server, _) in wanted {
            all.0.insert(server.clone(), BTreeMap::new());
        }
        let known = self.kept(&all).await;
        let lacking = wanted.iter().filter(|(server, until)| {
            *server != self.0.env.identity.name
                && known.0.get(server).is_none_or(|known| known.valid_until < *until)
        });
        let fetches = lacking.take(FETCHES_MAX).map(|(server, _)| {
            let known = known.0.get(server).cloned();
            async move { self.0.fetcher.fetch(server, known.as_deref()).await }
        });
        let fetches: Vec<_> = fetches.collect();
        futures::stream::iter(fetches)
            .buffer_unordered(FETCHES_AT_ONCE)
            .for_each(|_| std::future::ready(()))
            .await;
    }

    /// Adds our signature.
    fn signed(&self, mut object: CanonicalJsonObject) -> Result<Raw<ServerSigningKeys>, TellError> {
        let identity = &self.0.env.identity;
        identity.key.sign_json(&identity.name, &mut object)?;
        Ok(Raw::from_json(serde_json::value::to_raw_value(&object)?))
    }
}
