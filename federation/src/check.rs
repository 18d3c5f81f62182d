//! Checking what other servers send: form, limits, signatures and hash of events (spec:
//! Server-Server API, Checks performed on receipt of a PDU, steps 1 to 3; Validating hashes and
//! signatures on received events).

use std::{collections::BTreeSet, sync::Arc};

use millrace_model::{
    json::{self, NotCanonical},
    pdu::{InvalidPdu, Pdu},
    rules::{
        build::{AUTH_EVENTS_MAX, EVENT_BYTES_MAX, FIELD_BYTES_MAX, PREV_EVENTS_MAX},
        redaction, room_version,
    },
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId,
    RoomVersionId, SigningKeyAlgorithm, UInt,
    canonical_json::RedactingSerializer,
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
    serde::{Base64, base64::Standard},
    signatures,
};
use serde_json::value::RawValue;

use crate::{
    Federation,
    cores::on_all_cores,
    keyring::{KeySet, WantedKeys},
};

/// Longest text of an event that is parsed at all: canonical JSON is shorter than what some send.
const TEXT_BYTES_MAX: usize = 4 * EVENT_BYTES_MAX;
/// Signatures of one server that are looked at on one event.
const SIGNATURES_MAX: usize = 10;
/// Events that lie in memory parsed at once, with all their fields.
const PARSED_AT_ONCE: usize = 4096;
/// What is signed leaves these out.
const UNSIGNED_FIELDS: &[&str] = &["signatures", "unsigned"];

/// Why an event of another server is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody here knows the rules of the room's version.
    #[error("room version {0} is not supported")]
    RoomVersion(RoomVersionId),
    /// It has no canonical form: not JSON, too deep, or with numbers that are none.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// It is no event of the room's version.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
    /// The whole of it or one field is larger than the specification allows.
    #[error("{field} is {bytes} bytes long; at most {bytes_max} are allowed")]
    TooLarge {
        /// The field, or `event` for the whole.
        field: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
    /// It has more predecessors or auth events than an event can have.
    #[error("{count} {field}; at most {count_max} are allowed")]
    TooManyReferences {
        /// `prev_events` or `auth_events`.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// A server that must sign it has not.
    #[error("it is not signed by {0}")]
    Unsigned(OwnedServerName),
    /// None of the keys with which a server signed it can be had, or was valid then.
    #[error("no valid key of {0} that signed it can be had")]
    NoKey(OwnedServerName),
    /// A signature is wrong.
    #[error("the signature {key} of {server} does not hold")]
    Signature {
        /// The server that is said to have signed.
        server: OwnedServerName,
        /// The key.
        key: OwnedServerSigningKeyId,
    },
    /// It cannot be hashed or redacted.
    #[error("it cannot be hashed: {0}")]
    Hash(#[from] signatures::JsonError),
}

impl Refusal {
    /// Whether the same event may be taken later: only a key was missing.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoKey(_))
    }
}

impl Federation {
    /// Checks events of a room of `version` as others sent them: form and limits, the signatures of
    /// the servers that must sign, and the content hash; where the hash differs, what is left of a
    /// redacted event is taken in its place. `unsigned` is dropped: it is nobody's word. The results
    /// are in the order of the events. Keys are fetched once for all, and all cores verify.
    ///
    /// Not checked: that an event belongs to the room or is the one that was asked for, and all
    /// rules of rooms. Refusals are logged here, in one line.
    pub async fn check_pdus(
        &self,
        version: &RoomVersionId,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Result<Pdu, Refusal>> {
        let Some(rules) = room_version::rules(version) else {
            return pdus.iter().map(|_| Err(Refusal::RoomVersion(version.clone()))).collect();
        };
        if pdus.len() > PARSED_AT_ONCE {
            return self.check_many(rules, pdus).await;
        }
        let mut wanted = WantedKeys::default();
        let read = on_all_cores(pdus, move |raw| read(&raw, rules)).await;
        for candidate in read.iter().flatten() {
            candidate.want_keys(&mut wanted, rules);
        }
        let keys = self.keyring.keys(&wanted).await;
        let checked = on_all_cores(read, move |candidate| candidate?.verify(&keys, rules)).await;
        log_refusals(&checked);
        checked
    }

    /// Events in such numbers that they are parsed twice, to ask for all their keys at once and yet
    /// never have all of them in memory as they are parsed.
    async fn check_many(
        &self,
        rules: &'static RoomVersionRules,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Result<Pdu, Refusal>> {
        let mut wanted = WantedKeys::default();
        for chunk in pdus.chunks(PARSED_AT_ONCE) {
            let read = on_all_cores(chunk.to_vec(), move |raw| read(&raw, rules)).await;
            for candidate in read.iter().flatten() {
                candidate.want_keys(&mut wanted, rules);
            }
        }
        let keys = Arc::new(self.keyring.keys(&wanted).await);
        let mut all = Vec::with_capacity(pdus.len());
        let mut pdus = pdus.into_iter();
        while pdus.len() > 0 {
            let chunk: Vec<_> = pdus.by_ref().take(PARSED_AT_ONCE).collect();
            let keys = Arc::clone(&keys);
            let check = move |raw: Box<RawValue>| read(&raw, rules)?.verify(&keys, rules);
            all.extend(on_all_cores(chunk, check).await);
        }
        log_refusals(&all);
        all
    }
}

/// An event whose form is right.
struct Candidate {
    pdu: Pdu,
    object: CanonicalJsonObject,
    /// The servers that must have signed, and what they signed with.
    signatures: Vec<(OwnedServerName, Vec<(OwnedServerSigningKeyId, String)>)>,
}

impl Candidate {
    fn want_keys(&self, wanted: &mut WantedKeys, rules: &RoomVersionRules) {
        let whenever = MilliSecondsSinceUnixEpoch(UInt::MIN);
        let enforced = rules.enforce_key_validity;
        let at = if enforced { self.pdu.origin_server_ts } else { whenever };
        for (server, signatures) in &self.signatures {
            for (key, _) in signatures {
                wanted.add(server, key, at);
            }
        }
    }

    /// Checks signatures and hash.
    fn verify(self, keys: &KeySet, rules: &RoomVersionRules) -> Result<Pdu, Refusal> {
        let signed = RedactingSerializer::new()
            .rules(&rules.redaction)
            .custom_redacted_root_fields(UNSIGNED_FIELDS)
            .serialize(&self.object)
            .map_err(signatures::JsonError::from)?;
        for (server, signatures) in &self.signatures {
            let mut held = false;
            for (id, signature) in signatures {
                let Some(key) = keys.find(server, id) else { continue };
                if rules.enforce_key_validity && key.until < self.pdu.origin_server_ts {
                    continue;
                }
                if !holds(&key.key, signature, &signed) {
                    return Err(Refusal::Signature { server: server.clone(), key: id.clone() });
                }
                held = true;
            }
            if !held {
                return Err(Refusal::NoKey(server.clone()));
            }
        }
        if hash_matches(&self.object)? {
            return Ok(self.pdu);
        }
        Ok(redaction::redacted(&self.pdu, rules)?)
    }
}

/// Whether a signature, in base64, is that of `key` on `signed`.
fn holds(key: &Base64, signature: &str, signed: &str) -> bool {
    let Ok(signature) = Base64::<Standard>::parse(signature) else { return false };
    let algorithm = SigningKeyAlgorithm::Ed25519;
    signatures::verify_canonical_json_bytes(
        &algorithm,
        key.as_bytes(),
        signature.as_bytes(),
        signed.as_bytes(),
    )
    .is_ok()
}

fn hash_matches(object: &CanonicalJsonObject) -> Result<bool, Refusal> {
    let given = object
        .get("hashes")
        .and_then(|hashes| hashes.as_object()?.get("sha256")?.as_str())
        .and_then(|hash| Base64::<Standard>::parse(hash).ok());
    let actual = signatures::content_hash(object)?;
    Ok(given.is_some_and(|given| given.as_bytes() == actual.as_bytes()))
}

/// Checks form and limits alone, and that who must sign says so.
///
/// # Errors
/// Where an event is not taken, whoever signed it.
pub fn check_form(raw: &RawValue, rules: &RoomVersionRules) -> Result<Pdu, Refusal> {
    read(raw, rules).map(|candidate| candidate.pdu)
}

/// Checks form and limits.
fn read(raw: &RawValue, rules: &RoomVersionRules) -> Result<Candidate, Refusal> {
    bounded("event", raw.get().len(), TEXT_BYTES_MAX)?;
    let mut object = json::canonical_object(raw.get())?;
    object.remove("unsigned");
    let pdu = Pdu::from_canonical(&object, rules)?;
    bounded("event", pdu.json().len(), EVENT_BYTES_MAX)?;
    let counts_bytes = room_version::counts_bytes(rules);
    let length = |text: &str| if counts_bytes { text.len() } else { text.chars().count() };
    for (field, bytes) in [
        ("type", length(&pdu.kind.to_string())),
        ("state_key", pdu.state_key.as_deref().map_or(0, length)),
        ("sender", pdu.sender.as_str().len()),
        ("room_id", pdu.room_id.as_str().len()),
        ("event_id", pdu.event_id.as_str().len()),
    ] {
        bounded(field, bytes, FIELD_BYTES_MAX)?;
    }
    for (field, count, count_max) in [
        ("prev_events", pdu.prev_events.len(), PREV_EVENTS_MAX),
        ("auth_events", pdu.auth_events.len(), AUTH_EVENTS_MAX),
    ] {
        if count > count_max {
            return Err(Refusal::TooManyReferences { field, count, count_max });
        }
    }
    let signatures = required(&pdu, rules)
        .into_iter()
        .map(|server| {
            let signatures = signatures_of(&server, &object)?;
            Ok((server, signatures))
        })
        .collect::<Result<_, Refusal>>()?;
    Ok(Candidate { pdu, object, signatures })
}

fn bounded(field: &'static str, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    if bytes > bytes_max {
        return Err(Refusal::TooLarge { field, bytes, bytes_max });
    }
    Ok(())
}

/// What an event's content says that changes who must sign it.
#[derive(serde::Deserialize)]
struct MemberContent {
    membership: Option<String>,
    third_party_invite: Option<serde::de::IgnoredAny>,
    join_authorised_via_users_server: Option<ruma::OwnedUserId>,
}

/// The servers whose signatures an event must bear.
fn required(pdu: &Pdu, rules: &RoomVersionRules) -> BTreeSet<OwnedServerName> {
    let mut servers = BTreeSet::new();
    let member = (pdu.kind == TimelineEventType::RoomMember)
        .then(|| pdu.content_as::<MemberContent>().ok())
        .flatten();
    let is = |membership: &str| {
        member.as_ref().is_some_and(|member| member.membership.as_deref() == Some(membership))
    };
    let third_party =
        is("invite") && member.as_ref().is_some_and(|member| member.third_party_invite.is_some());
    if !third_party {
        servers.insert(pdu.sender.server_name().to_owned());
    }
    if rules.signatures.check_event_id_server {
        servers.extend(pdu.event_id.server_name().map(ToOwned::to_owned));
    }
    if rules.signatures.check_join_authorised_via_users_server && is("join") {
        let authority = member.and_then(|member| member.join_authorised_via_users_server);
        servers.extend(authority.map(|user| user.server_name().to_owned()));
    }
    servers
}

/// A server's ed25519 signatures on an event.
fn signatures_of(
    server: &OwnedServerName,
    object: &CanonicalJsonObject,
) -> Result<Vec<(OwnedServerSigningKeyId, String)>, Refusal> {
    let found: Vec<_> = object
        .get("signatures")
        .and_then(|all| all.as_object()?.get(server.as_str())?.as_object())
        .into_iter()
        .flatten()
        .filter_map(|(key, signature)| {
            let key = OwnedServerSigningKeyId::try_from(key.as_str()).ok()?;
            let supported = key.algorithm() == SigningKeyAlgorithm::Ed25519;
            supported.then_some((key, signature.as_str()?.to_owned()))
        })
        .take(SIGNATURES_MAX)
        .collect();
    if found.is_empty() {
        return Err(Refusal::Unsigned(server.clone()));
    }
    Ok(found)
}

fn log_refusals(checked: &[Result<Pdu, Refusal>]) {
    let mut refusals = checked.iter().filter_map(|result| result.as_ref().err());
    if let Some(first) = refusals.next() {
        let refused = 1 + refusals.count();
        tracing::warn!(refused, of = checked.len(), %first, "events of other servers are refused");
    }
}

#[cfg(test)]
mod tests;
