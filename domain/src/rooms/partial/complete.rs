//! Completing a partial room, step by step.

use futures::FutureExt;
use millrace_store::{Read, Tx, tables::COMPLETION};
use ruma::RoomId;

use super::{CompleteError, replay::Played};
use crate::rooms::{Numbers, RoomTx, Rooms};

/// How far a step has brought a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is complete, or gone.
    Complete,
    /// The next step goes on.
    GoesOn,
    /// A state is wanted first: see [`super::settle::wanted`].
    Wanting,
}

/// How much one commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Events that are judged again.
    pub events: usize,
    /// Entries that are added to the current state. With fewer that are lacking, the complete state
    /// takes its place at once.
    pub entries: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { events: 50, entries: 1000 }
    }
}

/// Brings a partial room one commit nearer to being complete.
///
/// # Errors
/// Where the store fails.
pub async fn step(rooms: &Rooms, room_id: &RoomId, pace: Pace) -> Result<Progress, CompleteError> {
    // Who takes over the room again writes its flat rows without its head.
    let _turn = rooms.imports.turn(room_id).await;
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let Some(mut room) = room.filter(|room| room.head.partial.is_some()) else {
                return Ok(Progress::Complete);
            };
            let mut completion = tx.get(&COMPLETION, room_id, ()).await?.unwrap_or_default();
            let progress = match room.replay(&mut completion, pace.events).await? {
                Played::UpToWanted => Progress::Wanting,
                Played::Some => Progress::GoesOn,
                Played::All => {
                    let grew = room.grow(&completion, pace.entries).await?;
                    if !grew {
                        room.find_untold(&mut completion).await?;
                    }
                    if grew || room.uncount_servers(&completion).await? {
                        Progress::GoesOn
                    } else {
                        room.complete(completion).await?;
                        room.finish();
                        return Ok(Progress::Complete);
                    }
                }
            };
            tx.put(&COMPLETION, room_id, (), &completion);
            room.finish();
            Ok::<_, CompleteError>(progress)
        }
        .boxed()
    };
    rooms.env.store.transact_in(room_id, body).await
}
