//! Whose devices changed (spec: Client-Server API, Tracking the device list for a user).

use std::collections::BTreeSet;

use millrace_store::{
    PartitionId, Read,
    tables::{DEVICE_LIST, DEVICE_LISTS, MEMBERS},
};
use ruma::{UserId, events::room::member::MembershipState};
use serde_json::json;

use super::{Step, SyncError, User};
use crate::json::Object;

/// So many changes are looked at; who was away longer is told of all users anyway.
const CHANGES_MAX: usize = 10_000;

pub(super) async fn put(step: &Step<'_>, body: &mut Object<'_>) -> Result<(), SyncError> {
    let Some(since) = step.since else { return Ok(()) };
    let store = &step.syncs.rooms.env.store;
    let partition = PartitionId::of::<String>(&DEVICE_LISTS);
    if store.news(&[partition], &since.view).is_empty() {
        return Ok(());
    }
    let changes = step.snapshot.changes::<String>(DEVICE_LISTS, &since.view, CHANGES_MAX).await?;
    let mut users: BTreeSet<User> = BTreeSet::new();
    for change in changes.iter().filter(|change| change.table == DEVICE_LIST.info().id) {
        users.insert(DEVICE_LIST.decode_key(&change.key)?);
    }
    let mut changed = Vec::new();
    for user in users {
        if user == step.request.user || shares_room(step, &user).await? {
            changed.push(user);
        }
    }
    if !changed.is_empty() {
        body.put("device_lists", &json!({ "changed": changed }));
    }
    Ok(())
}

async fn shares_room(step: &Step<'_>, user: &UserId) -> Result<bool, SyncError> {
    for (room, _) in &step.interest.joined {
        let member = step.snapshot.get(&MEMBERS, room, user).await?;
        if member.is_some_and(|member| member.membership == MembershipState::Join) {
            return Ok(true);
        }
    }
    Ok(false)
}
