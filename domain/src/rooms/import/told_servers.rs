//! The servers that are said to be in a room whose members are not told: each is counted once more
//! than it has known members, until those are known.

use std::collections::BTreeSet;

use futures::FutureExt;
use millrace_store::{Read, Scan, Tx, rows::room::RoomHead, tables::PARTIAL_SERVERS};
use ruma::OwnedServerName;

use super::{ImportError, stage::Target};
use crate::rooms::{Rooms, servers};

/// Servers that one commit counts.
const SERVERS_PER_COMMIT: usize = 200;

/// Counts the servers of a room that is taken over, and no others. `head` is the one that is to be.
pub(super) async fn stage(
    rooms: &Rooms,
    target: &Target,
    head: &RoomHead,
) -> Result<(), ImportError> {
    let snapshot = rooms.env.store.snapshot();
    let rows = snapshot.scan(&PARTIAL_SERVERS, &target.room, Scan::all()).await?;
    let counted: BTreeSet<OwnedServerName> = rows.into_iter().map(|(server, ())| server).collect();
    let ours = &rooms.env.identity.name;
    let told = target.omitted.iter().flat_map(|omitted| &omitted.servers);
    let told: BTreeSet<OwnedServerName> = told.filter(|server| *server != ours).cloned().collect();
    let come = told.difference(&counted).map(|server| (server, 1));
    let gone = counted.difference(&told).map(|server| (server, -1));
    let changes: Vec<(&OwnedServerName, i64)> = come.chain(gone).collect();
    for chunk in changes.chunks(SERVERS_PER_COMMIT) {
        count(rooms, target, head, chunk).await?;
    }
    Ok(())
}

async fn count(
    rooms: &Rooms,
    target: &Target,
    head: &RoomHead,
    changes: &[(&OwnedServerName, i64)],
) -> Result<(), ImportError> {
    let body = |tx: Tx| {
        async move {
            // Those in the room are counted anew when it is taken over.
            let mut unseen = head.clone();
            for (server, joins) in changes {
                // A commit whose answer was lost has counted it.
                let counted = tx.get(&PARTIAL_SERVERS, &target.room, *server).await?.is_some();
                if counted == (*joins > 0) {
                    continue;
                }
                match counted {
                    false => tx.put(&PARTIAL_SERVERS, &target.room, *server, &()),
                    true => tx.delete(&PARTIAL_SERVERS, &target.room, *server),
                }
                let place = servers::Place { room: &target.room, n: head.last };
                let counted = (&***server, *joins);
                servers::count(&tx, &rooms.env, place, counted, &mut unseen).await?;
            }
            Ok::<_, ImportError>(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}
