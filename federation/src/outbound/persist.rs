//! Writing down how far a server was told.

use futures::FutureExt;
use millrace_domain::to_device;
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    rows::outbox::Outgoing,
    tables::{OUTGOING, ROOM_SERVERS, SERVER_ROOMS},
};
use ruma::{OwnedRoomId, ServerName};

use super::{Outbound, backoff, task::Task};

impl Task {
    /// Writes how far the server was told, what is on its way, and with it what follows from that.
    pub(super) async fn persist(&mut self) -> millrace_store::Result<()> {
        let recovered = self.recovered();
        if recovered {
            self.recover();
        }
        let (server, row, left) = (&*self.queue.server, &self.row, &*self.left);
        let write = |tx: Tx| {
            async move {
                tx.put(&OUTGOING, server, (), row);
                to_device::forget_sent(&tx, server, row.sent.to_device).await?;
                for room in left {
                    let row = tx.get(&ROOM_SERVERS, room, server).await?;
                    if row.is_none_or(|row| row.joined == 0) {
                        tx.delete(&SERVER_ROOMS, server, room);
                    }
                }
                if recovered {
                    backoff::told_all(&tx, server);
                }
                Ok::<_, millrace_store::Error>(())
            }
            .boxed()
        };
        self.outbound.federation.env.store.transact(write).await?;
        self.left.clear();
        self.written();
        Ok(())
    }
}

impl Outbound {
    /// How far a server was told; `None` where it never was told anything.
    pub(super) async fn outgoing(
        snapshot: &Snapshot,
        server: &ServerName,
    ) -> millrace_store::Result<Option<Outgoing>> {
        snapshot.get(&OUTGOING, server, ()).await
    }

    /// The rooms in which a server has users, or had and has not been told that it has none.
    pub(super) async fn rooms_with(
        snapshot: &Snapshot,
        server: &ServerName,
    ) -> millrace_store::Result<Vec<OwnedRoomId>> {
        let rows = snapshot.scan(&SERVER_ROOMS, server, Scan::all()).await?;
        Ok(rows.into_iter().map(|(room, ())| room).collect())
    }
}
