//! Transactions of other servers (spec: Server-Server API, Transactions).

use std::{borrow::Cow, collections::BTreeMap};

use futures::{FutureExt, future};
use millrace_domain::rooms::{ReadError, server_acl, servers};
use millrace_model::{Pdu, rules::room_version};
use millrace_store::{
    Read, Snapshot, Tx, rows::inbound::QueuedPdu, rows::room::RoomHead, tables::ROOM_HEAD,
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedTransactionId, RoomId, ServerName,
    api::federation::transactions::edu::Edu, serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Inbound, answers,
    queue::{self, Push},
};
use crate::membership::turned_away;

/// Events in one transaction, at most.
pub const PDUS_MAX: usize = 50;
/// Ephemeral messages in one transaction, at most.
pub const EDUS_MAX: usize = 100;

/// What another server sends at once.
#[derive(Debug)]
pub struct Transaction {
    /// Its ID: what is sent again has the same one.
    pub id: OwnedTransactionId,
    /// Events.
    pub pdus: Vec<Box<RawValue>>,
    /// What is not part of any room's history.
    pub edus: Vec<Raw<Edu>>,
}

/// What became of the events of a transaction: an error says why one was refused.
pub type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Why a transaction is refused as a whole, or must be sent again.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is too much in it.
    #[error("a transaction has at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs")]
    TooMany,
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error("a transaction cannot be stored")]
    Store(#[from] millrace_store::Error),
}

/// Where an event of unknown form says that it belongs.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    room_id: Option<Cow<'a, str>>,
}

/// The events of a transaction that are for one room.
#[derive(Default)]
struct Share {
    accepted: Vec<QueuedPdu>,
    refused: Vec<(OwnedEventId, String)>,
}

impl Inbound {
    /// Takes a transaction in. When this returns, its events lie in their rooms' durable queues, and
    /// its other messages have arrived.
    ///
    /// # Errors
    /// Where it must be sent again, or never in this form.
    pub async fn accept(
        &self,
        origin: &ServerName,
        transaction: Transaction,
    ) -> Result<Results, AcceptError> {
        let Transaction { id, pdus, edus } = transaction;
        if pdus.len() > PDUS_MAX || edus.len() > EDUS_MAX {
            return Err(AcceptError::TooMany);
        }
        let snapshot = self.env().store.snapshot();
        if let Some(answer) = answers::find(&snapshot, origin, &id).await? {
            return Ok(from_text(&answer));
        }
        let checks = by_room(pdus).into_iter().map(|(room, pdus)| {
            let snapshot = &snapshot;
            async move { Ok((room.clone(), self.check_room(origin, snapshot, &room, pdus).await?)) }
        });
        let shares = future::join_all(checks).await;
        let shares = shares.into_iter().collect::<Result<Vec<_>, AcceptError>>()?;
        self.apply_edus(origin, edus).await?;
        let results = self.store(origin, &id, &shares).await?;
        for (room, share) in shares {
            if !share.accepted.is_empty() {
                self.schedule.wake(room);
            }
        }
        Ok(results)
    }

    /// Puts what was accepted into the rooms' queues, in one commit with the answer.
    async fn store(
        &self,
        origin: &ServerName,
        id: &OwnedTransactionId,
        shares: &[(OwnedRoomId, Share)],
    ) -> Result<Results, AcceptError> {
        let limits = self.settings.queue;
        let body = |tx: Tx| {
            async move {
                if let Some(answer) = answers::find(&tx, origin, id).await? {
                    return Ok(from_text(&answer));
                }
                let mut results = Results::new();
                for (room, share) in shares {
                    let refused = share.refused.iter().cloned();
                    results.extend(refused.map(|(event, reason)| (event, Err(reason))));
                    let pushed = queue::push(&tx, room, &share.accepted, limits).await?;
                    for (pdu, pushed) in share.accepted.iter().zip(pushed) {
                        let result = match pushed {
                            Push::Queued => Ok(()),
                            Push::Full => Err("too much waits for this room".to_owned()),
                        };
                        results.insert(pdu.event_id.clone(), result);
                    }
                }
                answers::remember(&tx, origin, id, &to_text(&results)).await?;
                Ok::<_, AcceptError>(results)
            }
            .boxed()
        };
        self.env().store.transact(body).await
    }

    /// Checks what a transaction has for one room.
    async fn check_room(
        &self,
        origin: &ServerName,
        snapshot: &Snapshot,
        room: &RoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Share, AcceptError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else {
            // Of a room whose version is not known, events have no known ID to refuse them by.
            tracing::debug!(%origin, %room, count = pdus.len(), "events of an unknown room");
            self.hear_outside(origin, room, &pdus).await?;
            return Ok(Share::default());
        };
        let us = &self.env().identity.name;
        let reason = if !server_acl::admits(self.rooms(), snapshot, room, origin).await? {
            Some("the room's server ACL forbids it")
        } else if !servers::is_in_room(snapshot, room, us).await? {
            self.hear_outside(origin, room, &pdus).await?;
            Some("this server is not in the room")
        } else {
            None
        };
        if let Some(reason) = reason {
            tracing::debug!(%origin, %room, count = pdus.len(), reason, "events are refused");
            let refused = pdus.iter().filter_map(|raw| event_id(raw, &head));
            let refused = refused.map(|event| (event, reason.to_owned())).collect();
            return Ok(Share { refused, ..Share::default() });
        }
        Ok(self.check_events(origin, room, &head, pdus).await)
    }

    /// Events of a room that we are not in can say that users of ours are not invited any more.
    async fn hear_outside(
        &self,
        origin: &ServerName,
        room: &RoomId,
        pdus: &[Box<RawValue>],
    ) -> Result<(), AcceptError> {
        for pdu in pdus {
            turned_away::hear(&self.federation, origin, room, pdu).await?;
        }
        Ok(())
    }

    async fn check_events(
        &self,
        origin: &ServerName,
        room: &RoomId,
        head: &RoomHead,
        pdus: Vec<Box<RawValue>>,
    ) -> Share {
        let mut share = Share::default();
        let checked = self.federation.check_pdus(&head.version, pdus.clone()).await;
        for (raw, checked) in pdus.iter().zip(checked) {
            match checked {
                Ok(pdu) if pdu.room_id == room => share.accepted.push(queued(origin, &pdu)),
                Ok(pdu) => {
                    share.refused.push((pdu.event_id, "it belongs to another room".to_owned()));
                }
                Err(refusal) => {
                    let event = event_id(raw, head);
                    share.refused.extend(event.map(|event| (event, refusal.to_string())));
                }
            }
        }
        share
    }
}

fn queued(origin: &ServerName, pdu: &Pdu) -> QueuedPdu {
    QueuedPdu {
        origin: origin.to_owned(),
        event_id: pdu.event_id.clone(),
        json: pdu.json().to_string(),
        attempts: 0,
    }
}

/// The events by the room that they name. What names none is left out: nothing can be said of it.
fn by_room(pdus: Vec<Box<RawValue>>) -> BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> {
    let mut rooms = BTreeMap::<_, Vec<_>>::new();
    for raw in pdus {
        let place = serde_json::from_str::<Place<'_>>(raw.get());
        let room = place.ok().and_then(|place| RoomId::parse(place.room_id?).ok());
        if let Some(room) = room {
            rooms.entry(room).or_default().push(raw);
        }
    }
    rooms
}

/// The ID of an event that need not be valid.
fn event_id(raw: &RawValue, head: &RoomHead) -> Option<OwnedEventId> {
    let rules = room_version::rules(&head.version)?;
    Pdu::parse(raw.get(), rules).ok().map(|pdu| pdu.event_id)
}

/// Results as they are remembered: the reason, or an empty text where there is none.
fn to_text(results: &Results) -> String {
    let reason = |result: &Result<(), String>| result.clone().err().unwrap_or_default();
    let plain: BTreeMap<&EventId, String> =
        results.iter().map(|(event, result)| (&**event, reason(result))).collect();
    serde_json::to_string(&plain).expect("texts by texts are JSON")
}

fn from_text(text: &str) -> Results {
    let plain: BTreeMap<OwnedEventId, String> = serde_json::from_str(text).unwrap_or_default();
    let result = |reason: String| if reason.is_empty() { Ok(()) } else { Err(reason) };
    plain.into_iter().map(|(event, reason)| (event, result(reason))).collect()
}
