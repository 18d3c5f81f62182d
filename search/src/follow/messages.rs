//! Indexing what was said in a room.

use std::collections::BTreeMap;

use millrace_domain::rooms::events;
use millrace_store::{
    Read, Scan, Snapshot,
    one_writer::view,
    rows::room::{RoomHead, TimelineRow},
    tables::{CURRENT_STATE, TIMELINE},
};
use ruma::{RoomId, events::TimelineEventType};

use super::{FollowError, Gathered, text_of};
use crate::{
    Search,
    index::{Change, Message},
};

/// With more changes of a room than so many, its whole timeline is looked through.
const CHANGES_MAX: usize = 4096;
/// Rows of a timeline are read so many at a time.
const ROWS_AT_ONCE: usize = 256;

type Place = (i64, i32);

impl Search {
    /// Indexes the events of a room that came after `since`, and returns the place of the first live
    /// one; none where nothing came.
    pub(super) async fn messages(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        since: u64,
        gathered: &mut Gathered,
    ) -> Result<Option<i64>, FollowError> {
        let encryption = encryption(snapshot, room).await?;
        if since == 0 && encryption.is_some() {
            return Ok(Some(0));
        }
        if since > 0
            && let Some(rows) = few_new_rows(snapshot, room, since).await?
        {
            let first = rows.iter().find(|((_, k), _)| *k == 0).map(|((n, _), _)| *n);
            for rows in rows.chunks(ROWS_AT_ONCE) {
                self.index_rows(snapshot, (room, head, encryption), rows, gathered).await?;
            }
            return Ok(first);
        }
        let (mut first, mut last): (Option<i64>, Option<Place>) = (None, None);
        loop {
            let scan = last.map_or_else(Scan::all, |last| Scan::all().after(last));
            let rows = snapshot.scan_stamped(&TIMELINE, room, scan.limit(ROWS_AT_ONCE)).await?;
            let Some((end, ..)) = rows.last() else { return Ok(first) };
            last = Some(*end);
            let new = rows.into_iter().filter(|(_, position, _)| position.seq > since);
            let new: Vec<_> = new.map(|(place, _, row)| (place, row)).collect();
            first = first.or(new.iter().find(|((_, k), _)| *k == 0).map(|((n, _), _)| *n));
            self.index_rows(snapshot, (room, head, encryption), &new, gathered).await?;
        }
    }

    async fn index_rows(
        &self,
        snapshot: &Snapshot,
        (room, head, encryption): (&RoomId, &RoomHead, Option<u64>),
        rows: &[(Place, TimelineRow)],
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
        if let Some(encryption) = encryption {
            let just_now = numbers.contains(&encryption);
            let forget = just_now.then(|| Change::NoMessages(room.to_owned()));
            return self.gather(gathered, forget).await;
        }
        if numbers.is_empty() {
            return Ok(());
        }
        let events = &self.rooms.events;
        let loaded = events.load_with_headers(snapshot, room, head, &numbers).await?;
        let now = u64::from(self.rooms.env.now().0);
        let mut changes = Vec::with_capacity(loaded.len());
        for (event, header) in loaded {
            let pdu = &event.pdu;
            match pdu.kind {
                TimelineEventType::RoomRedaction => {
                    let Some(target) = &pdu.redacts else { continue };
                    if let Some((number, header)) = events::find(snapshot, room, target).await?
                        && header.redacted_by.is_some()
                    {
                        changes.push(Change::NoMessage(number));
                    }
                }
                _ if header.redacted_by.is_none() => {
                    changes.extend(text_of(pdu).map(|text| {
                        Change::Message(Message {
                            room: room.to_owned(),
                            number: event.number,
                            kind: pdu.kind.to_string(),
                            sender: pdu.sender.clone(),
                            sent_ms: u64::from(pdu.origin_server_ts.0).min(now),
                            text,
                        })
                    }));
                }
                _ => {}
            }
        }
        self.gather(gathered, changes).await
    }
}

/// Number of the event that makes a room end-to-end encrypted: then nothing of it is indexed.
async fn encryption(snapshot: &Snapshot, room: &RoomId) -> millrace_store::Result<Option<u64>> {
    snapshot.get(&CURRENT_STATE, room, ("m.room.encryption", "")).await
}

/// Whether a room is end-to-end encrypted.
pub(crate) async fn is_encrypted(
    snapshot: &Snapshot,
    room: &RoomId,
) -> millrace_store::Result<bool> {
    Ok(encryption(snapshot, room).await?.is_some())
}

/// The rows of a timeline that came after `since`, in order; `None` where they are too many to list.
async fn few_new_rows(
    snapshot: &Snapshot,
    room: &RoomId,
    since: u64,
) -> Result<Option<Vec<(Place, TimelineRow)>>, FollowError> {
    let changes = snapshot.changes(room, &view(since), CHANGES_MAX).await?;
    if changes.len() >= CHANGES_MAX {
        return Ok(None);
    }
    let mut places = Vec::new();
    for change in changes.iter().filter(|change| change.table == TIMELINE.info().id) {
        places.push(TIMELINE.decode_key(&change.key)?);
    }
    let rows = snapshot.get_many(&TIMELINE, room, &places).await?;
    let rows: BTreeMap<Place, TimelineRow> =
        places.into_iter().zip(rows).filter_map(|(place, row)| Some((place, row?))).collect();
    Ok(Some(rows.into_iter().collect()))
}
