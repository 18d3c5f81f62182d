//! The end of a room's completion: the complete state becomes the current one.

use millrace_store::{
    Node, Read, Scan,
    rows::{
        outbox::ServerInRoom,
        partial::{Completed, Completion},
        room::TimelineRow,
    },
    state_tree::StateRoot,
    tables::{
        COMPLETED, COMPLETION, EVENT_HEADERS, PARTIAL_ROOMS, PARTIAL_SERVERS, ROOM_SERVERS,
        TIMELINE,
    },
};
use ruma::OwnedServerName;

use crate::rooms::{AppendError, RoomTx, servers};

/// Servers that one commit uncounts before the last.
const SERVERS_PER_STEP: usize = 200;

impl RoomTx<'_> {
    /// Uncounts some of the servers that were said to be in the room, but for those whose members come
    /// with the last commit alone: they would miss what is said until then. False where none is left.
    pub(super) async fn uncount_servers(
        &mut self,
        completion: &Completion,
    ) -> Result<bool, AppendError> {
        let coming = self.servers_to_count(completion).await?;
        let read = self.tx.unprotected();
        let told = read.scan(&PARTIAL_SERVERS, &self.room_id, Scan::all()).await?;
        let told: Vec<_> = told.into_iter().map(|(server, ())| server).collect();
        let rows = read.get_many(&ROOM_SERVERS, &self.room_id, told.iter()).await?;
        let is_counted =
            |row: &Option<ServerInRoom>| row.as_ref().is_some_and(|row| row.joined > 1);
        let settled = told.into_iter().zip(rows);
        let settled = settled.filter(|(server, row)| is_counted(row) || !coming.contains(server));
        let some: Vec<_> = settled.map(|(server, _)| server).take(SERVERS_PER_STEP).collect();
        self.uncount(&some).await?;
        Ok(!some.is_empty())
    }

    /// Uncounts those that are left, no more than members came, once these are counted.
    async fn uncount_rest(&mut self) -> Result<(), AppendError> {
        let told = self.tx.scan(&PARTIAL_SERVERS, &self.room_id, Scan::all()).await?;
        let told: Vec<_> = told.into_iter().map(|(server, ())| server).collect();
        self.uncount(&told).await
    }

    async fn uncount(&mut self, told: &[OwnedServerName]) -> Result<(), AppendError> {
        for server in told {
            self.tx.delete(&PARTIAL_SERVERS, &self.room_id, server);
            let place = servers::Place { room: &self.room_id, n: self.head.last };
            servers::count(self.tx, &self.rooms.env, place, (server, -1), &mut self.head).await?;
        }
        Ok(())
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
        self.uncount_rest().await?;
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
