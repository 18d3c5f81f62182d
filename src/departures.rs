//! Deactivated accounts leave their rooms: in the background, and on after a restart.

use millrace_domain::accounts::{depart, departing};
use ruma::OwnedUserId;

use crate::app::{AccountsPart, RoomsPart};

/// Takes one deactivated user out of all rooms.
pub(crate) async fn leave_rooms(accounts: AccountsPart, rooms: RoomsPart, user: OwnedUserId) {
    if let Err(error) = depart(&accounts, &rooms, &user).await {
        tracing::error!(%user, %error, "a deactivated user could not leave all rooms; the next start goes on");
    }
}

/// Goes on with what a restart interrupted, one user after the other.
pub(crate) async fn resume(accounts: AccountsPart, rooms: RoomsPart) {
    match departing(&accounts).await {
        Ok(users) => {
            for user in users {
                leave_rooms(accounts.clone(), rooms.clone(), user).await;
            }
        }
        Err(error) => tracing::error!(%error, "deactivated users could not be looked up"),
    }
}
