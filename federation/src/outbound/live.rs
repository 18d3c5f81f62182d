//! The events that a server is sent as they happen.

use millrace_domain::rooms::OUTBOX_KEPT;
use millrace_store::{
    Read, Scan, Snapshot,
    one_writer::WRITER,
    rows::outbox::{OutboxRow, Reached, ServerInRoom},
    tables::{OUTBOX, ROOM_SERVERS},
};
use ruma::{OwnedRoomId, RoomId, ServerName};

/// So many events are in one transaction at most (spec: Server-Server API, Transactions).
pub(super) const PDUS_MAX: usize = 50;
/// So many rows of an outbox are read at once.
const ROWS_AT_ONCE: usize = 2 * PDUS_MAX;
/// An outbox holds no more rows than these, so no commit in it does.
const COMMIT_MAX: usize = OUTBOX_KEPT as usize + 1;
/// So many are read where no more are expected to be new.
const ROWS_AT_ONCE_MOSTLY: usize = 4;

/// An event to be sent.
#[derive(Debug, Clone)]
pub(super) struct Due {
    /// The commit that queued it.
    pub seq: u64,
    pub room: OwnedRoomId,
    /// Its place in the room's outbox.
    pub place: u64,
    pub row: OutboxRow,
}

/// What follows a point in the outboxes of some rooms.
#[derive(Debug)]
pub(super) struct Found {
    /// Oldest first.
    pub due: Vec<Due>,
    /// Everything up to this commit was looked at.
    pub up_to: u64,
}

/// What `server` may see of the outboxes of `rooms`, after commit `since` and up to `up_to`.
pub(super) async fn find(
    snapshot: &Snapshot,
    server: &ServerName,
    rooms: impl Iterator<Item = &OwnedRoomId>,
    (since, up_to): (u64, u64),
) -> millrace_store::Result<Found> {
    let mut found = Found { due: Vec::new(), up_to };
    for room in rooms {
        let rows = rows_after(snapshot, room, since).await?;
        if rows.len() >= ROWS_AT_ONCE
            && let Some(((_, first, _), (_, last, _))) = rows.first().zip(rows.last())
        {
            // There may be more: it is looked for another time. The last commit may not be whole, but
            // where it is the only one.
            let whole = if first == last { *last } else { last.saturating_sub(1) };
            found.up_to = found.up_to.min(whole);
        }
        let stays = snapshot.get(&ROOM_SERVERS, room, server).await?.unwrap_or_default();
        found.due.extend(
            rows.into_iter()
                .filter(|(_, _, row)| sees(server, &stays, row))
                .map(|(place, seq, row)| Due { seq, room: room.clone(), place, row }),
        );
    }
    let reached = found.up_to;
    found.due.retain(|due| due.seq <= reached);
    found.due.sort_by(|a, b| (a.seq, &a.room, a.place).cmp(&(b.seq, &b.room, b.place)));
    Ok(found)
}

/// Whether a server is to be told of an event of a room's outbox.
pub(super) fn sees(server: &ServerName, stays: &ServerInRoom, row: &OutboxRow) -> bool {
    let has_it = row.origin.as_deref() == Some(server);
    !has_it && (stays.sees(row.n) || row.also.as_deref() == Some(server))
}

/// The oldest rows of a room's outbox after commit `since`: place, commit, row.
async fn rows_after(
    snapshot: &Snapshot,
    room: &RoomId,
    since: u64,
) -> millrace_store::Result<Vec<(u64, u64, OutboxRow)>> {
    // Mostly one row is new, so it is looked for at the end.
    let newest = Scan::all().reverse().limit(ROWS_AT_ONCE_MOSTLY);
    let rows = snapshot.scan_stamped(&OUTBOX, room, newest).await?;
    let oldest = rows.last().map(|(place, position, _)| (*place, position.seq));
    let rows = match oldest {
        Some((place, seq)) if seq > since && rows.len() == ROWS_AT_ONCE_MOSTLY => {
            let first = first_after(snapshot, room, since, place).await?;
            let scan = |limit| Scan::all().from(first).limit(limit);
            let mut rows = snapshot.scan_stamped(&OUTBOX, room, scan(ROWS_AT_ONCE)).await?;
            let (begins, ends) = (rows.first(), rows.last());
            if let (Some((_, begin, _)), Some((_, end, _))) = (begins, ends)
                && rows.len() == ROWS_AT_ONCE
                && begin == end
            {
                // A commit that is larger is read whole: parts of it are told apart by counting.
                let seq = begin.seq;
                rows = snapshot.scan_stamped(&OUTBOX, room, scan(COMMIT_MAX)).await?;
                rows.retain(|(_, position, _)| position.seq == seq);
            }
            rows
        }
        _ => rows.into_iter().rev().filter(|(_, position, _)| position.seq > since).collect(),
    };
    Ok(rows.into_iter().map(|(place, position, row)| (place, position.seq, row)).collect())
}

/// The place of the oldest row after commit `since`, at or before `place`, which is such a row: commits
/// rise with places, so it is found by halving.
async fn first_after(
    snapshot: &Snapshot,
    room: &RoomId,
    since: u64,
    place: u64,
) -> millrace_store::Result<u64> {
    let (mut old, mut new) = (place.saturating_sub(OUTBOX_KEPT), place);
    while new - old > 1 {
        let middle = old.midpoint(new);
        // A row that has expired is old.
        if commit_of(snapshot, room, middle).await? > since { new = middle } else { old = middle }
    }
    Ok(new)
}

/// Cuts what was found to one transaction, and says which point is reached with it.
pub(super) fn cut(mut found: Found, from: &Reached, pdus_max: usize) -> (Vec<Due>, Reached) {
    let skip = from.skip as usize;
    let mut end = Reached { seq: found.up_to, skip: 0, ..from.clone() };
    if found.due.len() > skip + pdus_max {
        let next = found.due[skip + pdus_max].seq;
        found.due.truncate(skip + pdus_max);
        end.seq = next - 1;
        let of_next = found.due.iter().filter(|due| due.seq == next).count();
        end.skip = u32::try_from(of_next).unwrap_or(u32::MAX);
    }
    found.due.drain(..skip.min(found.due.len()));
    (found.due, end)
}

/// The events between two points: those of a transaction that is repeated.
pub(super) fn between(mut found: Found, from: &Reached, end: &Reached) -> Vec<Due> {
    let before = found.due.iter().take_while(|due| due.seq <= end.seq).count();
    found.due.truncate(before + end.skip as usize);
    found.due.drain(..(from.skip as usize).min(found.due.len()));
    found.due.truncate(PDUS_MAX);
    found.due
}

/// The commit of a row of a room's outbox; 0 where it has expired.
pub(super) async fn commit_of(
    snapshot: &Snapshot,
    room: &RoomId,
    place: u64,
) -> millrace_store::Result<u64> {
    let row = snapshot.get_stamped(&OUTBOX, room, place).await?;
    Ok(row
        .filter(|(position, _)| position.writer == WRITER)
        .map_or(0, |(position, _)| position.seq))
}

#[cfg(test)]
mod tests {
    use ruma::owned_room_id;

    use super::*;

    fn found(commits: &[u64]) -> Found {
        let due = |(place, seq): (usize, &u64)| Due {
            seq: *seq,
            room: owned_room_id!("!r:x"),
            place: place as u64,
            row: OutboxRow { event: place as u64, n: place as i64, origin: None, also: None },
        };
        Found { due: commits.iter().enumerate().map(due).collect(), up_to: 100 }
    }

    fn events(due: &[Due]) -> Vec<u64> {
        due.iter().map(|due| due.row.event).collect()
    }

    #[test]
    fn what_fits_reaches_the_end() {
        let (due, end) = cut(found(&[5, 6, 7]), &Reached::default(), 3);
        assert_eq!(events(&due), [0, 1, 2]);
        assert_eq!((end.seq, end.skip), (100, 0));
    }

    #[test]
    fn a_commit_with_more_events_than_fit_is_sent_in_parts_and_each_event_once() {
        let commits = [5, 6, 6, 6, 6, 7];
        let mut from = Reached::default();
        let mut sent = Vec::new();
        for _ in 0..4 {
            let mut rest = found(&commits);
            rest.due.retain(|due| due.seq > from.seq);
            let again = between(
                Found { due: rest.due.clone(), up_to: rest.up_to },
                &from,
                &cut(Found { due: rest.due.clone(), up_to: rest.up_to }, &from, 2).1,
            );
            let (due, end) = cut(rest, &from, 2);
            assert_eq!(events(&again), events(&due), "repeating sends the same");
            sent.extend(events(&due));
            from = end;
        }
        assert_eq!(sent, [0, 1, 2, 3, 4, 5]);
        assert_eq!((from.seq, from.skip), (100, 0));
    }
}
