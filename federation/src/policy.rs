//! Policy servers: asking one to vouch for an event, and checking that it did (spec: Server-Server
//! API, Policy Servers).

use std::time::Duration;

use millrace_model::pdu::{InvalidPdu, Pdu};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    api::federation::policy::sign_event::v1 as sign_event,
    events::room::policy::{POLICY_SERVER_ED25519_SIGNING_KEY_ID, RoomPolicyEventContent},
    room_version_rules::RoomVersionRules,
    signatures,
};
use serde_json::value::RawValue;

use crate::{Federation, peers::PeerError, transport::ExchangeLimits};

/// Bounds on asking: whoever sends an event waits for it.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(10), answer_bytes_max: 64 * 1024 };

/// Why a policy server does not vouch for an event.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It refuses, or cannot be asked.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// It answered without a signature of its own that holds.
    #[error("the policy server did not sign with the room's policy key")]
    Unsigned,
    /// The event cannot be read.
    #[error("the event cannot be signed: {0}")]
    Json(#[from] serde_json::Error),
    /// With the signature it is no event any more.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
}

impl Federation {
    /// The event with the signature of the room's policy server: as it is where it bears one that
    /// holds (or is the policy itself), else with one that the policy server is asked for. `policy`
    /// is the content of the current `m.room.policy`; the caller has made sure that `via` has a user
    /// in the room.
    ///
    /// # Errors
    /// Where the policy server does not vouch for it: then it is not to be sent, or is soft-failed.
    pub async fn vouched(
        &self,
        policy: &RoomPolicyEventContent,
        pdu: Pdu,
        rules: &RoomVersionRules,
    ) -> Result<Pdu, PolicyError> {
        let mut object = pdu.to_canonical()?;
        if signatures::verify_policy_server_signature(policy, &object, rules).is_ok() {
            return Ok(pdu);
        }
        let raw = RawValue::from_string(pdu.json().to_string())?;
        let request = sign_event::Request::new(raw);
        let answer = self.peers.insisting().ask_within(&policy.via, request, LIMITS).await?;
        let signature = answer.ed25519_signature(&policy.via).ok_or(PolicyError::Unsigned)?;
        add_signature(&mut object, policy.via.as_str(), signature);
        signatures::verify_policy_server_signature(policy, &object, rules)
            .map_err(|_| PolicyError::Unsigned)?;
        let rejected = pdu.rejected;
        let mut vouched = Pdu::from_canonical(&object, rules)?;
        vouched.rejected = rejected;
        Ok(vouched)
    }
}

/// Adds the policy server's signature to those that the event bears, also of the same server.
fn add_signature(object: &mut CanonicalJsonObject, server: &str, signature: &str) {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    let all = object.entry("signatures".to_owned()).or_insert_with(empty);
    let CanonicalJsonValue::Object(all) = all else { return };
    let CanonicalJsonValue::Object(of_server) = all.entry(server.to_owned()).or_insert_with(empty)
    else {
        return;
    };
    let id = POLICY_SERVER_ED25519_SIGNING_KEY_ID.to_owned();
    of_server.insert(id, CanonicalJsonValue::String(signature.to_owned()));
}

#[cfg(test)]
mod tests {
    use millrace_model::rules::{room_version, signing_key::ServerSigningKey};
    use ruma::{RoomVersionId, owned_server_name, serde::Base64};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Settings,
        testing::{World, key},
    };

    fn rules() -> &'static RoomVersionRules {
        room_version::rules(&RoomVersionId::V11).unwrap()
    }

    fn event(kind: &str, signatures: Value) -> Pdu {
        let event = json!({
            "type": kind, "state_key": "", "room_id": "!r:one", "sender": "@a:policy", "depth": 3,
            "origin_server_ts": 5, "content": { "body": "hello" }, "prev_events": ["$p"],
            "auth_events": ["$a"], "hashes": { "sha256": "x" }, "signatures": signatures,
        });
        Pdu::parse(&event.to_string(), rules()).unwrap()
    }

    /// What a policy server answers that signs with `key`.
    fn answer(request: &http::Request<bytes::Bytes>, key: &ServerSigningKey) -> Value {
        let mut event: CanonicalJsonObject = serde_json::from_slice(request.body()).unwrap();
        event.remove("signatures");
        signatures::sign_event("policy", key, &mut event, &rules().redaction).unwrap();
        let event = serde_json::to_value(event).unwrap();
        let id = POLICY_SERVER_ED25519_SIGNING_KEY_ID;
        json!({ "policy": { id: event["signatures"]["policy"][id] } })
    }

    fn policy_key(of: u8) -> ServerSigningKey {
        ServerSigningKey::new("policy_server", &[of; 32]).unwrap()
    }

    fn policy() -> RoomPolicyEventContent {
        let key = Base64::new(policy_key(1).public_bytes().to_vec());
        RoomPolicyEventContent::new(owned_server_name!("policy"), key)
    }

    #[tokio::test]
    async fn an_event_is_vouched_for_once_and_keeps_its_other_signatures() {
        let world = World::new(Settings::default()).await;
        world.peers.answer("policy", |request| answer(request, &policy_key(1)));
        let before = json!({ "policy": { key("policy").key_id().as_str(): "sig" } });
        let event = event("m.room.name", before);
        let id = event.event_id.clone();
        let vouched = world.federation.vouched(&policy(), event, rules()).await.unwrap();
        assert!(vouched.event_id == id && vouched.json().contains(r#""ed25519:k":"sig""#));
        world.federation.vouched(&policy(), vouched, rules()).await.unwrap();
        assert_eq!(world.peers.asked("policy"), 1);
    }

    #[tokio::test]
    async fn another_key_a_refusal_and_silence_do_not_vouch_and_the_policy_needs_none() {
        let world = World::new(Settings::default()).await;
        let vouched = async |kind: &str| {
            world.federation.vouched(&policy(), event(kind, json!({})), rules()).await
        };
        assert!(matches!(vouched("m.room.name").await, Err(PolicyError::Peer(_))));
        world.peers.answer("policy", |request| answer(request, &policy_key(2)));
        assert!(matches!(vouched("m.room.name").await, Err(PolicyError::Unsigned)));
        world.peers.answer("policy", |_| json!({}));
        assert!(matches!(vouched("m.room.name").await, Err(PolicyError::Unsigned)));
        let asked = world.peers.asked("policy");
        vouched("m.room.policy").await.unwrap();
        assert_eq!(world.peers.asked("policy"), asked);
    }
}
