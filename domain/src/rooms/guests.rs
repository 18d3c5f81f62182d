//! Guests leave a room that admits them no longer (spec: Client-Server API, "Guest Access": "the
//! server MUST set those users' `m.room.member` state to `leave`").

use millrace_store::{
    Read, Scan,
    tables::{ACCOUNTS, MEMBERS},
};
use ruma::{RoomId, events::room::member::MembershipState};

use super::{Rooms, leave::leave, membership::MembershipError};

/// Takes this server's guests out of `room`. One that cannot leave is skipped.
///
/// # Errors
/// Where the store cannot be read.
pub(super) async fn leave_as_not_admitted(
    rooms: &Rooms,
    room: &RoomId,
) -> millrace_store::Result<()> {
    let snapshot = rooms.env.store.snapshot();
    for (user, member) in snapshot.scan(&MEMBERS, room, Scan::all()).await? {
        if member.membership != MembershipState::Join || !rooms.env.is_local(&user) {
            continue;
        }
        let account = snapshot.get(&ACCOUNTS, &user, ()).await?;
        if !account.is_some_and(|account| account.guest) {
            continue;
        }
        match leave(rooms, room, &user, None).await {
            Ok(()) | Err(MembershipError::NotInRoom(_)) => {}
            Err(error) => {
                tracing::warn!(%user, %room, %error, "a guest could not be made to leave");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_store::tables::MEMBERS;
    use ruma::user_id;
    use serde_json::json;

    use super::*;
    use crate::{
        accounts::{
            Accounts, Credentials, NewAccount, NewDevice, PasswordCost, Settings, register,
        },
        rooms::{
            join,
            membership::Guest,
            set_state::{NewState, set_state},
            test_room::{TestRoom, object},
        },
    };

    #[tokio::test]
    async fn guests_leave_when_they_are_not_admitted_any_more_and_others_stay() {
        let room = TestRoom::with_visibility("shared").await;
        let password_cost = PasswordCost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = Settings { password_cost, ..Settings::default() };
        let accounts = Accounts::new(room.rooms.env.clone(), settings, 1);
        let access = async |access: &str| {
            let new = NewState {
                sender: user_id!("@alice:test.example").to_owned(),
                guest: Guest::No,
                kind: "m.room.guest_access".into(),
                state_key: String::new(),
                content: object(json!({ "guest_access": access })),
            };
            set_state(&room.rooms, &room.id, &new).await.unwrap();
        };
        access("can_join").await;
        let guest = NewAccount::new(None, Credentials::Guest, NewDevice::default());
        let guest = register(&accounts, guest).await.unwrap().user;
        join::join(&room.rooms, &room.id, &guest, Guest::Yes, None).await.unwrap();
        room.member("bob", "bob", "join").await;
        access("forbidden").await;
        let snapshot = room.rooms.env.store.snapshot();
        let memberships = async |user: &ruma::UserId| {
            snapshot.get(&MEMBERS, &room.id, user).await.unwrap().unwrap().membership
        };
        assert_eq!(memberships(&guest).await, MembershipState::Leave);
        let bob = user_id!("@bob:test.example");
        assert_eq!(memberships(bob).await, MembershipState::Join);
    }
}
