//! Catching up: what a server missed while it was down, room by room.
//!
//! Of a room in which little happened it is sent all, of another the newest events only: it asks for
//! what lies between, as far as it wants it. So an outage of days costs a few events for each room.

use millrace_domain::rooms::{Event, events::LoadError};
use millrace_store::{
    Read, Scan, Snapshot,
    rows::{
        outbox::{Reached, Walk},
        room::RoomHead,
    },
    tables::{EVENT_NUMBERS, OUTBOX, ROOM_HEAD, ROOM_SERVERS, SERVER_ROOMS},
};
use ruma::{OwnedRoomId, RoomId, ServerName};

use super::{
    Outbound, OutboundError,
    live::{Due, PDUS_MAX, commit_of, sees},
};

/// A room in which no more than so many events were missed is sent all of them.
const MISSED_MAX: usize = 20;
/// So many rooms are looked at at once.
const ROOMS_AT_ONCE: usize = 200;

/// Events of some rooms of a walk.
#[derive(Debug)]
pub(super) struct Stage {
    pub due: Vec<Due>,
    /// The rooms they are of.
    pub rooms: Vec<OwnedRoomId>,
    /// Rooms in which the server has nobody any more, and that it has been told all of.
    pub left: Vec<OwnedRoomId>,
    /// Where the walk goes on.
    pub end: Reached,
}

impl Outbound {
    /// The next events of a walk through the rooms that are shared with a server; its end where there
    /// are none.
    pub(super) async fn walk_on(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        (from, walk): (&Reached, &Walk),
    ) -> Result<Stage, OutboundError> {
        let mut walk = walk.clone();
        let mut stage = Stage {
            due: Vec::new(),
            rooms: Vec::new(),
            left: Vec::new(),
            end: Reached { seq: walk.until, skip: 0, walk: None, ..from.clone() },
        };
        loop {
            let mut scan = Scan::all().limit(ROOMS_AT_ONCE);
            if let Some(after) = &walk.after {
                scan = scan.after(&**after);
            }
            let rooms = snapshot.scan(&SERVER_ROOMS, server, scan).await?;
            let complete = rooms.len() < ROOMS_AT_ONCE;
            for (room, ()) in rooms {
                let (due, is_in) =
                    self.missed(snapshot, server, &room, (from.seq, walk.until)).await?;
                if stage.due.len() + due.len() > PDUS_MAX {
                    stage.end = Reached { walk: Some(walk), ..from.clone() };
                    return Ok(stage);
                }
                if !is_in {
                    stage.left.push(room.clone());
                }
                if !due.is_empty() {
                    stage.rooms.push(room.clone());
                    stage.due.extend(due);
                }
                walk.after = Some(room);
            }
            if complete {
                return Ok(stage);
            }
        }
    }

    /// What a server missed of a room, and whether it is still in it.
    pub(super) async fn missed(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        room: &RoomId,
        (since, until): (u64, u64),
    ) -> Result<(Vec<Due>, bool), OutboundError> {
        let stays = snapshot.get(&ROOM_SERVERS, room, server).await?.unwrap_or_default();
        let is_in = stays.joined > 0;
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else {
            return Ok((Vec::new(), is_in));
        };
        if commit_of(snapshot, room, head.outbox).await? <= since {
            return Ok((Vec::new(), is_in));
        }
        let rows = MISSED_MAX * 2;
        let rows = snapshot.scan_stamped(&OUTBOX, room, Scan::all().reverse().limit(rows)).await?;
        let all = rows.len() < MISSED_MAX * 2
            || rows.last().is_some_and(|(_, position, _)| position.seq <= since);
        let new = rows.into_iter().filter(|(_, position, row)| {
            since < position.seq && position.seq <= until && sees(server, &stays, row)
        });
        let mut due: Vec<Due> = new
            .map(|(place, position, row)| Due {
                seq: position.seq,
                room: room.to_owned(),
                place,
                row,
            })
            .collect();
        due.reverse();
        if all && due.len() <= MISSED_MAX {
            return Ok((due, is_in));
        }
        if is_in {
            let newest = self.extremities(snapshot, server, room, &head).await?;
            return Ok((newest, is_in));
        }
        // Of what it missed before it left, the leaving only.
        Ok((due.pop().into_iter().collect(), is_in))
    }

    /// The newest events of a room, but for those that are the server's own.
    async fn extremities(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        room: &RoomId,
        head: &RoomHead,
    ) -> Result<Vec<Due>, OutboundError> {
        let ids = head.extremities.iter().map(|end| &end.event.event_id);
        let numbers = snapshot.get_many(&EVENT_NUMBERS, room, ids).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let events = &self.federation.rooms.events;
        let newest = events.load(snapshot, room, &head.version, &numbers).await?;
        let mut others: Vec<_> =
            newest.iter().filter(|event| event.pdu.sender.server_name() != server).collect();
        others.sort_by_key(|event| event.pdu.depth);
        let too_many = others.len().saturating_sub(MISSED_MAX);
        Ok(others[too_many..].iter().map(|event| due(room, event, head)).collect())
    }

    /// Events as they are sent, in their order.
    pub(super) async fn load(
        &self,
        snapshot: &Snapshot,
        due: &[Due],
    ) -> Result<Vec<Box<serde_json::value::RawValue>>, OutboundError> {
        let mut pdus = Vec::with_capacity(due.len());
        for of_room in due.chunk_by(|a, b| a.room == b.room) {
            let room = &of_room[0].room;
            let numbers: Vec<u64> = of_room.iter().map(|due| due.row.event).collect();
            let head = snapshot.get(&ROOM_HEAD, room, ()).await?;
            let missing = || LoadError::Missing { room: room.clone(), number: numbers[0] };
            let head = head.ok_or_else(missing)?;
            let events = &self.federation.rooms.events;
            for (event, header) in events.load_with_headers(snapshot, room, &head, &numbers).await?
            {
                let json = match header.redacted_by {
                    None => event.pdu.json().to_string(),
                    Some(_) => redacted(&event, &head)?,
                };
                pdus.push(serde_json::value::RawValue::from_string(json)?);
            }
        }
        Ok(pdus)
    }
}

fn redacted(event: &Event, head: &RoomHead) -> Result<String, LoadError> {
    let rules = millrace_model::rules::room_version::rules(&head.version)
        .ok_or_else(|| LoadError::Version(head.version.clone()))?;
    Ok(event.redacted(rules)?.pdu.json().to_string())
}

fn due(room: &RoomId, event: &Event, head: &RoomHead) -> Due {
    let row = millrace_store::rows::outbox::OutboxRow {
        event: event.number,
        n: head.last,
        origin: None,
        also: None,
    };
    Due { seq: 0, room: room.to_owned(), place: 0, row }
}
