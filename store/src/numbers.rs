//! Event numbers: an event's identity inside the server.

use futures::FutureExt;
use tokio::sync::Mutex;

use crate::{Read, Result, Store, table::Node, tables::EVENT_NUMBERS_RESERVED};

/// So many numbers are reserved with one commit. What is left of a block at a stop is not used.
const BLOCK: u64 = 4096;

/// Hands out numbers from a block that is durably reserved.
#[derive(Default)]
pub(crate) struct Numbers {
    /// The next number and the end of the block.
    block: Mutex<(u64, u64)>,
}

impl Numbers {
    pub async fn next(&self, store: &Store) -> Result<u64> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            *block = store
                .transact(|tx| {
                    async move {
                        // Numbers begin at 1, so that 0 can mean none.
                        let first = tx.get(&EVENT_NUMBERS_RESERVED, Node, ()).await?.unwrap_or(1);
                        tx.put(&EVENT_NUMBERS_RESERVED, Node, (), &(first + BLOCK));
                        Ok::<_, crate::Error>((first, first + BLOCK))
                    }
                    .boxed()
                })
                .await?;
        }
        block.0 += 1;
        Ok(block.0 - 1)
    }
}
