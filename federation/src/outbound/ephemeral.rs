//! Telling who types and who is online. What is not durable is told to those who can be reached, once.

use std::collections::{BTreeMap, BTreeSet};

use millrace_domain::presence::Shown;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UInt, api::federation::transactions::edu::PresenceUpdate,
};

use super::{Outbound, follow::joined_rooms};

/// Other servers forget that somebody types after a minute, so they are told again.
const TYPING_AGAIN_MS: u64 = 40_000;

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The moment of the ephemeral clock up to which typing was told, and presence.
    typing: Option<(u64, u64)>,
    presence: Option<(u64, u64)>,
    /// Who was told to be typing.
    typists: BTreeMap<OwnedRoomId, BTreeSet<OwnedUserId>>,
    /// When that was last told in full, in milliseconds since 1970.
    repeated_ms: u64,
}

impl Outbound {
    pub(super) async fn follow_ephemeral(&self) -> millrace_store::Result<()> {
        if self.settings.typing {
            self.follow_typing().await?;
        }
        if self.settings.presence {
            self.follow_presence().await?;
        }
        self.board.lock().ring();
        Ok(())
    }

    /// When the typists are to be told again.
    pub(super) fn typing_due(&self) -> Option<u64> {
        let told = self.told.lock();
        (!told.typists.is_empty()).then(|| told.repeated_ms + TYPING_AGAIN_MS)
    }

    async fn follow_typing(&self) -> millrace_store::Result<()> {
        let now = self.typing.moment();
        let changed = {
            let mut told = self.told.lock();
            let since = told.typing.replace(now);
            self.typing.changed_since(since, now)
        };
        for room in changed {
            let typists = self.typists(&room);
            let old = match typists.is_empty() {
                true => self.told.lock().typists.remove(&room),
                false => self.told.lock().typists.insert(room.clone(), typists.clone()),
            }
            .unwrap_or_default();
            let began = typists.difference(&old).map(|user| (user.clone(), true));
            let ceased = old.difference(&typists).map(|user| (user.clone(), false));
            let changes: Vec<_> = began.chain(ceased).collect();
            self.tell_typing(&room, &changes).await?;
        }
        self.repeat_typing().await
    }

    async fn repeat_typing(&self) -> millrace_store::Result<()> {
        let now = self.now_ms();
        let again = {
            let mut told = self.told.lock();
            if told.typists.is_empty() || told.repeated_ms == 0 {
                told.repeated_ms = now;
                return Ok(());
            }
            if now < told.repeated_ms + TYPING_AGAIN_MS {
                return Ok(());
            }
            told.repeated_ms = now;
            told.typists.clone()
        };
        for (room, typists) in again {
            let changes: Vec<_> = typists.into_iter().map(|user| (user, true)).collect();
            self.tell_typing(&room, &changes).await?;
        }
        Ok(())
    }

    /// Users of ours who type in a room.
    fn typists(&self, room: &RoomId) -> BTreeSet<OwnedUserId> {
        let env = &self.federation.env;
        self.typing.users(room).into_iter().filter(|user| env.is_local(user)).collect()
    }

    async fn tell_typing(
        &self,
        room: &RoomId,
        changes: &[(OwnedUserId, bool)],
    ) -> millrace_store::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.learn_room(&self.federation.env.store.snapshot(), room).await?;
        let floor = self.followed();
        self.board.lock().tell_room(room, floor, |pending| {
            for (user, types) in changes {
                if pending.has_room_for_ephemeral() {
                    pending.typing.insert((room.to_owned(), user.clone()), *types);
                }
            }
        });
        Ok(())
    }

    async fn follow_presence(&self) -> millrace_store::Result<()> {
        let now = self.presence.moment();
        let changed = {
            let mut told = self.told.lock();
            let since = told.presence.replace(now);
            self.presence.changed_since(since, now)
        };
        let env = &self.federation.env;
        let snapshot = env.store.snapshot();
        for shown in changed.into_iter().filter(|shown| env.is_local(&shown.user)) {
            let (floor, update) = (self.followed(), update(&shown));
            for room in joined_rooms(&snapshot, &shown.user).await? {
                self.learn_room(&snapshot, &room).await?;
                self.board.lock().tell_room(&room, floor, |pending| {
                    if pending.has_room_for_ephemeral() {
                        pending.presence.insert(shown.user.clone(), update.clone());
                    }
                });
            }
        }
        Ok(())
    }
}

fn update(shown: &Shown) -> PresenceUpdate {
    let ago = UInt::new_saturating(shown.last_active_ago_ms.unwrap_or(0));
    let mut update = PresenceUpdate::new(shown.user.clone(), shown.presence.clone(), ago);
    update.status_msg.clone_from(&shown.status_msg);
    update.currently_active = shown.currently_active;
    update
}
