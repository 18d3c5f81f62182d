//! Rooms that this server is not in, as its users have to do with them: invited by another server,
//! knocked on by another server's help, or neither any more.
//!
//! Nothing of such a room is stored but what its user is shown: nobody here can check its events.

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::{outside::Vias, room::UserRoom},
    tables::{OUTSIDE_VIAS, USER_ROOMS},
};
use ruma::{OwnedServerName, RoomId, UserId, events::room::member::MembershipState};

use super::{Rooms, residence};

/// So many servers through which a user has knocked are remembered.
const VIAS_MAX: usize = 5;

/// What became of a user's dealings with a room.
#[derive(Debug, Clone)]
pub struct Dealing {
    /// The user's membership.
    pub membership: MembershipState,
    /// Who made it so.
    pub sender: ruma::OwnedUserId,
    /// What the user is shown (JSON texts): the stripped state, or the event that ended it.
    pub stripped: Vec<String>,
}

/// A user of ours was invited by another server. Nothing is done where we are in the room, since
/// then it tells us itself.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn invited(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    sender: &UserId,
    stripped: Vec<String>,
) -> millrace_store::Result<()> {
    let membership = MembershipState::Invite;
    let dealing = Dealing { membership, sender: sender.to_owned(), stripped };
    change(rooms, room, user, &dealing, None).await
}

/// A user of ours has knocked by the help of the server `via`.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn knocked(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    stripped: Vec<String>,
    via: OwnedServerName,
) -> millrace_store::Result<()> {
    let membership = MembershipState::Knock;
    let dealing = Dealing { membership, sender: user.to_owned(), stripped };
    change(rooms, room, user, &dealing, Some(via)).await
}

/// A user of ours has rejected an invitation or taken back a knock.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn left(rooms: &Rooms, room: &RoomId, user: &UserId) -> millrace_store::Result<()> {
    let membership = MembershipState::Leave;
    let stripped = vec![end(rooms, user, user)];
    let dealing = Dealing { membership, sender: user.to_owned(), stripped };
    change(rooms, room, user, &dealing, None).await
}

/// A leaving as clients see it. The event itself is not kept, and where no server was reached there
/// is none, so its ID is one of ours.
fn end(rooms: &Rooms, user: &UserId, sender: &UserId) -> String {
    serde_json::json!({
        "type": "m.room.member",
        "event_id": format!("${}", rooms.env.random_text(43)),
        "sender": sender,
        "state_key": user,
        "origin_server_ts": rooms.env.now(),
        "content": { "membership": MembershipState::Leave },
    })
    .to_string()
}

/// Another server says that `by` has turned a user of ours away: has taken back the invitation or
/// turned down the knock, or banned them. It is believed only of who invited the user, or where the
/// user has knocked, since nobody here can check whether others may. Returns whether it was.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn turned_away(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    by: &UserId,
) -> millrace_store::Result<bool> {
    let row = rooms.env.store.snapshot().get(&USER_ROOMS, user, room).await?;
    let believed = row.is_some_and(|row| match row.membership {
        MembershipState::Invite => row.sender == by,
        MembershipState::Knock => true,
        _ => false,
    });
    if believed {
        let (membership, sender) = (MembershipState::Leave, by.to_owned());
        let dealing = Dealing { membership, sender, stripped: vec![end(rooms, user, by)] };
        change(rooms, room, user, &dealing, None).await?;
    }
    Ok(believed)
}

async fn change(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    dealing: &Dealing,
    via: Option<OwnedServerName>,
) -> millrace_store::Result<()> {
    let via = &via;
    let body = |tx: Tx| {
        async move {
            if residence::is_resident(&tx, room).await? {
                return Ok(());
            }
            let old = tx.get(&USER_ROOMS, user, room).await?;
            tx.put(&USER_ROOMS, user, room, &row(old, dealing));
            if let Some(via) = via {
                let mut vias = tx.get(&OUTSIDE_VIAS, user, room).await?.unwrap_or_default();
                add(&mut vias, via);
                tx.put(&OUTSIDE_VIAS, user, room, &vias);
            }
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}

fn row(old: Option<UserRoom>, dealing: &Dealing) -> UserRoom {
    let left = old.as_ref().and_then(|old| old.left);
    let gone = dealing.membership == MembershipState::Leave;
    UserRoom {
        membership: dealing.membership.clone(),
        event: 0,
        sender: dealing.sender.clone(),
        // What the user may read of a room that we were in once ends where it did.
        n: left.unwrap_or(0),
        was_joined: old.as_ref().is_some_and(|old| old.was_joined),
        left,
        forgotten: gone && old.is_some_and(|old| old.forgotten),
        stripped: dealing.stripped.clone(),
    }
}

fn add(vias: &mut Vias, via: &OwnedServerName) {
    vias.servers.retain(|known| known != via);
    vias.servers.push(via.clone());
    let excess = vias.servers.len().saturating_sub(VIAS_MAX);
    vias.servers.drain(..excess);
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, server_name, user_id};

    use super::*;
    use crate::testing;

    async fn membership(rooms: &Rooms, room: &RoomId, user: &UserId) -> Option<MembershipState> {
        let row = rooms.env.store.snapshot().get(&USER_ROOMS, user, room).await.unwrap();
        row.map(|row| row.membership)
    }

    #[tokio::test]
    async fn only_who_invited_takes_the_invitation_back() {
        let rooms = testing::rooms().await;
        let (room, user) = (room_id!("!far:one"), user_id!("@alice:test.example"));
        let (bob, eve) = (user_id!("@bob:one"), user_id!("@eve:one"));
        assert!(!turned_away(&rooms, room, user, bob).await.unwrap(), "nothing to take back");
        invited(&rooms, room, user, bob, vec!["{}".to_owned()]).await.unwrap();
        assert!(!turned_away(&rooms, room, user, eve).await.unwrap());
        assert_eq!(membership(&rooms, room, user).await, Some(MembershipState::Invite));
        assert!(turned_away(&rooms, room, user, bob).await.unwrap());
        assert_eq!(membership(&rooms, room, user).await, Some(MembershipState::Leave));
    }

    #[tokio::test]
    async fn a_knock_is_remembered_with_the_server_that_took_it_and_turned_down_by_anybody() {
        let rooms = testing::rooms().await;
        let (room, user) = (room_id!("!far:one"), user_id!("@alice:test.example"));
        for server in ["a", "b", "a", "c", "d", "e", "f"] {
            let via = OwnedServerName::try_from(server).unwrap();
            knocked(&rooms, room, user, Vec::new(), via).await.unwrap();
        }
        let vias = rooms.env.store.snapshot().get(&OUTSIDE_VIAS, user, room).await.unwrap();
        let vias = vias.unwrap().servers;
        assert_eq!(vias.len(), VIAS_MAX, "the newest are kept");
        assert_eq!(vias.last().unwrap(), server_name!("f"));
        assert!(turned_away(&rooms, room, user, user_id!("@anybody:one")).await.unwrap());
        assert_eq!(membership(&rooms, room, user).await, Some(MembershipState::Leave));
    }
}
