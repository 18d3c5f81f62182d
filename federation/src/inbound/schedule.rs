//! Which rooms have something to be worked on, and which are being worked on.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex;
use ruma::OwnedRoomId;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};

/// Rooms with work, each with one worker at most.
pub(super) struct Schedule {
    state: Mutex<State>,
    news: Notify,
    /// How many rooms are ready or running.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<OwnedRoomId>,
    rooms: FxHashMap<OwnedRoomId, Phase>,
    /// Rooms with events that are put off, by when they are due in milliseconds since 1970.
    due: BTreeSet<(u64, OwnedRoomId)>,
    /// What waited when the server started is known.
    resumed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Running,
    /// More came while it was running.
    RunningAgain,
}

/// When a room is to be worked on next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// After the others that are ready.
    Again,
    /// At this time, in milliseconds since 1970.
    At(u64),
    /// When something comes.
    Idle,
}

impl Schedule {
    pub fn new() -> Self {
        Self { state: Mutex::default(), news: Notify::new(), busy: watch::Sender::new(1) }
    }

    /// Something is to be worked on in a room.
    pub fn wake(&self, room: OwnedRoomId) {
        let mut state = self.state.lock();
        state.wake(room);
        self.tell(&state);
    }

    /// What waited when the server started is known: these rooms.
    pub fn resume(&self, rooms: Vec<OwnedRoomId>) {
        let mut state = self.state.lock();
        state.resumed = true;
        rooms.into_iter().for_each(|room| state.wake(room));
        self.tell(&state);
    }

    /// The next room to be worked on, after those that are due by `now_ms` have joined the others.
    pub fn take(&self, now_ms: u64) -> Option<OwnedRoomId> {
        let mut state = self.state.lock();
        while state.due.first().is_some_and(|(due, _)| *due <= now_ms) {
            let Some((_, room)) = state.due.pop_first() else { break };
            state.wake(room);
        }
        let room = state.ready.pop_front()?;
        state.rooms.insert(room.clone(), Phase::Running);
        Some(room)
    }

    /// A room that was taken has been worked on.
    pub fn finished(&self, room: OwnedRoomId, next: Next) {
        let mut state = self.state.lock();
        let more = state.rooms.remove(&room) == Some(Phase::RunningAgain);
        match next {
            Next::Again => state.wake(room),
            _ if more => state.wake(room),
            Next::At(due) => {
                state.due.insert((due, room));
            }
            Next::Idle => {}
        }
        self.tell(&state);
    }

    /// When the first room that is put off is due.
    pub fn due(&self) -> Option<u64> {
        self.state.lock().due.first().map(|(due, _)| *due)
    }

    /// Returns when there may be something to take.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Returns when no room is ready or worked on; what is put off does not count.
    pub async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        // The sender lives as long as we do.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    fn tell(&self, state: &State) {
        self.busy.send_replace(state.rooms.len() + usize::from(!state.resumed));
        self.news.notify_one();
    }
}

impl State {
    fn wake(&mut self, room: OwnedRoomId) {
        match self.rooms.get_mut(&room) {
            None => {
                self.rooms.insert(room.clone(), Phase::Ready);
                self.ready.push_back(room);
            }
            Some(phase @ Phase::Running) => *phase = Phase::RunningAgain,
            Some(Phase::Ready | Phase::RunningAgain) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_room_id;

    use super::*;

    #[test]
    fn a_room_is_worked_on_by_one_at_a_time_and_again_where_more_came() {
        let schedule = Schedule::new();
        let (one, two) = (owned_room_id!("!one:x"), owned_room_id!("!two:x"));
        schedule.resume(vec![one.clone()]);
        assert_eq!(schedule.take(0), Some(one.clone()));
        schedule.wake(one.clone());
        assert_eq!(schedule.take(0), None, "it is being worked on");
        schedule.wake(two.clone());
        assert_eq!(schedule.take(0), Some(two.clone()));
        schedule.finished(one.clone(), Next::Idle);
        assert_eq!(schedule.take(0), Some(one));
        schedule.finished(two, Next::Idle);
        assert_eq!(schedule.take(0), None);
    }

    #[test]
    fn rooms_take_turns() {
        let schedule = Schedule::new();
        let (flooded, quiet) = (owned_room_id!("!flooded:x"), owned_room_id!("!quiet:x"));
        schedule.resume(vec![flooded.clone(), quiet.clone()]);
        assert_eq!(schedule.take(0), Some(flooded.clone()));
        schedule.finished(flooded.clone(), Next::Again);
        assert_eq!(schedule.take(0), Some(quiet));
        assert_eq!(schedule.take(0), Some(flooded));
    }

    #[tokio::test]
    async fn what_is_put_off_comes_when_it_is_due() {
        let schedule = Schedule::new();
        let room = owned_room_id!("!one:x");
        schedule.resume(vec![room.clone()]);
        schedule.take(0).unwrap();
        schedule.finished(room.clone(), Next::At(10));
        assert_eq!(schedule.due(), Some(10));
        assert_eq!(schedule.take(9), None);
        schedule.idle().await;
        assert_eq!(schedule.take(10), Some(room));
    }
}
