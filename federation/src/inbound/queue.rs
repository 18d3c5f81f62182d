//! The queue of events that wait to be received into a room: durable, bounded, in the order of
//! their arrival.

use std::time::Duration;

use futures::FutureExt;
use millrace_domain::Env;
use millrace_store::{
    Error, Node, Read, Scan, Tx,
    rows::inbound::{InboundHead, QueuedPdu},
    tables::{INBOUND, INBOUND_HEAD, INBOUND_PUT_OFF, INBOUND_ROOMS},
};
use ruma::{OwnedRoomId, RoomId};

use super::QueueLimits;

/// Events that are taken from a queue at once.
pub(super) const BATCH_MAX: usize = 50;
/// Events that were put off are taken back into the queue so many at once.
const TAKEN_BACK_MAX: usize = 50;
/// An event that was tried in vain so often is dropped: it comes back where a later one refers to
/// it.
const ATTEMPTS_MAX: u32 = 6;
/// How long the first trial in vain puts an event off; each further one four times as long.
const FIRST_DELAY: Duration = Duration::from_secs(15);

/// A place for an event in a room's queue, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// It is in the queue.
    Queued,
    /// The queue is full.
    Full,
}

/// Adds events to a room's queue, as far as it may grow; says of each whether it did.
pub(super) async fn push(
    tx: &Tx,
    room: &RoomId,
    pdus: &[QueuedPdu],
    limits: QueueLimits,
) -> Result<Vec<Push>, Error> {
    let mut head = tx.get(&INBOUND_HEAD, room, ()).await?.unwrap_or_default();
    let mut pushed = Vec::with_capacity(pdus.len());
    for pdu in pdus {
        let bytes = head.bytes + pdu.json.len() as u64;
        if head.queued() + head.put_off >= limits.events_max || bytes > limits.bytes_max {
            pushed.push(Push::Full);
            continue;
        }
        head.last += 1;
        head.bytes = bytes;
        tx.put(&INBOUND, room, head.last, pdu);
        pushed.push(Push::Queued);
    }
    write_head(tx, room, &head);
    Ok(pushed)
}

/// The head is kept while something waits, and the room is listed as long.
fn write_head(tx: &Tx, room: &RoomId, head: &InboundHead) {
    if head.is_idle() {
        tx.delete(&INBOUND_HEAD, room, ());
        tx.delete(&INBOUND_ROOMS, Node, room);
    } else {
        tx.put(&INBOUND_HEAD, room, (), head);
        tx.put(&INBOUND_ROOMS, Node, room, &());
    }
}

/// The rooms for which something waits, as when the server starts.
pub(super) async fn waiting_rooms(env: &Env) -> Result<Vec<OwnedRoomId>, Error> {
    let rooms = env.store.snapshot().scan(&INBOUND_ROOMS, Node, Scan::all()).await?;
    Ok(rooms.into_iter().map(|(room, ())| room).collect())
}

/// What a room's worker finds.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Nothing.
    Nothing,
    /// Events that are put off until then, in milliseconds since 1970.
    Until(u64),
    /// Its oldest events.
    Events(Vec<(u64, QueuedPdu)>),
}

/// The oldest events of a room's queue, after those that are due again are back in it.
pub(super) async fn oldest(env: &Env, room: &RoomId) -> Result<Waiting, Error> {
    let now = u64::from(env.now().get());
    let snapshot = env.store.snapshot();
    let Some(mut head) = snapshot.get(&INBOUND_HEAD, room, ()).await? else {
        return Ok(Waiting::Nothing);
    };
    if head.put_off > 0 && head.due_ms <= now {
        head = take_back(env, room, now).await?;
    }
    if head.queued() == 0 {
        return Ok(if head.is_idle() { Waiting::Nothing } else { Waiting::Until(head.due_ms) });
    }
    let scan = Scan::all().from(head.first).up_to(head.last).limit(BATCH_MAX);
    Ok(Waiting::Events(env.store.snapshot().scan(&INBOUND, room, scan).await?))
}

/// Puts events whose time has come to the end of the queue.
async fn take_back(env: &Env, room: &RoomId, now: u64) -> Result<InboundHead, Error> {
    let body = |tx: Tx| {
        async move {
            let mut head = tx.get(&INBOUND_HEAD, room, ()).await?.unwrap_or_default();
            let scan = Scan::all().limit(TAKEN_BACK_MAX + 1);
            let rows = tx.scan(&INBOUND_PUT_OFF, room, scan).await?;
            let is_due = |((due, _), _): &&((u64, u64), QueuedPdu)| *due <= now;
            let due = rows.iter().take(TAKEN_BACK_MAX).filter(is_due).count();
            for (key, pdu) in &rows[..due] {
                tx.delete(&INBOUND_PUT_OFF, room, *key);
                head.last += 1;
                head.bytes += pdu.json.len() as u64;
                tx.put(&INBOUND, room, head.last, pdu);
            }
            head.put_off -= due as u64;
            head.due_ms = rows.get(due).map_or(0, |((due, _), _)| *due);
            write_head(&tx, room, &head);
            Ok::<_, Error>(head)
        }
        .boxed()
    };
    env.store.transact_in(room, body).await
}

/// What became of an event that was taken from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done with, one way or the other.
    Done,
    /// Those who could help cannot be asked now.
    PutOff,
}

/// Takes events off the queue: those done with for good, the others until later.
pub(super) async fn finish(
    env: &Env,
    room: &RoomId,
    outcomes: &[(u64, QueuedPdu, Outcome)],
) -> Result<(), Error> {
    let now = u64::from(env.now().get());
    let body = |tx: Tx| {
        async move {
            let mut head = tx.get(&INBOUND_HEAD, room, ()).await?.unwrap_or_default();
            for (n, pdu, outcome) in outcomes {
                tx.delete(&INBOUND, room, *n);
                head.first = head.first.max(n + 1);
                head.bytes = head.bytes.saturating_sub(pdu.json.len() as u64);
                if *outcome == Outcome::PutOff {
                    put_off(&tx, room, &mut head, (*n, pdu), now);
                }
            }
            write_head(&tx, room, &head);
            Ok::<_, Error>(())
        }
        .boxed()
    };
    env.store.transact_in(room, body).await
}

fn put_off(tx: &Tx, room: &RoomId, head: &mut InboundHead, (n, pdu): (u64, &QueuedPdu), now: u64) {
    let pdu = QueuedPdu { attempts: pdu.attempts + 1, ..pdu.clone() };
    if pdu.attempts >= ATTEMPTS_MAX {
        tracing::info!(%room, event = %pdu.event_id, "an event was given up: it lacks others");
        return;
    }
    let delay = FIRST_DELAY.saturating_mul(4_u32.saturating_pow(pdu.attempts - 1));
    let due = now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    head.due_ms = if head.put_off == 0 { due } else { head.due_ms.min(due) };
    head.put_off += 1;
    tx.put(&INBOUND_PUT_OFF, room, (due, n), &pdu);
}
