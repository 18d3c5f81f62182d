//! Keeping what relates to what: written with an event that relates to another, taken back when it
//! is redacted (spec: Client-Server API, Aggregations of child events).

use std::sync::Arc;

use millrace_model::{
    Pdu,
    relations::{Relation as RelatesTo, RelationKind},
    rules::redaction,
};
use millrace_store::{
    Read, Scan,
    rows::room::{EventHeader, Relation, ThreadRow},
    state_tree::StateRoot,
    tables::{
        EVENT_HEADERS, EVENT_NUMBERS, REDACTIONS_WAITING, RELATIONS, THREAD_SENDERS, THREADS,
        THREADS_BY_NEWEST,
    },
};
use ruma::{EventId, UserId};

use super::{AppendError, Event, RoomTx, events};

/// So many events that concern one that comes later are looked at.
const LATE_MAX: usize = 1000;

impl RoomTx<'_> {
    /// Writes what an event relates to, if the room has that.
    pub(super) async fn write_relations(
        &mut self,
        event: &Event,
        (n, k): (i64, i32),
    ) -> Result<(), AppendError> {
        let Some(relates_to) = RelatesTo::of(&event.pdu) else { return Ok(()) };
        let (tx, room, parent_id) = (self.tx, &self.room_id, &*relates_to.parent);
        let row = Relation {
            rel_type: relates_to.kind.as_str().to_owned(),
            kind: event.pdu.kind.to_string(),
            sender: event.pdu.sender.clone(),
            event: event.number,
            key: relates_to.key.clone(),
        };
        tx.put(&RELATIONS, room, (parent_id, &row.rel_type, n, k), &row);
        // A parent that comes later finds the row.
        let Some(number) = tx.get(&EVENT_NUMBERS, room, parent_id).await? else { return Ok(()) };
        let parent = self.event(number).await?;
        self.relate(number, &parent.pdu, (event, &relates_to), n).await
    }

    /// Notes at a parent that a child relates to it.
    async fn relate(
        &mut self,
        number: u64,
        parent: &Pdu,
        (child, relates_to): (&Event, &RelatesTo),
        n: i64,
    ) -> Result<(), AppendError> {
        let valid = relates_to.is_valid(&child.pdu, parent);
        if let Some(header) = self.tx.get(&EVENT_HEADERS, &self.room_id, number).await? {
            let aggregated = valid && is_aggregated(&relates_to.kind);
            self.mark_related(number, header, aggregated);
        }
        if valid && relates_to.kind == RelationKind::Thread {
            self.grow_thread(&relates_to.parent, child, n).await?;
        }
        Ok(())
    }

    fn mark_related(&mut self, number: u64, mut header: EventHeader, aggregated: bool) {
        if header.related && (header.aggregated || !aggregated) {
            return;
        }
        header.related = true;
        header.aggregated |= aggregated;
        self.amend(number, &header);
    }

    async fn grow_thread(&self, root: &EventId, event: &Event, n: i64) -> Result<(), AppendError> {
        let (tx, room) = (self.tx, &self.room_id);
        let old = tx.get(&THREADS, room, root).await?;
        let count = old.as_ref().map_or(0, |old| old.count) + 1;
        let row = match &old {
            // Filled in: older than what is known.
            Some(old) if old.newest >= n => ThreadRow { count, ..old.clone() },
            _ => ThreadRow { newest: n, event: event.number, count },
        };
        self.put_thread(root, old.as_ref(), Some(&row));
        let key = (root, &*event.pdu.sender);
        let sent = tx.get(&THREAD_SENDERS, room, key).await?.unwrap_or(0);
        tx.put(&THREAD_SENDERS, room, key, &(sent + 1));
        Ok(())
    }

    fn put_thread(&self, root: &EventId, old: Option<&ThreadRow>, new: Option<&ThreadRow>) {
        let (tx, room) = (self.tx, &self.room_id);
        if let Some(old) = old {
            tx.delete(&THREADS_BY_NEWEST, room, (old.newest, root));
        }
        match new {
            Some(new) => {
                tx.put(&THREADS, room, root, new);
                tx.put(&THREADS_BY_NEWEST, room, (new.newest, root), &());
            }
            None => tx.delete(&THREADS, room, root),
        }
    }

    /// Marks what a redaction redacts, where its sender may (spec: Room version 3, Handling
    /// redactions).
    pub(super) async fn write_redaction(
        &mut self,
        event: &Event,
        before: StateRoot,
    ) -> Result<(), AppendError> {
        let Some(target) = &event.pdu.redacts else { return Ok(()) };
        let found = events::find(self.tx, &self.room_id, target).await?;
        let Some((number, mut header)) = found else {
            self.tx.put(&REDACTIONS_WAITING, &self.room_id, (target, event.number), &());
            return Ok(());
        };
        let target = self.event(number).await?;
        let levels = self.power_levels_at(before).await?;
        if header.redacted_by.is_none()
            && redaction::applies(&event.pdu, &target.pdu, &levels, self.rules)
        {
            header.redacted_by = Some(event.number);
            self.amend(number, &header);
            self.break_relation(&target, &header).await?;
        }
        Ok(())
    }

    /// Settles what came before an event that it concerns: redactions of it, and events that relate
    /// to it. `outlier` is its header from the time when it was one.
    pub(super) async fn settle_late(
        &mut self,
        event: &Event,
        outlier: Option<&EventHeader>,
    ) -> Result<(), AppendError> {
        let (tx, id) = (self.tx, &*event.pdu.event_id);
        let scan = Scan::prefix(id).limit(LATE_MAX);
        for ((_, number), ()) in tx.scan(&REDACTIONS_WAITING, &self.room_id, scan).await? {
            tx.delete(&REDACTIONS_WAITING, &self.room_id, (id, number));
            let redaction = self.event(number).await?;
            let header = tx.get(&EVENT_HEADERS, &self.room_id, number).await?;
            if let Some(before) = header.and_then(|header| header.before) {
                self.write_redaction(&redaction, before).await?;
            }
        }
        if outlier.is_some_and(|header| header.related) {
            return Ok(());
        }
        let scan = Scan::prefix(id).limit(LATE_MAX);
        for ((_, _, n, _), row) in tx.scan(&RELATIONS, &self.room_id, scan).await? {
            let child = self.event(row.event).await?;
            let Some(relates_to) = RelatesTo::of(&child.pdu) else { continue };
            self.relate(event.number, &event.pdu, (&child, &relates_to), n).await?;
        }
        Ok(())
    }

    /// "When a child event is redacted then the relationship is broken."
    async fn break_relation(
        &self,
        child: &Arc<Event>,
        header: &EventHeader,
    ) -> Result<(), AppendError> {
        let Some((relates_to, (n, k))) = RelatesTo::of(&child.pdu).zip(header.place) else {
            return Ok(());
        };
        let (tx, room, root) = (self.tx, &self.room_id, &*relates_to.parent);
        let key = (root, relates_to.kind.as_str(), n, k);
        if tx.get(&RELATIONS, room, key).await?.is_none() {
            return Ok(());
        }
        tx.delete(&RELATIONS, room, key);
        let thread = match relates_to.kind {
            RelationKind::Thread => tx.get(&THREADS, room, root).await?,
            _ => None,
        };
        match thread {
            Some(thread) => self.shrink_thread(root, &thread, child).await,
            None => Ok(()),
        }
    }

    async fn shrink_thread(
        &self,
        root: &EventId,
        old: &ThreadRow,
        child: &Event,
    ) -> Result<(), AppendError> {
        let (tx, room) = (self.tx, &self.room_id);
        let sender: &UserId = &child.pdu.sender;
        match tx.get(&THREAD_SENDERS, room, (root, sender)).await? {
            Some(sent @ 2..) => tx.put(&THREAD_SENDERS, room, (root, sender), &(sent - 1)),
            _ => tx.delete(&THREAD_SENDERS, room, (root, sender)),
        }
        let scan = Scan::prefix((root, RelationKind::Thread.as_str())).reverse().limit(1);
        let newest = tx.scan(&RELATIONS, room, scan).await?.pop();
        let new = newest.map(|((_, _, n, _), row)| ThreadRow {
            newest: n,
            event: row.event,
            count: old.count.saturating_sub(1),
        });
        self.put_thread(root, Some(old), new.as_ref());
        Ok(())
    }
}

/// Whether children of this kind are told of at their parent.
const fn is_aggregated(kind: &RelationKind) -> bool {
    matches!(kind, RelationKind::Replace | RelationKind::Reference | RelationKind::Thread)
}
