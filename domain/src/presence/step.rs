//! What time changes: who is idle, who has gone.

use std::time::Duration;

use super::{Presence, State};

/// So many users are looked at in one step.
const USERS_PER_STEP: usize = 64;

impl Presence {
    /// Concludes from the time that passed who is idle or has gone, for some of those who are due,
    /// and tells how long until the next is due.
    ///
    /// # Errors
    /// Where the rooms to announce it in cannot be read.
    pub async fn step(&self) -> millrace_store::Result<Option<Duration>> {
        let now = self.now_ms();
        let mut changed = Vec::new();
        {
            let mut state = self.state.lock();
            let state: &mut State = &mut state;
            for _ in 0..USERS_PER_STEP {
                let Some((due, user)) = state.due.first().cloned() else { break };
                if due > now {
                    break;
                }
                let conclude = |record: &mut super::Record, now| {
                    record.conclude(&self.settings, now);
                };
                changed.extend(self.change_in(state, &user, now, conclude));
            }
        }
        for user in changed {
            self.announce(Some(user)).await?;
        }
        let next = self.state.lock().due.first().map(|(due, _)| *due);
        Ok(next.map(|due| Duration::from_millis(due.saturating_sub(self.now_ms()))))
    }

    /// Takes steps, for ever.
    pub async fn run(&self) {
        loop {
            let sooner = self.sooner.notified();
            match self.step().await {
                Ok(None) => sooner.await,
                Ok(Some(wait)) => {
                    let _ = tokio::time::timeout(wait, sooner).await;
                }
                Err(error) => {
                    tracing::error!(%error, "presence was not announced");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}
