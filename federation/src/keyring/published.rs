//! What a server publishes of its keys, checked, and how it adds to what was known.

use std::{collections::BTreeMap, time::Duration};

use millrace_model::json;
use millrace_store::rows::federation::{ServerKey, ServerKeys};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedServerName,
    OwnedServerSigningKeyId, ServerName, SigningKeyAlgorithm,
    serde::Base64,
    signatures::{self, PublicKeyMap, PublicKeySet},
};
use serde::Deserialize;

use crate::time::later;

/// Largest JSON that a server may publish its keys in, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Most keys of one server that are taken; it may have more in its past than anybody needs.
const KEYS_MAX: usize = 64;
/// How long keys are believed at most without asking again (spec: `valid_until_ts`).
const BELIEVED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Who said what a server's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The server itself.
    Server,
    /// Another one, which is asked for the keys of others.
    Notary,
}

/// The keys of a server as it signed them.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub server: OwnedServerName,
    valid_until: MilliSecondsSinceUnixEpoch,
    keys: BTreeMap<OwnedServerSigningKeyId, ServerKey>,
    /// Canonical JSON with the signatures of the server alone.
    pub text: String,
}

#[derive(Deserialize)]
struct Wire {
    server_name: OwnedServerName,
    verify_keys: BTreeMap<String, WireKey>,
    #[serde(default)]
    old_verify_keys: BTreeMap<String, WireKey>,
    valid_until_ts: MilliSecondsSinceUnixEpoch,
}

#[derive(Deserialize)]
struct WireKey {
    key: Base64,
    expired_ts: Option<MilliSecondsSinceUnixEpoch>,
}

impl Published {
    /// Checks that what is said to be a server's keys names it and is signed with at least one of
    /// its present keys; keys of unknown kinds are left out. At `now`, nothing is believed for longer
    /// than 7 days.
    pub(super) fn read(
        text: &str,
        server: &ServerName,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("they are {} bytes long", text.len()));
        }
        let mut object = json::canonical_object(text).map_err(|error| error.to_string())?;
        let wire: Wire = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if wire.server_name != server {
            return Err(format!("they are those of {}", wire.server_name));
        }
        if !keep_signatures_of(server, &mut object) {
            return Err("it has not signed them".to_owned());
        }
        let present: PublicKeySet =
            ed25519(wire.verify_keys).map(|(id, wire)| (id.to_string(), wire.key)).collect();
        let ours: PublicKeyMap = [(server.to_string(), present.clone())].into();
        signatures::verify_json(&ours, &object).map_err(|error| error.to_string())?;
        let valid_until = wire.valid_until_ts.min(later(now, BELIEVED_MAX));
        let present = present.into_iter().filter_map(|(id, key)| {
            let id = OwnedServerSigningKeyId::try_from(id).ok()?;
            Some((id, ServerKey { key, until: valid_until }))
        });
        let old = ed25519(wire.old_verify_keys).filter_map(|(id, wire)| {
            Some((id, ServerKey { key: wire.key, until: wire.expired_ts?.min(now) }))
        });
        let keys = old.take(KEYS_MAX).chain(present.take(KEYS_MAX)).collect();
        let text = serde_json::to_string(&object).map_err(|error| error.to_string())?;
        Ok(Self { server: server.to_owned(), valid_until, keys, text })
    }

    /// What is known once this is, too. The server's own word goes above everything; a notary's may
    /// be old: it cannot change a key, and where it says less than is known it only adds.
    pub(super) fn added_to(
        &self,
        known: Option<&ServerKeys>,
        source: Source,
        now: MilliSecondsSinceUnixEpoch,
    ) -> ServerKeys {
        let (fetched, valid_until, keys) = (now, self.valid_until, self.keys.clone());
        let mut sum = ServerKeys { fetched, valid_until, keys };
        let Some(known) = known else { return sum };
        let newer = source == Source::Server || self.valid_until >= known.valid_until;
        sum.valid_until = if newer { self.valid_until } else { known.valid_until };
        for (id, old) in &known.keys {
            match sum.keys.get(id) {
                Some(new) if newer && (source == Source::Server || new.key == old.key) => {}
                None if sum.keys.len() >= 2 * KEYS_MAX => {}
                _ => {
                    sum.keys.insert(id.clone(), old.clone());
                }
            }
        }
        sum
    }
}

/// Drops the signatures of others. Whether one of `server` is left.
fn keep_signatures_of(server: &ServerName, object: &mut CanonicalJsonObject) -> bool {
    let Some(CanonicalJsonValue::Object(all)) = object.get_mut("signatures") else { return false };
    all.retain(|signer, _| signer == server.as_str());
    !all.is_empty()
}

fn ed25519(
    keys: BTreeMap<String, WireKey>,
) -> impl Iterator<Item = (OwnedServerSigningKeyId, WireKey)> {
    keys.into_iter().filter_map(|(id, key)| {
        let id = OwnedServerSigningKeyId::try_from(id).ok()?;
        (id.algorithm() == SigningKeyAlgorithm::Ed25519).then_some((id, key))
    })
}
