//! How far the user's own messages have come, for those clients that ask for it.

use std::collections::{BTreeMap, BTreeSet};

use millrace_store::{
    PartitionId, Read, Scan,
    rows::receipt::{Reach, Receipt},
    tables::DELIVERED,
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::json;

use super::{Step, SyncError, SyncRequest, Syncs, ephemeral::Content};
use crate::deliveries::{DELIVERY, SERVER_DELIVERY};

/// So many changes are looked at one by one; beyond, all of it is told again.
const CHANGES_MAX: usize = 1_000;
/// So many rows are told at once.
const ROWS_MAX: usize = 5_000;

/// By room: to whom, how far, and which message.
pub(super) type Delivered = BTreeMap<OwnedRoomId, Vec<(OwnedUserId, Reach, Receipt)>>;

/// Where there is news of it; none where the client does not ask.
pub(super) fn partition(syncs: &Syncs, request: &SyncRequest) -> Option<PartitionId> {
    let is_told = request.filter.deliveries && syncs.deliveries.are_enabled();
    is_told.then(|| PartitionId::of::<String>(&request.user.as_str()))
}

/// What has come further since the token; all at an initial sync.
pub(super) async fn read(step: &Step<'_>) -> Result<Delivered, SyncError> {
    let Some(partition) = partition(step.syncs, step.request) else {
        return Ok(Delivered::new());
    };
    let sender = step.request.user.as_str();
    let rows = match changed(step, partition).await? {
        Some(keys) => {
            let rows = step.snapshot.get_many(&DELIVERED, sender, keys.iter()).await?;
            keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect()
        }
        None => step.snapshot.scan(&DELIVERED, sender, Scan::all().limit(ROWS_MAX)).await?,
    };
    let mut delivered = Delivered::new();
    for ((room, recipient, reach), receipt) in rows {
        if let Some(reach) = Reach::from_id(reach) {
            delivered.entry(room).or_default().push((recipient, reach, receipt));
        }
    }
    Ok(delivered)
}

/// The rows that have changed since the token; `None` where all are wanted.
async fn changed(
    step: &Step<'_>,
    partition: PartitionId,
) -> Result<Option<BTreeSet<(OwnedRoomId, OwnedUserId, u8)>>, SyncError> {
    let Some(since) = step.since.filter(|_| !step.request.full_state) else { return Ok(None) };
    let store = &step.syncs.rooms.env.store;
    if store.news(&[partition], &since.view).is_empty() {
        return Ok(Some(BTreeSet::new()));
    }
    let sender = step.request.user.as_str();
    let changes = step.snapshot.changes::<String>(sender, &since.view, CHANGES_MAX).await?;
    if changes.len() >= CHANGES_MAX {
        return Ok(None);
    }
    let ours = changes.iter().filter(|change| change.table == DELIVERED.info().id);
    let keys = ours.map(|change| DELIVERED.decode_key(&change.key));
    Ok(Some(keys.collect::<Result<_, _>>()?))
}

/// Adds receipts of one room. Whom the user ignores is not heard of.
pub(super) fn add(
    step: &Step<'_>,
    delivered: Option<&Vec<(OwnedUserId, Reach, Receipt)>>,
    content: &mut Content,
) {
    for (recipient, reach, Receipt { event_id, ts, .. }) in delivered.into_iter().flatten() {
        if step.viewer.ignored.contains(recipient) {
            continue;
        }
        let kind = match reach {
            Reach::Server => SERVER_DELIVERY,
            Reach::Device => DELIVERY,
        };
        let of_event = content.entry(event_id.clone()).or_default();
        of_event.entry(kind).or_default().insert(recipient.clone(), json!({ "ts": ts }));
    }
}
