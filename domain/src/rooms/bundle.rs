//! Bundled aggregations: what an event's `m.relations` tells of its children (spec: Client-Server
//! API, Aggregations of child events). Annotations are not aggregated.

use millrace_model::{
    TimelineIndex,
    client_event::RoomIdField,
    relations::{self, RelationKind},
};
use millrace_store::{
    Read, Scan,
    rows::room::{EventHeader, Relation},
    tables::{EVENT_HEADERS, RELATIONS},
};
use ruma::OwnedEventId;
use serde::Serialize;

use super::{
    render::push,
    view::{ReadError, RoomView, Seen},
};

/// The newest edits that are looked through for the one that counts.
const EDITS_MAX: usize = 100;

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
    count: usize,
    /// Whether the viewer sent its root or any event in it.
    pub(super) participated: bool,
}

#[derive(Serialize)]
struct Reference<'a> {
    event_id: &'a OwnedEventId,
}

/// A child and its header.
type Child = (Relation, EventHeader);

impl RoomView<'_> {
    /// The text of `m.relations` for each of the events that has any. Events to which none relates
    /// cost nothing.
    pub(super) async fn bundles(&self, seen: &[Seen]) -> Result<Vec<Option<String>>, ReadError> {
        let mut bundles = vec![None; seen.len()];
        for (place, seen) in seen.iter().enumerate() {
            // Only history is aggregated, and of it only messages.
            if !seen.header.related || seen.membership.is_none() || seen.event.pdu.is_state() {
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
        let children = self.children(parent).await?;
        let of_kind = |kind: RelationKind| {
            children.iter().filter(move |(row, _)| row.rel_type == kind.as_str())
        };
        let references = of_kind(RelationKind::Reference);
        Ok(Bundle {
            edit: match redacted {
                true => None,
                false => self.newest_edit(parent, of_kind(RelationKind::Replace)).await?,
            },
            references: references.map(|(_, header)| header.event_id.clone()).collect(),
            thread: match kind {
                Some(_) => None, // What relates to something is no root.
                None => self.thread(parent, of_kind(RelationKind::Thread)).await?,
            },
        })
    }

    /// The children that may be aggregated, oldest first: within reach, not redacted, not by
    /// somebody ignored.
    async fn children(&self, parent: &Seen) -> Result<Vec<Child>, ReadError> {
        let scan = Scan::prefix(&parent.event.pdu.event_id);
        let mut rows: Vec<_> = self.snapshot.scan(&RELATIONS, self.room_id, scan).await?;
        rows.retain(|((_, n, k), row)| {
            row.rel_type != RelationKind::Annotation.as_str()
                && self.reaches(TimelineIndex { n: *n, k: *k })
                && !self.viewer.ignored.contains(&row.sender)
        });
        let numbers = rows.iter().map(|(_, row)| row.event);
        let headers = self.snapshot.get_many(&EVENT_HEADERS, self.room_id, numbers).await?;
        Ok(rows
            .into_iter()
            .zip(headers)
            .filter_map(|((_, row), header)| Some((row, header?)))
            .filter(|(_, header)| header.redacted_by.is_none())
            .collect())
    }

    async fn newest_edit<'c>(
        &self,
        parent: &Seen,
        edits: impl DoubleEndedIterator<Item = &'c Child>,
    ) -> Result<Option<Seen>, ReadError> {
        let original = &parent.event.pdu;
        let numbers: Vec<u64> = edits
            .rev()
            .filter(|(row, _)| row.sender == original.sender)
            .take(EDITS_MAX)
            .map(|(row, _)| row.event)
            .collect();
        if numbers.is_empty() {
            return Ok(None);
        }
        let edits = self.look(&numbers).await?.into_iter();
        let valid = edits.filter(|edit| relations::is_valid_edit(&edit.event.pdu, original));
        Ok(valid.max_by(|a, b| {
            let newness = |edit: &Seen| edit.event.pdu.origin_server_ts;
            let (a_id, b_id) = (&a.event.pdu.event_id, &b.event.pdu.event_id);
            newness(a).cmp(&newness(b)).then_with(|| a_id.cmp(b_id))
        }))
    }

    async fn thread<'c>(
        &self,
        root: &Seen,
        threaded: impl DoubleEndedIterator<Item = &'c Child>,
    ) -> Result<Option<Thread>, ReadError> {
        let threaded: Vec<_> = threaded.collect();
        let user = &self.viewer.user;
        for (row, _) in threaded.iter().rev() {
            let Some(newest) = self.look(&[row.event]).await?.pop() else { continue };
            let participated = root.event.pdu.sender == *user
                || threaded.iter().any(|(row, _)| row.sender == *user);
            return Ok(Some(Thread { newest, count: threaded.len(), participated }));
        }
        Ok(None)
    }

    /// The thread of an event, if it is the root of one of which the viewer may see anything.
    pub(super) async fn thread_at(&self, root: &Seen) -> Result<Option<Thread>, ReadError> {
        Ok(self.bundle(root).await?.thread)
    }

    async fn render_bundle(&self, bundle: Bundle) -> Result<Option<String>, ReadError> {
        let mut text = String::new();
        if let Some(edit) = &bundle.edit {
            push(&mut text, "m.replace", &self.render_one(edit, RoomIdField::Present).await?);
        }
        if !bundle.references.is_empty() {
            let chunk: Vec<_> =
                bundle.references.iter().map(|event_id| Reference { event_id }).collect();
            push(&mut text, "m.reference", &serde_json::json!({ "chunk": chunk }));
        }
        if let Some(Thread { newest, count, participated }) = &bundle.thread {
            let newest = self.render_one(newest, RoomIdField::Present).await?;
            text.push_str(",\"m.thread\":{\"latest_event\":");
            text.push_str(newest.get());
            push(&mut text, "count", count);
            push(&mut text, "current_user_participated", participated);
            text.push('}');
        }
        if text.is_empty() {
            return Ok(None);
        }
        text.replace_range(..1, "{"); // The first field's comma.
        text.push('}');
        Ok(Some(text))
    }
}
