//! Which rooms a user has to do with, remembered between syncs until the user's partition changes.

use std::{collections::BTreeSet, sync::Arc};

use lru::LruCache;
use millrace_store::{
    News, PartitionId, Read, Result, Scan, Snapshot, Store, View, rows::room::UserRoom,
    tables::USER_ROOMS,
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};

use crate::account_data::{self, InvitePermissions};

/// So many users' lists are remembered.
const REMEMBERED_MAX: usize = 20_000;

/// The rooms of one user as of one view.
#[derive(Debug)]
pub struct Interest {
    view: View,
    /// The user's own partition.
    pub user: PartitionId,
    /// The joined rooms.
    pub joined: Vec<(OwnedRoomId, UserRoom)>,
    /// The joined rooms' partitions, in the same order.
    pub joined_partitions: Vec<PartitionId>,
    /// All others: invited, knocked, left, banned, also those forgotten.
    pub other: Vec<(OwnedRoomId, UserRoom)>,
    /// Whom the user ignores.
    pub ignored: Arc<BTreeSet<OwnedUserId>>,
    /// Whose invitations the user wants.
    pub invites: InvitePermissions,
}

/// Remembers [`Interest`]s.
pub struct Interests {
    users: Mutex<LruCache<OwnedUserId, Arc<Interest>>>,
}

impl Default for Interests {
    fn default() -> Self {
        let capacity = REMEMBERED_MAX.try_into().expect("the capacity is not zero");
        Self { users: Mutex::new(LruCache::new(capacity)) }
    }
}

impl Interests {
    /// The rooms of `user` at the view of `snapshot`.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn of(
        &self,
        store: &Store,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> Result<Arc<Interest>> {
        let remembered = self.users.lock().get(user).cloned();
        if let Some(interest) = remembered
            && snapshot.view().includes(&interest.view)
            && store.news_of(interest.user, &interest.view) == News::None
        {
            return Ok(interest);
        }
        let interest = Arc::new(read(snapshot, user).await?);
        self.users.lock().put(user.to_owned(), Arc::clone(&interest));
        Ok(interest)
    }
}

async fn read(snapshot: &Snapshot, user: &UserId) -> Result<Interest> {
    let rows = snapshot.scan(&USER_ROOMS, user, Scan::all()).await?;
    let (joined, other): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(_, row)| row.membership == MembershipState::Join);
    let is_invited = other.iter().any(|(_, row)| row.membership == MembershipState::Invite);
    let invites = match is_invited {
        true => InvitePermissions::load(snapshot, user).await?,
        false => InvitePermissions::default(),
    };
    Ok(Interest {
        view: snapshot.view().clone(),
        user: PartitionId::of::<OwnedUserId>(&user),
        joined_partitions: joined
            .iter()
            .map(|(room, _)| PartitionId::of::<OwnedRoomId>(room))
            .collect(),
        joined,
        other,
        ignored: Arc::new(account_data::ignored(snapshot, user).await?),
        invites,
    })
}
