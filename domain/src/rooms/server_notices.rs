//! What the server itself tells a user: messages in one room for each, in which nobody else is and
//! the user says nothing (spec: Client-Server API, Server Notices).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::Account,
    tables::{ACCOUNT_DATA, ACCOUNTS, NOTICE_ROOMS, PROFILES},
};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::json;

use super::{
    Draft, Numbers, RoomTx, Rooms,
    create::{COLLISIONS_MAX, CreateError, InitialState, NewRoom, Plan, creation_time},
    invite,
    membership::MembershipError,
    send::{self, SendError, TransactionKey},
};
use crate::Env;

/// The kind of user who sends notices, as accounts have it (`Account::user_type`).
pub(crate) const SENDER: &str = "server_notices";
/// By this tag clients know the room.
const TAG: &str = r#"{"tags":{"m.server_notice":{}}}"#;
/// The level of users who may read and no more.
const SILENT: i64 = -10;

/// Who sends notices, and what the rooms look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeSettings {
    /// The sender, a user of this server.
    pub sender: OwnedUserId,
    /// The sender's name.
    pub display_name: String,
    /// The sender's picture.
    pub avatar_url: Option<String>,
    /// The rooms' name.
    pub room_name: String,
    /// The rooms' topic.
    pub room_topic: Option<String>,
    /// The rooms' picture.
    pub room_avatar_url: Option<String>,
    /// The rooms' version.
    pub room_version: RoomVersionId,
}

/// Something to be told.
#[derive(Debug, Clone)]
pub struct Notice {
    /// To whom.
    pub user: OwnedUserId,
    /// The `type` of the event.
    pub kind: TimelineEventType,
    /// The state key, where it is to be state.
    pub state_key: Option<String>,
    /// The content.
    pub content: CanonicalJsonObject,
}

/// Why somebody was not told.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// Users of other servers are told by theirs.
    #[error("{0} is no user of this server")]
    OtherServer(OwnedUserId),
    /// There is no such account, or it was given up.
    #[error("there is no user {0}")]
    Unknown(OwnedUserId),
    /// The room could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The user could not be invited again.
    #[error(transparent)]
    Invite(#[from] MembershipError),
    /// The event could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The store failed.
    #[error("could not read or write the notice")]
    Store(#[from] millrace_store::Error),
}

/// Makes sure that nobody has the sender's name but the sender, and that the sender looks as the
/// settings say. Done at the start of the server.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn prepare(env: &Env, settings: &NoticeSettings) -> millrace_store::Result<()> {
    let sender = &*settings.sender;
    let now = env.now();
    let write = |tx: Tx| {
        async move {
            let old = tx.get(&ACCOUNTS, sender, ()).await?;
            let account = old
                .clone()
                .unwrap_or_else(|| Account { created_ms: now.get().into(), ..Account::default() });
            let account = Account { user_type: Some(SENDER.to_owned()), ..account };
            if old.as_ref() != Some(&account) {
                tx.put(&ACCOUNTS, sender, (), &account);
            }
            let name = Some(&settings.display_name);
            for (field, value) in
                [("displayname", name), ("avatar_url", settings.avatar_url.as_ref())]
            {
                let value = value.map(|value| json!(value).to_string());
                let old = tx.get(&PROFILES, sender, field).await?;
                match value {
                    Some(value) if old.as_ref() != Some(&value) => {
                        tx.put(&PROFILES, sender, field, &value);
                    }
                    None if old.is_some() => tx.delete(&PROFILES, sender, field),
                    _ => {}
                }
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Tells a user something, in their notices room, which is made where there is none; who has left it
/// is invited again. A repeated `transaction` tells it once.
///
/// # Errors
/// As [`NoticeError`] says.
pub async fn send_notice(
    rooms: &Rooms,
    settings: &NoticeSettings,
    notice: &Notice,
    transaction: Option<&TransactionKey>,
) -> Result<OwnedEventId, NoticeError> {
    let user = &*notice.user;
    if !rooms.env.is_local(user) {
        return Err(NoticeError::OtherServer(user.to_owned()));
    }
    let account = rooms.env.store.snapshot().get(&ACCOUNTS, user, ()).await?;
    if account.is_none_or(|account| account.deactivated.is_some()) {
        return Err(NoticeError::Unknown(user.to_owned()));
    }
    let room = room_of(rooms, settings, user).await?;
    match invite::invite(rooms, &room, &settings.sender, user, None).await {
        Ok(()) | Err(MembershipError::AlreadyInRoom(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let (sender, kind, content) = (&settings.sender, notice.kind.clone(), notice.content.clone());
    let draft = match &notice.state_key {
        Some(state_key) => Draft::state(sender, kind, state_key, content),
        None => Draft::message(sender, kind, content),
    };
    Ok(send::send(rooms, &room, &draft, transaction).await?)
}

/// Whether this is the room in which the server tells `user` something.
///
/// # Errors
/// Where the store cannot be read.
pub async fn is_notices_room(
    read: &impl Read,
    user: &UserId,
    room: &RoomId,
) -> millrace_store::Result<bool> {
    let notices = read.get(&NOTICE_ROOMS, user, ()).await?;
    Ok(notices.is_some_and(|notices| notices == room.as_str()))
}

/// Whether this user is the server, whose invitations are not refused.
///
/// # Errors
/// Where the store cannot be read.
pub(crate) async fn is_sender(read: &impl Read, user: &UserId) -> millrace_store::Result<bool> {
    let account = read.get(&ACCOUNTS, user, ()).await?;
    Ok(account.is_some_and(|account| account.user_type.as_deref() == Some(SENDER)))
}

/// The notices room of a user. Where the sender is in it no more, there is a new one.
async fn room_of(
    rooms: &Rooms,
    settings: &NoticeSettings,
    user: &UserId,
) -> Result<OwnedRoomId, NoticeError> {
    let new = &new_room(settings, user);
    let plan = &Plan::new(rooms, new)?;
    let numbers = &Numbers::draw(rooms, plan.events()).await?;
    for attempt in 0..COLLISIONS_MAX {
        let at = creation_time(rooms, attempt);
        let body = |tx: Tx| {
            async move {
                if let Some(room) = usable(&tx, rooms, &settings.sender, user).await? {
                    return Ok(room);
                }
                let room = plan.carry_out(&tx, rooms, numbers, at).await?;
                let room_id = room.room_id.clone();
                room.finish();
                tx.put(&NOTICE_ROOMS, user, (), &room_id.to_string());
                tx.put(&ACCOUNT_DATA, user, (room_id.as_str(), "m.tag"), &TAG.to_owned());
                Ok(room_id)
            }
            .boxed()
        };
        match rooms.env.store.transact(body).await {
            Err(CreateError::Collision) => {}
            made => return Ok(made?),
        }
    }
    Err(CreateError::Collision.into())
}

/// The room that is there, if the sender may speak in it.
async fn usable(
    tx: &Tx,
    rooms: &Rooms,
    sender: &UserId,
    user: &UserId,
) -> Result<Option<OwnedRoomId>, CreateError> {
    let known = tx.get(&NOTICE_ROOMS, user, ()).await?;
    let Some(room) = known.and_then(|room| OwnedRoomId::try_from(room).ok()) else {
        return Ok(None);
    };
    let numbers = &Numbers::draw(rooms, 0).await?;
    let open = RoomTx::open(tx, rooms, &room, numbers).await?;
    let Some(open) = open else { return Ok(None) };
    let joined = open.membership(sender).await?;
    Ok((joined == MembershipState::Join).then_some(room))
}

fn new_room(settings: &NoticeSettings, user: &UserId) -> NewRoom {
    let mut new = NewRoom::plain(settings.sender.clone(), settings.room_version.clone());
    new.name = Some(settings.room_name.clone());
    new.topic.clone_from(&settings.room_topic);
    new.invite = vec![user.to_owned()];
    let silent = json!({ "users_default": SILENT });
    new.power_levels = serde_json::from_value(silent).expect("a small object is canonical");
    if let Some(url) = &settings.room_avatar_url {
        let content = json!({ "url": url });
        let content = serde_json::from_value(content).expect("a small object is canonical");
        new.initial_state.push(InitialState::of(TimelineEventType::RoomAvatar, content));
    }
    new
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::testing;

    fn settings() -> NoticeSettings {
        NoticeSettings {
            sender: user_id!("@server:test.example").to_owned(),
            display_name: "The Server".to_owned(),
            avatar_url: None,
            room_name: "Notices".to_owned(),
            room_topic: None,
            room_avatar_url: Some("mxc://test.example/x".to_owned()),
            room_version: RoomVersionId::V12,
        }
    }

    fn notice(user: &UserId) -> Notice {
        let content = json!({ "msgtype": "m.text", "body": "hear, hear" });
        Notice {
            user: user.to_owned(),
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: serde_json::from_value(content).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_user_has_one_notices_room_which_stays_when_they_leave_it() {
        let rooms = testing::rooms().await;
        let alice = user_id!("@alice:test.example");
        prepare(&rooms.env, &settings()).await.unwrap();
        let unknown = send_notice(&rooms, &settings(), &notice(alice), None).await;
        assert!(matches!(unknown, Err(NoticeError::Unknown(_))));
        let add = |tx: Tx| {
            tx.put(&ACCOUNTS, alice, (), &Account::default());
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        rooms.env.store.transact(add).await.unwrap();
        send_notice(&rooms, &settings(), &notice(alice), None).await.unwrap();
        let room = rooms.env.store.snapshot().get(&NOTICE_ROOMS, alice, ()).await.unwrap();
        let room = OwnedRoomId::try_from(room.unwrap()).unwrap();
        let refused = crate::rooms::leave::leave(&rooms, &room, alice, None).await;
        assert!(matches!(refused, Err(MembershipError::ServerNotices)), "an invitation stays");
        let guest = crate::rooms::membership::Guest::No;
        crate::rooms::join::join(&rooms, &room, alice, guest, None).await.unwrap();
        crate::rooms::leave::leave(&rooms, &room, alice, None).await.unwrap();
        send_notice(&rooms, &settings(), &notice(alice), None).await.unwrap();
        let snapshot = rooms.env.store.snapshot();
        assert!(is_notices_room(&snapshot, alice, &room).await.unwrap());
        let member = snapshot.get(&millrace_store::tables::USER_ROOMS, alice, &room).await.unwrap();
        assert_eq!(member.unwrap().membership, MembershipState::Invite, "invited again");
        let tags = crate::account_data::tags(&snapshot, alice, &room).await.unwrap();
        assert!(tags.contains_key("m.server_notice"));
    }
}
