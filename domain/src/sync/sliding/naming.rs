//! By what a client names a room and draws it in a list.

use millrace_store::{
    Read,
    state_tree::{Difference, StateRoot},
    tables::MEMBERS,
};
use ruma::OwnedUserId;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    json::Object,
    rooms::RoomView,
    sync::{Step, SyncError, heroes},
};

const NAME: &str = "m.room.name";
const AVATAR: &str = "m.room.avatar";
const MEMBER: &str = "m.room.member";

#[derive(Deserialize)]
struct NameContent {
    name: Option<String>,
}

#[derive(Deserialize)]
struct AvatarContent {
    url: Option<String>,
}

#[derive(Deserialize)]
struct MemberContent {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

/// Adds what `changes` of the state are about; all where there are none to compare with. Who is in the
/// room now is only told to whom is in it, too.
pub(super) async fn put(
    step: &Step<'_>,
    view: &RoomView<'_>,
    (root, changes): (StateRoot, Option<&[Difference]>),
    is_joined: bool,
    object: &mut Object<'_>,
) -> Result<(), SyncError> {
    let concerns = |kind: &str| {
        changes.is_none_or(|all| all.iter().any(|change| change.key.event_type == kind))
    };
    let (named, drawn) = (concerns(NAME), concerns(AVATAR));
    let peopled = is_joined && concerns(MEMBER);
    if !named && !drawn && !peopled {
        return Ok(());
    }
    let states = &step.syncs.rooms.states;
    let places = [(NAME, ""), (AVATAR, "")];
    let numbers = states.get_many(view.snapshot, view.room_id, root, &places).await?;
    let name = content::<NameContent>(view, numbers[0]).await?;
    let name = name.and_then(|content| content.name).filter(|name| !name.is_empty());
    let whole = changes.is_none();
    if named && (name.is_some() || !whole) {
        object.put("name", &name);
    }
    if drawn {
        let avatar = content::<AvatarContent>(view, numbers[1]).await?;
        let avatar = avatar.and_then(|content| content.url);
        if avatar.is_some() || !whole {
            object.put("avatar", &avatar);
        }
    }
    if peopled {
        object.put("joined_count", &view.head.joined);
        object.put("invited_count", &view.head.invited);
    }
    if is_joined && name.is_none() && (named || peopled) {
        let heroes = heroes(view.snapshot, view.room_id, &step.request.user).await?;
        object.put("heroes", &described(view, heroes).await?);
    }
    Ok(())
}

/// Users with the names and pictures that they have in the room.
async fn described(view: &RoomView<'_>, users: Vec<OwnedUserId>) -> Result<Vec<Value>, SyncError> {
    let rows = view.snapshot.get_many(&MEMBERS, view.room_id, users.iter()).await?;
    let mut described = Vec::with_capacity(users.len());
    for (user, row) in users.into_iter().zip(rows) {
        let mut one = json!({ "user_id": user });
        let member = content::<MemberContent>(view, row.map(|row| row.event)).await?;
        if let Some(MemberContent { displayname, avatar_url }) = member {
            for (field, value) in [("displayname", displayname), ("avatar_url", avatar_url)] {
                if let Some(value) = value {
                    one[field] = value.into();
                }
            }
        }
        described.push(one);
    }
    Ok(described)
}

/// The content of a state event, where there is one, it has this form and was not redacted.
async fn content<T: DeserializeOwned>(
    view: &RoomView<'_>,
    number: Option<u64>,
) -> Result<Option<T>, SyncError> {
    let Some(number) = number else { return Ok(None) };
    let seen = view.state_events(&[number]).await?;
    let kept = seen.first().filter(|seen| seen.header.redacted_by.is_none());
    Ok(kept.and_then(|seen| seen.event.pdu.content_as().ok()))
}
