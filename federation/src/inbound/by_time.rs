//! Events that other servers have closer to a time than we (spec: Server-Server API,
//! `timestamp_to_event`).

use std::sync::Arc;

use millrace_domain::rooms::gap;
use millrace_store::{Read, tables::ROOM_HEAD};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomId,
    api::{Direction, federation::event::get_event_by_timestamp::v1 as get_event_by_timestamp},
};

use super::{Inbound, fetch::Fetcher};

/// After every place of a timeline.
const NEWEST: (i64, i32) = (i64::MAX, 0);

/// Whether more of a room's history is here than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Inbound {
    /// Where history of a room is missing here, asks other servers for the event closest to a time.
    /// Where theirs is closer than that at `known`, fetches history up to it.
    pub async fn fetch_closer(
        self: &Arc<Self>,
        room: &RoomId,
        (wanted, direction): (MilliSecondsSinceUnixEpoch, Direction),
        known: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Fetched {
        let snapshot = self.env().store.snapshot();
        let is_gap = gap::before(&snapshot, room, NEWEST).await.is_ok_and(|gap| gap.is_some());
        if !is_gap || known == Some(wanted) {
            return Fetched::No;
        }
        let Ok(Some(head)) = snapshot.get(&ROOM_HEAD, room, ()).await else { return Fetched::No };
        let Ok(fetcher) = Fetcher::new(self, (room, &head.version), &[]).await else {
            return Fetched::No;
        };
        let Some(found) = fetcher.closest(wanted, direction).await else { return Fetched::No };
        let get_event_by_timestamp::Response { event_id, origin_server_ts: at, .. } = found;
        let fits = match direction {
            Direction::Forward => at >= wanted,
            Direction::Backward => at <= wanted,
        };
        let distance =
            |at: MilliSecondsSinceUnixEpoch| u64::from(at.0).abs_diff(u64::from(wanted.0));
        let is_closer = known.is_none_or(|known| distance(at) < distance(known));
        match fits && is_closer && self.fill_up_to(room, NEWEST, &event_id).await {
            true => Fetched::Yes,
            false => Fetched::No,
        }
    }
}
