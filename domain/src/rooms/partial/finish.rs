//! The end of a room's completion: the complete state becomes the current one.

use millrace_store::{
    Node, Read, Scan,
    rows::{
        partial::{Completed, Completion},
        room::TimelineRow,
    },
    state_tree::StateRoot,
    tables::{COMPLETED, COMPLETION, EVENT_HEADERS, PARTIAL_ROOMS, PARTIAL_SERVERS, TIMELINE},
};

use crate::rooms::{AppendError, RoomTx, servers};

/// Servers that one commit uncounts.
const SERVERS_PER_STEP: usize = 200;

impl RoomTx<'_> {
    /// Uncounts some of the servers that were said to be in the room: their members are known now.
    /// False where none is left.
    pub(super) async fn uncount_servers(&mut self) -> Result<bool, AppendError> {
        let scan = Scan::all().limit(SERVERS_PER_STEP);
        let told = self.tx.scan(&PARTIAL_SERVERS, &self.room_id, scan).await?;
        for (server, ()) in &told {
            self.tx.delete(&PARTIAL_SERVERS, &self.room_id, server);
            let place = servers::Place { room: &self.room_id, n: self.head.last };
            servers::count(self.tx, &self.rooms.env, place, (server, -1), &mut self.head).await?;
        }
        Ok(!told.is_empty())
    }

    /// Makes the room what the log's end says.
    pub(super) async fn complete(&mut self, completion: Completion) -> Result<(), AppendError> {
        let Completion { ends, root, returning, untold, .. } = completion;
        let root = root.unwrap_or(self.head.root);
        self.head.extremities = ends;
        let states = &self.rooms.states;
        let changes = states.diff(self.tx, &self.room_id, self.flat, root).await?;
        let turned = changes.iter().filter(|change| change.old.is_some());
        let turned = turned.filter_map(|change| change.new).collect();
        self.follow(root, &changes).await?;
        self.settle_newest(root).await?;
        self.tell_of_early_devices().await?;
        self.tell_missed_devices(&untold.unwrap_or_default()).await?;
        for number in returning {
            self.show(number).await?;
        }
        self.head.partial = None;
        let (tx, room) = (self.tx, &self.room_id);
        tx.delete(&COMPLETION, room, ());
        tx.delete(&PARTIAL_ROOMS, Node, room);
        tx.put(&COMPLETED, room, (), &Completed { turned });
        Ok(())
    }

    /// The newest row of the timeline tells the current state.
    async fn settle_newest(&self, root: StateRoot) -> Result<(), AppendError> {
        let newest = (self.head.last, 0);
        let row = self.tx.get(&TIMELINE, &self.room_id, newest).await?;
        match row {
            Some(row) => self.amend_row(newest, (row.before, root)).await,
            None => Ok(()),
        }
    }

    /// Gives an event a place that was refused when it came: it is news.
    async fn show(&mut self, number: u64) -> Result<(), AppendError> {
        let header = self.tx.get(&EVENT_HEADERS, &self.room_id, number).await?;
        let Some((mut header, before)) =
            header.and_then(|header| header.before.map(|before| (header, before)))
        else {
            return Ok(());
        };
        let event = self.event(number).await?;
        self.head.last += 1;
        let place = (self.head.last, 0);
        header.place = Some(place);
        self.amend(number, &header);
        let row = TimelineRow { event: number, before, after: self.head.root };
        self.tx.put(&TIMELINE, &self.room_id, place, &row);
        self.write_relations(&event, place).await?;
        self.write_redaction(&event, before).await?;
        self.settle_late(&event, None).await
    }
}
