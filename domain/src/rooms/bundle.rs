//! Bundled aggregations: what an event's `m.relations` tells of its children (spec: Client-Server
//! API, Aggregations of child events). Annotations are not aggregated.

use millrace_model::{
    TimelineIndex,
    client_event::RoomIdField,
    relations::{self, RelationKind},
    rules::visibility::Reach,
};
use millrace_store::{
    Read, Scan,
    rows::room::{Relation, ThreadRow},
    tables::{EVENT_HEADERS, RELATIONS, THREAD_SENDERS, THREADS},
};
use ruma::{EventId, OwnedEventId};
use serde::Serialize;

use super::view::{ReadError, RoomView, Seen};
use crate::json::Object;

/// The newest edits that are looked through for the one that counts.
const EDITS_MAX: usize = 100;
/// The newest references that are told of.
const REFERENCES_MAX: usize = 1000;
/// The newest events of a thread that are looked through for one that the viewer may see.
const NEWEST_MAX: usize = 256;

/// One event's children, those that count.
#[derive(Default)]
struct Bundle {
    /// The newest valid edit.
    edit: Option<Seen>,
    /// Events that refer to it, oldest first.
    references: Vec<OwnedEventId>,
    thread: Option<Thread>,
}

/// What is told of a thread at its root.
pub(super) struct Thread {
    newest: Seen,
    count: u64,
    /// Whether the viewer sent its root or any event in it.
    pub(super) participated: bool,
}

#[derive(Serialize)]
struct Reference<'a> {
    event_id: &'a OwnedEventId,
}

impl RoomView<'_> {
    /// The text of `m.relations` for each of the events that has any. Events to which none relates
    /// cost nothing.
    pub(super) async fn bundles(&self, seen: &[Seen]) -> Result<Vec<Option<String>>, ReadError> {
        let mut bundles = vec![None; seen.len()];
        for (place, seen) in seen.iter().enumerate() {
            // Only history is aggregated, and of it only messages.
            if !seen.header.aggregated || seen.membership.is_none() || seen.event.pdu.is_state() {
                continue;
            }
            let bundle = self.bundle(seen).await?;
            bundles[place] = self.render_bundle(bundle).await?;
        }
        Ok(bundles)
    }

    async fn bundle(&self, parent: &Seen) -> Result<Bundle, ReadError> {
        let redacted = parent.header.redacted_by.is_some();
        let own = if redacted { None } else { relations::Relation::of(&parent.event.pdu) };
        let kind = own.map(|relation| relation.kind);
        if matches!(kind, Some(RelationKind::Annotation | RelationKind::Replace)) {
            return Ok(Bundle::default());
        }
        Ok(Bundle {
            edit: if redacted { None } else { self.newest_edit(parent).await? },
            references: self.references(&parent.event.pdu.event_id).await?,
            thread: match kind {
                Some(_) => None, // What relates to something is no root.
                None => self.thread_at(parent).await?,
            },
        })
    }

    /// The newest children of one kind that are within the viewer's reach and not by somebody
    /// ignored, newest first.
    async fn children(
        &self,
        parent: &EventId,
        kind: &RelationKind,
        limit: usize,
    ) -> Result<Vec<Relation>, ReadError> {
        let scan = Scan::prefix((parent, kind.as_str())).reverse().limit(limit);
        let rows = self.snapshot.scan(&RELATIONS, self.room_id, scan).await?.into_iter();
        let wanted = rows.filter(|((_, _, n, k), row)| {
            self.reaches(TimelineIndex { n: *n, k: *k })
                && !self.viewer.ignored.contains(&row.sender)
        });
        Ok(wanted.map(|(_, row)| row).collect())
    }

    /// The edit of an event that counts for the viewer, if there is any.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn newest_edit(&self, parent: &Seen) -> Result<Option<Seen>, ReadError> {
        let original = &parent.event.pdu;
        let mut edits =
            self.children(&original.event_id, &RelationKind::Replace, EDITS_MAX).await?;
        edits.retain(|edit| edit.sender == original.sender);
        let numbers: Vec<u64> = edits.iter().map(|edit| edit.event).collect();
        let edits = self.look(&numbers).await?.into_iter();
        let valid = edits.filter(|edit| relations::is_valid_edit(&edit.event.pdu, original));
        Ok(valid.max_by(|a, b| {
            let newness = |edit: &Seen| edit.event.pdu.origin_server_ts;
            let (a_id, b_id) = (&a.event.pdu.event_id, &b.event.pdu.event_id);
            newness(a).cmp(&newness(b)).then_with(|| a_id.cmp(b_id))
        }))
    }

    async fn references(&self, parent: &EventId) -> Result<Vec<OwnedEventId>, ReadError> {
        let kind = RelationKind::Reference;
        let references = self.children(parent, &kind, REFERENCES_MAX).await?;
        let numbers = references.iter().rev().map(|reference| reference.event);
        let headers = self.snapshot.get_many(&EVENT_HEADERS, self.room_id, numbers).await?;
        Ok(headers.into_iter().flatten().map(|header| header.event_id).collect())
    }

    /// The thread of an event, if it is the root of one of which the viewer may see anything.
    pub(super) async fn thread_at(&self, root: &Seen) -> Result<Option<Thread>, ReadError> {
        let root_id = &root.event.pdu.event_id;
        let Some(row) = self.snapshot.get(&THREADS, self.room_id, root_id).await? else {
            return Ok(None);
        };
        let Some(newest) = self.newest_in_thread(root_id, &row).await? else { return Ok(None) };
        let user = &self.viewer.user;
        let participated = root.event.pdu.sender == *user || self.sent_in(root_id, user).await? > 0;
        let count = match self.reach {
            Reach::UpToNow => {
                let mut count = row.count;
                for ignored in self.viewer.ignored.iter() {
                    count = count.saturating_sub(self.sent_in(root_id, ignored).await?);
                }
                count
            }
            Reach::UpToLeaving | Reach::Nothing => {
                let all = self.children(root_id, &RelationKind::Thread, usize::MAX).await?;
                all.len() as u64
            }
        };
        Ok(Some(Thread { newest, count, participated }))
    }

    async fn sent_in(&self, root: &EventId, user: &ruma::UserId) -> Result<u64, ReadError> {
        let sent = self.snapshot.get(&THREAD_SENDERS, self.room_id, (root, user)).await?;
        Ok(sent.unwrap_or(0))
    }

    async fn newest_in_thread(
        &self,
        root: &EventId,
        row: &ThreadRow,
    ) -> Result<Option<Seen>, ReadError> {
        if let Some(newest) = self.look(&[row.event]).await?.pop() {
            return Ok(Some(newest));
        }
        for older in self.children(root, &RelationKind::Thread, NEWEST_MAX).await? {
            if let Some(newest) = self.look(&[older.event]).await?.pop() {
                return Ok(Some(newest));
            }
        }
        Ok(None)
    }

    async fn render_bundle(&self, bundle: Bundle) -> Result<Option<String>, ReadError> {
        let mut text = String::new();
        let mut relations = Object::begin(&mut text);
        if let Some(edit) = &bundle.edit {
            let edit = self.render_one(edit, RoomIdField::Present).await?;
            relations.field("m.replace").push_str(edit.get());
        }
        if !bundle.references.is_empty() {
            let chunk: Vec<_> =
                bundle.references.iter().map(|event_id| Reference { event_id }).collect();
            relations.put("m.reference", &serde_json::json!({ "chunk": chunk }));
        }
        if let Some(Thread { newest, count, participated }) = &bundle.thread {
            let newest = self.render_one(newest, RoomIdField::Present).await?;
            let mut thread = relations.object("m.thread");
            thread.field("latest_event").push_str(newest.get());
            thread.put("count", count);
            thread.put("current_user_participated", participated);
            thread.end();
        }
        relations.end_unless_empty();
        Ok((!text.is_empty()).then_some(text))
    }
}
