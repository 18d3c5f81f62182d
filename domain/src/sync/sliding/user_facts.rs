//! What lists want to know of a user: remembered until the user's account data has news.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_store::{Read, Scan, tables::ACCOUNT_DATA};
use ruma::OwnedRoomId;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    rooms::recent::UntilNews,
    sync::{Step, SyncError},
};

const DIRECT: &str = "m.direct";
const TAG: &str = "m.tag";

/// Remembers the rooms that are direct messages.
pub(super) type RememberedDirect = UntilNews<Arc<BTreeSet<String>>>;
/// Remembers tags.
pub(super) type RememberedTags = UntilNews<Arc<Tags>>;
/// The tags of rooms that have any.
pub(super) type Tags = BTreeMap<String, BTreeSet<String>>;

#[derive(Deserialize)]
struct TagContent {
    tags: BTreeMap<String, IgnoredAny>,
}

/// The rooms that the user calls direct messages.
pub(super) async fn direct(step: &Step<'_>) -> Result<Arc<BTreeSet<String>>, SyncError> {
    let (store, partition) = (&step.syncs.rooms.env.store, step.interest.user);
    let remembered = &step.syncs.sliding.direct;
    if let Some(direct) = remembered.get(store, &step.snapshot, partition) {
        return Ok(direct);
    }
    let row = step.snapshot.get(&ACCOUNT_DATA, &step.request.user, ("", DIRECT)).await?;
    // What is no list of rooms by user names none.
    type Content = BTreeMap<String, Vec<OwnedRoomId>>;
    let content = row.and_then(|row| serde_json::from_str::<Content>(&row).ok());
    let rooms = content.unwrap_or_default().into_values().flatten();
    let direct: Arc<BTreeSet<String>> = Arc::new(rooms.map(|room| room.to_string()).collect());
    remembered.put(&step.snapshot, partition, Arc::clone(&direct));
    Ok(direct)
}

/// The tags that the user gave their rooms.
pub(super) async fn tags(step: &Step<'_>) -> Result<Arc<Tags>, SyncError> {
    let (store, partition) = (&step.syncs.rooms.env.store, step.interest.user);
    let remembered = &step.syncs.sliding.tags;
    if let Some(tags) = remembered.get(store, &step.snapshot, partition) {
        return Ok(tags);
    }
    let mut tags = Tags::new();
    for ((room, kind), content) in
        step.snapshot.scan(&ACCOUNT_DATA, &step.request.user, Scan::all()).await?
    {
        if kind == TAG
            && let Ok(content) = serde_json::from_str::<TagContent>(&content)
        {
            tags.insert(room, content.tags.into_keys().collect());
        }
    }
    let tags = Arc::new(tags);
    remembered.put(&step.snapshot, partition, Arc::clone(&tags));
    Ok(tags)
}
