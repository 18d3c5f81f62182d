//! Invitations of whoever has an address (spec: Client-Server API, Third-party invites): the room
//! keeps the keys that will say who that is, in `m.room.third_party_invite`.

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    tables::{CURRENT_STATE, ROOM_HEAD},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, UserId,
    events::TimelineEventType,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};
use serde::Deserialize;

use super::{Draft, Numbers, ReadError, RoomTx, Rooms, membership::MembershipError};

/// The type of the state.
const KIND: &str = "m.room.third_party_invite";
/// Keys of one invitation that are looked at.
const KEYS_MAX: usize = 10;
/// Signatures of one statement that are looked at.
const SIGNATURES_MAX: usize = 10;

/// A key of an identity server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InviteKey {
    /// The key in base64.
    pub public_key: String,
    /// Where to ask whether it is still good, if anywhere.
    pub key_validity_url: Option<String>,
}

/// An invitation that waits for whoever has the address.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Who invites.
    pub sender: OwnedUserId,
    /// The address as everybody may see it.
    pub display_name: String,
    /// The keys, one of which has to have signed who it is.
    pub keys: Vec<InviteKey>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    display_name: String,
    public_key: Option<String>,
    key_validity_url: Option<String>,
    #[serde(default)]
    public_keys: Vec<InviteKey>,
}

/// What an identity server signed: who has the address of an invitation.
#[derive(Debug, Clone)]
pub struct SignedInvite {
    /// Who it is.
    pub user: OwnedUserId,
    /// Which invitation.
    pub token: String,
    object: CanonicalJsonObject,
}

impl SignedInvite {
    /// Reads a statement; its signatures are not checked yet.
    #[must_use]
    pub fn parse(object: CanonicalJsonObject) -> Option<Self> {
        let text = |field: &str| object.get(field).and_then(CanonicalJsonValue::as_str);
        let user = UserId::parse(text("mxid")?).ok()?;
        let token = text("token")?.to_owned();
        Some(Self { user, token, object })
    }

    /// The key that signed the statement, of those of the invitation.
    #[must_use]
    pub fn signed_by<'a>(&self, keys: &'a [InviteKey]) -> Option<&'a InviteKey> {
        let mut signed = self.object.clone();
        let signatures = signed.remove("signatures")?;
        signed.remove("unsigned");
        let text = serde_json::to_vec(&CanonicalJsonValue::Object(signed)).ok()?;
        let by_server = signatures.as_object()?.values().filter_map(CanonicalJsonValue::as_object);
        let all: Vec<(&String, Base64<Standard>)> = by_server
            .flatten()
            .filter_map(|(id, value)| Some((id, Base64::parse(value.as_str()?).ok()?)))
            .filter(|(id, _)| id.starts_with("ed25519:"))
            .take(SIGNATURES_MAX)
            .collect();
        keys.iter().take(KEYS_MAX).find(|key| {
            let Some(public) = decode(&key.public_key) else { return false };
            all.iter().any(|(_, signature)| {
                let (algorithm, bytes) = (&"ed25519".into(), signature.as_bytes());
                verify_canonical_json_bytes(algorithm, &public, bytes, &text).is_ok()
            })
        })
    }

    /// The content of the invitation that comes of it.
    #[must_use]
    pub fn content(&self, pending: &Pending) -> CanonicalJsonObject {
        let mut third_party = CanonicalJsonObject::new();
        third_party.insert("display_name".to_owned(), pending.display_name.as_str().into());
        let signed = CanonicalJsonValue::Object(self.object.clone());
        third_party.insert("signed".to_owned(), signed);
        let mut content = CanonicalJsonObject::new();
        content.insert("membership".to_owned(), "invite".into());
        let third_party = CanonicalJsonValue::Object(third_party);
        content.insert("third_party_invite".to_owned(), third_party);
        content
    }
}

/// A key in either form of base64.
fn decode(key: &str) -> Option<Vec<u8>> {
    let standard = Base64::<Standard>::parse(key).ok().map(|key| key.as_bytes().to_vec());
    standard.or_else(|| {
        let url_safe = Base64::<ruma::serde::base64::UrlSafe>::parse(key).ok()?;
        Some(url_safe.as_bytes().to_vec())
    })
}

/// Checks that `sender` may invite by address now, before an identity server sends anything.
///
/// # Errors
/// Where the room does not allow it.
pub async fn check_may_invite(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
) -> Result<(), MembershipError> {
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let room = room.ok_or_else(|| MembershipError::UnknownRoom(room_id.to_owned()))?;
            let kind = TimelineEventType::RoomThirdPartyInvite;
            room.make(Draft::state(sender, kind, "?", CanonicalJsonObject::new())).await?;
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact_in(room_id, body).await
}

/// The invitation of this token that waits in a room, if there is one.
///
/// # Errors
/// Where the room cannot be read.
pub async fn pending(
    rooms: &Rooms,
    room: &RoomId,
    token: &str,
) -> Result<Option<Pending>, ReadError> {
    let read = rooms.env.store.snapshot();
    let Some(number) = read.get(&CURRENT_STATE, room, (KIND, token)).await? else {
        return Ok(None);
    };
    let head = read.get(&ROOM_HEAD, room, ()).await?;
    let Some(head) = head else { return Ok(None) };
    let event = rooms.events.load_one(&read, room, &head.version, number).await;
    let event = event.map_err(ReadError::from)?;
    // What is no invitation, or was taken back, has no keys.
    let Ok(content) = event.pdu.content_as::<Content>() else { return Ok(None) };
    let Content { display_name, public_key, key_validity_url, public_keys } = content;
    let first = public_key.map(|public_key| InviteKey { public_key, key_validity_url });
    let keys: Vec<InviteKey> = public_keys.into_iter().chain(first).take(KEYS_MAX).collect();
    let sender = event.pdu.sender.clone();
    Ok((!keys.is_empty()).then_some(Pending { sender, display_name, keys }))
}
