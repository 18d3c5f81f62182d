//! What a user's profile puts into member events, and its spreading to the rooms of the user
//! (spec: Client-Server API, Profiles, Events on Change of Profile Information).

use futures::{FutureExt, StreamExt};
use millrace_store::{
    Read, Scan, Tx,
    tables::{PROFILES, USER_ROOMS},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{AppendError, Draft, Numbers, RoomTx, Rooms, policy};

/// The fields of a profile that member events repeat.
const FIELDS: [&str; 2] = ["displayname", "avatar_url"];
/// How many rooms are written to at the same time.
const AT_ONCE: usize = 8;

/// The content of a member event without a profile.
pub(super) fn bare_content(
    membership: MembershipState,
    reason: Option<&str>,
) -> CanonicalJsonObject {
    let mut content = CanonicalJsonObject::new();
    content.insert("membership".to_owned(), membership.as_str().into());
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    content
}

/// Adds the fields of the profile that `content` does not say.
///
/// # Errors
/// Where the store cannot be read.
pub async fn add_profile(
    read: &impl Read,
    user: &UserId,
    content: &mut CanonicalJsonObject,
) -> millrace_store::Result<()> {
    let profile = read.get_many(&PROFILES, user, FIELDS).await?;
    for (field, json) in FIELDS.into_iter().zip(profile) {
        if let Some(value) = json.and_then(|json| text(&json)) {
            content.entry(field.to_owned()).or_insert(value);
        }
    }
    Ok(())
}

/// A profile's value, where it is a text: others do not belong into member events.
fn text(json: &str) -> Option<CanonicalJsonValue> {
    serde_json::from_str::<String>(json).ok().map(CanonicalJsonValue::String)
}

/// Puts the profile of `user`, as it is now, into the member events of all joined rooms. A room that
/// refuses is skipped: the profile itself has been changed already.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn spread_profile(rooms: &Rooms, user: &UserId) -> millrace_store::Result<()> {
    let snapshot = rooms.env.store.snapshot();
    let joined = snapshot
        .scan(&USER_ROOMS, user, Scan::all())
        .await?
        .into_iter()
        .filter(|(_, row)| row.membership == MembershipState::Join)
        .map(|(room, _)| room);
    let spread = |room: OwnedRoomId| async move { spread_to(rooms, user, &room).await };
    let mut results = futures::stream::iter(joined).map(spread).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Err(AppendError::Store(error)) => return Err(error),
            Err(error) => tracing::warn!(%user, %error, "a room does not take a new profile"),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn spread_to(rooms: &Rooms, user: &UserId, room_id: &RoomId) -> Result<(), AppendError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let Some(mut room) = RoomTx::open(&tx, rooms, room_id, numbers).await? else {
                return Ok(());
            };
            let Some(member) = room.state_event("m.room.member", user.as_str()).await? else {
                return Ok(());
            };
            let Ok(old) = member.pdu.content_as::<CanonicalJsonObject>() else { return Ok(()) };
            if old.get("membership").and_then(|value| value.as_str()) != Some("join") {
                return Ok(());
            }
            let mut content = old.clone();
            // What was said about the joining itself is not true of this change.
            for gone in
                FIELDS.into_iter().chain(["join_authorised_via_users_server", "third_party_invite"])
            {
                content.remove(gone);
            }
            add_profile(&tx, user, &mut content).await?;
            if FIELDS.iter().all(|field| content.get(*field) == old.get(*field)) {
                return Ok(());
            }
            let kind = TimelineEventType::RoomMember;
            room.append(Draft::state(user, kind, user.as_str(), content)).await?;
            room.finish();
            Ok(())
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}
