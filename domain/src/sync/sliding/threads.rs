//! Threads that the user began or ceased to follow (MSC4308).

use std::{cmp::Reverse, collections::BTreeSet};

use millrace_store::{
    Read, Scan, Snapshot, View, rows::user::ThreadSubscription, tables::THREAD_SUBSCRIPTIONS,
};
use ruma::{OwnedEventId, OwnedRoomId, UserId};
use serde_json::json;

use crate::{
    json::Object,
    sync::{Step, SyncError, user::News},
};

const NAME: &str = "io.element.msc4308.thread_subscriptions";
/// So many are told where the client does not say, and at most.
const LIMIT: usize = 100;

/// Which changes are asked for, newest first.
#[derive(Debug, Clone, Default)]
pub struct ThreadPage {
    /// Only those before this one, by the `end` of the page before.
    pub before: Option<u64>,
    /// Only those that this does not cover.
    pub since: Option<View>,
    /// So many at most.
    pub limit: Option<u64>,
}

/// Changes of what a user follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadChanges {
    /// Room, first event of the thread, when it was said, and whether by the client itself.
    pub subscribed: Vec<(OwnedRoomId, OwnedEventId, u64, bool)>,
    /// Likewise.
    pub unsubscribed: Vec<(OwnedRoomId, OwnedEventId, u64)>,
    /// Where the next page begins, if there is one.
    pub end: Option<u64>,
}

/// The newest changes of what a user follows; of each thread only the last.
///
/// # Errors
/// Where the store cannot be read.
pub async fn thread_changes(
    snapshot: &Snapshot,
    user: &UserId,
    page: &ThreadPage,
) -> millrace_store::Result<ThreadChanges> {
    let rows = snapshot.scan_stamped(&THREAD_SUBSCRIPTIONS, user, Scan::all()).await?;
    let mut rows: Vec<_> = rows
        .into_iter()
        .filter(|(_, position, _)| page.since.as_ref().is_none_or(|since| !since.covers(*position)))
        .map(|(key, position, row)| (position.seq, key, row))
        .filter(|(at, ..)| page.before.is_none_or(|before| *at < before))
        .collect();
    rows.sort_by_key(|(at, ..)| Reverse(*at));
    let limit = page.limit.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(LIMIT));
    let limit = limit.clamp(1, LIMIT);
    let mut changes = ThreadChanges::default();
    if rows.len() > limit {
        rows.truncate(limit);
        changes.end = rows.last().map(|(at, ..)| *at);
    }
    for (at, (room, root), row) in rows {
        match row {
            ThreadSubscription::Subscribed { automatic } => {
                changes.subscribed.push((room, root, at, automatic));
            }
            ThreadSubscription::Unsubscribed { .. } => changes.unsubscribed.push((room, root, at)),
        }
    }
    Ok(changes)
}

impl ThreadChanges {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.subscribed.is_empty() && self.unsubscribed.is_empty()
    }

    /// Writes them as clients receive them; `end` is the name of where the next page begins.
    pub fn write(&self, out: &mut String, end: &str) {
        let mut body = Object::begin(out);
        let subscribed = self.subscribed.iter().map(|(room, root, at, automatic)| {
            (room, root, json!({ "automatic": automatic, "bump_stamp": at }))
        });
        put_by_room(&mut body, "subscribed", subscribed.collect());
        let unsubscribed = self.unsubscribed.iter();
        let unsubscribed =
            unsubscribed.map(|(room, root, at)| (room, root, json!({ "bump_stamp": at })));
        put_by_room(&mut body, "unsubscribed", unsubscribed.collect());
        if let Some(at) = self.end {
            body.put_str(end, &at.to_string());
        }
        body.end();
    }
}

fn put_by_room(
    body: &mut Object<'_>,
    name: &str,
    threads: Vec<(&OwnedRoomId, &OwnedEventId, serde_json::Value)>,
) {
    let mut section = body.object(name);
    for room in threads.iter().map(|(room, ..)| room).collect::<BTreeSet<_>>() {
        let mut object = section.object(room.as_str());
        for (_, root, value) in threads.iter().filter(|(other, ..)| other == room) {
            object.put(root.as_str(), value);
        }
        object.end();
    }
    section.end_unless_empty();
}

/// Adds what changed since the position of the connection. Returns whether anything did.
pub(super) async fn put(
    (step, news): (&Step<'_>, &News),
    limit: Option<u64>,
    body: &mut Object<'_>,
) -> Result<bool, SyncError> {
    let since = step.since.map(|since| since.view.clone());
    if since.is_some() && !news.threads {
        return Ok(false);
    }
    let page = ThreadPage { before: None, since, limit };
    let changes = thread_changes(&step.snapshot, &step.request.user, &page).await?;
    if !changes.is_empty() {
        changes.write(body.field(NAME), "prev_batch");
    }
    Ok(!changes.is_empty())
}
