//! Deactivated accounts leave their rooms, and what was theirs is removed if they want to be forgotten:
//! in the background, and on after a restart.

use axum::extract::FromRef;
use millrace_domain::accounts::{depart, departing, find_deactivation};
use millrace_media::{Media, moderate::remove_of};
use ruma::{OwnedUserId, UserId};

use crate::app::{AccountsPart, App, RoomsPart};

/// Media that are removed at one go.
const MEDIA_AT_ONCE: usize = 1000;

/// What a departure has to do with.
#[derive(Clone)]
pub(crate) struct Departures {
    /// Accounts.
    pub accounts: AccountsPart,
    /// The rooms that are left.
    pub rooms: RoomsPart,
    /// The media that are removed.
    pub media: Media,
}

impl Departures {
    /// Takes one deactivated user out of all rooms.
    pub async fn complete(self, user: OwnedUserId) {
        if let Err(error) = self.try_complete(&user).await {
            tracing::error!(%user, %error, "a deactivated user could not leave all rooms; the next start goes on");
        }
    }

    async fn try_complete(&self, user: &UserId) -> millrace_store::Result<()> {
        let store = &self.accounts.env.store;
        let deactivation = find_deactivation(&store.snapshot(), user).await?;
        if deactivation.is_some_and(|deactivation| deactivation.erase) {
            while !remove_of(&self.media, user, MEDIA_AT_ONCE).await?.is_empty() {}
        }
        depart(&self.accounts, &self.rooms, user).await
    }

    /// Goes on with what a restart interrupted, one user after the other.
    pub async fn resume(self) {
        match departing(&self.accounts).await {
            Ok(users) => {
                for user in users {
                    self.clone().complete(user).await;
                }
            }
            Err(error) => tracing::error!(%error, "deactivated users could not be looked up"),
        }
    }
}

impl FromRef<App> for Departures {
    fn from_ref(app: &App) -> Self {
        Self {
            accounts: FromRef::from_ref(app),
            rooms: FromRef::from_ref(app),
            media: FromRef::from_ref(app),
        }
    }
}
