//! The wish to stop, which long requests and workers watch.

use tokio::sync::watch;

/// Tells whether the server is to stop. Cheap to clone; whoever waits long selects on
/// [`Shutdown::requested`] and answers with what it has.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Makes every [`Shutdown`] of its pair come true. Dropping it does so too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// A trigger and what it triggers.
#[must_use]
pub fn channel() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the server is to stop, at once if it already is.
    pub async fn requested(&self) {
        let mut watched = self.0.clone();
        // An error means that the trigger is gone, and with it the server.
        let _ = watched.wait_for(|requested| *requested).await;
    }

    /// Whether the server is to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

impl Default for Shutdown {
    /// One that never comes true, for handlers tested alone.
    fn default() -> Self {
        let (trigger, shutdown) = channel();
        std::mem::forget(trigger);
        shutdown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_who_waits_already_and_who_comes_later() {
        let (trigger, shutdown) = channel();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        trigger.request();
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
