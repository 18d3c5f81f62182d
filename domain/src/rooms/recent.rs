//! What many syncs read of a room again and again: remembered as long as it cannot have changed.

use std::sync::Arc;

use lru::LruCache;
use millrace_store::{
    News, PartitionId, Read, Scan, Snapshot, Store, View, rows::room::TimelineRow, tables::TIMELINE,
};
use parking_lot::Mutex;
use ruma::OwnedRoomId;

use super::{gap, view::RoomView};

/// Of so many rooms something is remembered.
const ROOMS_MAX: usize = 10_000;
/// So many rows of a timeline are remembered; who wants more reads them.
const ROWS_MAX: usize = 32;

/// A value for each of many rooms, made from synced rows of the room's partition, which is right
/// until that partition has news.
pub struct UntilNews<T> {
    rooms: Mutex<LruCache<PartitionId, (View, T)>>,
}

impl<T> Default for UntilNews<T> {
    fn default() -> Self {
        let capacity = ROOMS_MAX.try_into().expect("the capacity is not zero");
        Self { rooms: Mutex::new(LruCache::new(capacity)) }
    }
}

impl<T: Clone> UntilNews<T> {
    /// What is remembered of a room, if it is right at `snapshot`.
    pub fn get(&self, store: &Store, snapshot: &Snapshot, room: PartitionId) -> Option<T> {
        let (view, value) = self.rooms.lock().get(&room).cloned()?;
        // Remembered from no later snapshot, and unchanged from then until now, so at `snapshot`.
        let right = snapshot.view().includes(&view) && store.news_of(room, &view) == News::None;
        right.then_some(value)
    }

    /// Remembers what was read from `snapshot`.
    pub fn put(&self, snapshot: &Snapshot, room: PartitionId, value: T) {
        self.rooms.lock().put(room, (snapshot.view().clone(), value));
    }
}

/// Rows of a timeline with their keys, newest first.
pub type Rows = Vec<((i64, i32), TimelineRow)>;

/// The end of each of many timelines.
pub(super) type Recent = UntilNews<Arc<Newest>>;

/// The end of a timeline.
pub struct Newest {
    /// The newest rows.
    pub rows: Rows,
    /// Whether no events are known to be missing in the timeline. A gap is opened with the live
    /// event after it, which is news.
    pub without_gaps: bool,
}

impl Newest {
    /// Whether the rows are as many as are wanted, or all there are.
    #[must_use]
    pub fn suffices(&self, wanted: usize) -> bool {
        wanted <= ROWS_MAX || self.rows.len() < ROWS_MAX
    }
}

impl RoomView<'_> {
    /// The end of the room's timeline, remembered until the room has news.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn newest(&self) -> millrace_store::Result<Arc<Newest>> {
        let room = PartitionId::of::<OwnedRoomId>(&self.room_id);
        let (recent, store) = (&self.rooms.recent, &self.rooms.env.store);
        if let Some(newest) = recent.get(store, self.snapshot, room) {
            return Ok(newest);
        }
        let scan = Scan::all().reverse().limit(ROWS_MAX);
        let rows = self.snapshot.scan(&TIMELINE, self.room_id, scan).await?;
        let gap = gap::before(self.snapshot, self.room_id, (i64::MAX, 0)).await?;
        let newest = Arc::new(Newest { rows, without_gaps: gap.is_none() });
        recent.put(self.snapshot, room, Arc::clone(&newest));
        Ok(newest)
    }
}
