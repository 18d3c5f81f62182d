//! When media were last asked for: noted in memory once a day, written in batches.

use futures::FutureExt;
use millrace_store::{
    Node, Read, Result, Tx,
    tables::{MEDIA, MEDIA_BY_DAY},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::Media;

/// Media of one write, and most that are noted at once: what is beyond is noted at its next use.
const NOTED_MAX: usize = 5000;

/// Media that were asked for on a later day than their row says. What is here when the process dies
/// is lost: that they stay a little less long is not worth a write for each download.
#[derive(Default)]
pub(crate) struct Accessed(Mutex<FxHashMap<String, u32>>);

impl Accessed {
    /// Notes that a medium, by its partition, was asked for on this day.
    pub(crate) fn note(&self, partition: &str, day: u32) {
        let mut noted = self.0.lock();
        if noted.len() < NOTED_MAX {
            noted.insert(partition.to_owned(), day);
        }
    }
}

impl Media {
    /// Writes down what was asked for since the last time.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn write_accessed(&self) -> Result<()> {
        let noted = std::mem::take(&mut *self.accessed.0.lock());
        if noted.is_empty() {
            return Ok(());
        }
        let write = |tx: Tx| {
            let noted = &noted;
            async move {
                for (partition, day) in noted {
                    let Some(mut medium) = tx.get(&MEDIA, partition, ()).await? else { continue };
                    // What is quarantined is in no order of use: it never goes by itself.
                    if medium.accessed_day < *day && medium.quarantined_by.is_none() {
                        let kind = medium.kind.id();
                        tx.delete(&MEDIA_BY_DAY, Node, (kind, medium.accessed_day, partition));
                        tx.put(&MEDIA_BY_DAY, Node, (kind, *day, partition), &());
                        medium.accessed_day = *day;
                        tx.put(&MEDIA, partition, (), &medium);
                    }
                }
                Ok(())
            }
            .boxed()
        };
        self.env.store.transact(write).await
    }
}
