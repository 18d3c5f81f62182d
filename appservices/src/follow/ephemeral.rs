//! Telling workers who types, who is online, and who has read on. It is told to who listens, once.

use std::collections::BTreeSet;

use millrace_domain::presence::Shown;
use millrace_store::{Snapshot, rows::receipt::ReceiptKind};
use ruma::{OwnedUserId, RoomId};

use super::{FollowError, Follower};
use crate::send::Moving;

/// A user's rooms are looked at up to so many, for who is shown their presence.
const ROOMS_MAX: usize = 500;

/// A receipt's place in its room: user, kind, thread.
type ReceiptKey = (OwnedUserId, u8, String);

/// Up to which moment typing and presence were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    typing: Option<(u64, u64)>,
    presence: Option<(u64, u64)>,
}

impl Follower<'_> {
    /// The services that are told what is not durable.
    fn ephemeral(&self) -> BTreeSet<usize> {
        self.listening().filter(|(_, s)| s.told.any_ephemeral()).map(|(at, _)| at).collect()
    }

    /// Notes something for a service's worker.
    fn tell(&self, service: usize, note: impl FnOnce(&mut Moving)) {
        let id = &self.registry.all()[service].id;
        if let Some(desk) = self.services.desks.lock().get(id) {
            desk.tell(note);
        }
    }

    pub(super) async fn follow_ephemeral(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<(), FollowError> {
        let services = self.services;
        let (typing, presence) = (services.typing.moment(), services.presence.moment());
        let typed = services.typing.changed_since(self.told.typing.replace(typing), typing);
        let shown = services.presence.changed_since(self.told.presence.replace(presence), presence);
        let wanted = self.ephemeral();
        if wanted.is_empty() {
            return Ok(());
        }
        for room in typed {
            for service in self.interested(snapshot, &room, &wanted).await? {
                self.tell(service, |moving| {
                    moving.typing.insert(room.clone());
                });
            }
        }
        for shown in shown {
            self.tell_presence(snapshot, &shown, &wanted).await?;
        }
        Ok(())
    }

    /// Which of the services are interested in a room.
    async fn interested(
        &mut self,
        snapshot: &Snapshot,
        room: &RoomId,
        wanted: &BTreeSet<usize>,
    ) -> Result<BTreeSet<usize>, FollowError> {
        let mut found = self.interested_always(snapshot, room).await?;
        found.extend(self.interested_now(snapshot, room).await?);
        found.retain(|service| wanted.contains(service));
        Ok(found)
    }

    async fn tell_presence(
        &mut self,
        snapshot: &Snapshot,
        shown: &Shown,
        wanted: &BTreeSet<usize>,
    ) -> Result<(), FollowError> {
        let user = &shown.user;
        let own = |at: &usize| self.registry.all()[*at].has_user(user);
        let mut told: BTreeSet<usize> = wanted.iter().copied().filter(own).collect();
        if told.len() < wanted.len() {
            for room in self.rooms_of(snapshot, user).await?.into_iter().take(ROOMS_MAX) {
                told.extend(self.interested(snapshot, &room, wanted).await?);
                if told.len() == wanted.len() {
                    break;
                }
            }
        }
        for service in told {
            self.tell(service, |moving| {
                moving.presence.insert(user.clone());
            });
        }
        Ok(())
    }

    /// Tells of receipts: private ones only to the services whose user has read.
    pub(super) async fn tell_receipts(
        &mut self,
        snapshot: &Snapshot,
        room: &RoomId,
        (always, receipts): (&BTreeSet<usize>, BTreeSet<ReceiptKey>),
    ) -> Result<(), FollowError> {
        let wanted = self.ephemeral();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut told = self.interested_now(snapshot, room).await?;
        told.extend(always);
        for service in told.intersection(&wanted) {
            for receipt in &receipts {
                let (user, kind, _) = receipt;
                let is_public = *kind == ReceiptKind::Public.id();
                if is_public || self.registry.all()[*service].has_user(user) {
                    self.tell(*service, |moving| {
                        moving.receipts.insert((room.to_owned(), receipt.clone()));
                    });
                }
            }
        }
        Ok(())
    }
}
