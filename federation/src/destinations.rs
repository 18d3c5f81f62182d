//! Which servers are down, and when each is to be tried again. Kept over restarts.
//!
//! Every exchange with another server tells whether it is up ([`crate::Peers`] does that by itself);
//! whoever wants to send something asks first whether that is worth trying.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use lru::LruCache;
use millrace_domain::Env;
use millrace_store::{Node, Read, Scan, rows::federation::Outage, tables::OUTAGES};
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use tokio::sync::broadcast;

use crate::time::later;

/// Outages that are remembered; where more servers are down, the longest forgotten is tried again.
const OUTAGES_KEPT: usize = 100_000;
/// The pause after a first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A server that contacts us is tried at once, but not again sooner than this after a failure.
const HEARD_PAUSE: Duration = Duration::from_secs(30);
/// Servers that came back and that nobody has taken note of yet.
const RETURNED_KEPT: usize = 1024;

/// Who is down. Clones are the same.
#[derive(Clone)]
pub struct Destinations(Arc<DestinationsParts>);

struct DestinationsParts {
    env: Env,
    down: Mutex<LruCache<OwnedServerName, Outage>>,
    returned: broadcast::Sender<OwnedServerName>,
}

impl Destinations {
    /// What the database knows of outages.
    ///
    /// # Errors
    /// Where the store cannot be read.
    ///
    /// # Panics
    /// Never.
    pub async fn open(env: Env) -> millrace_store::Result<Self> {
        let mut down = LruCache::new(OUTAGES_KEPT.try_into().expect("not zero"));
        let all = Scan::all().limit(OUTAGES_KEPT);
        for (server, outage) in env.store.snapshot().scan(&OUTAGES, Node, all).await? {
            down.put(server, outage);
        }
        let returned = broadcast::Sender::new(RETURNED_KEPT);
        Ok(Self(Arc::new(DestinationsParts { env, down: Mutex::new(down), returned })))
    }

    /// Whether `server` may be tried now: it is up as far as we know, or its pause is over.
    #[must_use]
    pub fn is_due(&self, server: &ServerName) -> bool {
        self.due_at(server).is_none_or(|due| due <= self.0.env.now())
    }

    /// When a server that is down is to be tried again; `None` where it is up as far as we know.
    #[must_use]
    pub fn due_at(&self, server: &ServerName) -> Option<MilliSecondsSinceUnixEpoch> {
        self.0.down.lock().peek(server).map(|outage| outage.again_at)
    }

    /// Since when a server is down; `None` where it is up as far as we know.
    #[must_use]
    pub fn down_since(&self, server: &ServerName) -> Option<MilliSecondsSinceUnixEpoch> {
        self.0.down.lock().peek(server).map(|outage| outage.since)
    }

    /// Servers that are found to be up after they were down, from now on. Only a hint: who falls
    /// behind misses some (`RecvError::Lagged`).
    #[must_use]
    pub fn returned(&self) -> broadcast::Receiver<OwnedServerName> {
        self.0.returned.subscribe()
    }

    /// `server` could not be reached. It is left alone for a while, longer each time up to a day.
    pub async fn failed(&self, server: &ServerName) {
        let now = self.0.env.now();
        let (outage, forgotten) = {
            let mut down = self.0.down.lock();
            let before = down.peek(server).copied();
            if before.is_some_and(|outage| outage.again_at > now) {
                return; // A request that began before the server was found to be down.
            }
            let failures = before.map_or(0, |outage| outage.failures).saturating_add(1);
            let since = before.map_or(now, |outage| outage.since);
            let again_at = later(now, self.pause(failures));
            let outage = Outage { failures, since, failed_at: now, again_at };
            let pushed = down.push(server.to_owned(), outage);
            (outage, pushed.map(|(name, _)| name).filter(|name| name != server))
        };
        tracing::debug!(%server, failures = outage.failures, "a server is down");
        self.write(server, Some(&outage)).await;
        if let Some(forgotten) = forgotten {
            self.write(&forgotten, None).await;
        }
    }

    /// `server` answered.
    pub async fn succeeded(&self, server: &ServerName) {
        if self.0.down.lock().pop(server).is_none() {
            return;
        }
        tracing::debug!(%server, "a server is up again");
        drop(self.0.returned.send(server.to_owned()));
        self.write(server, None).await;
    }

    /// `server` has sent us a request that it signed. Where it was down it is due at once, unless
    /// it was tried in vain a moment ago.
    pub fn heard_from(&self, server: &ServerName) {
        let now = self.0.env.now();
        let mut down = self.0.down.lock();
        let Some(outage) = down.peek_mut(server) else { return };
        if outage.again_at <= now || later(outage.failed_at, HEARD_PAUSE) > now {
            return;
        }
        outage.again_at = now;
        drop(down);
        drop(self.0.returned.send(server.to_owned()));
    }

    /// The pause after so many failures: four fifths of it are certain and the rest is chance, lest
    /// all that failed at once come back at once.
    fn pause(&self, failures: u32) -> Duration {
        let whole = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20)).min(PAUSE_MAX);
        let mut chance = [0; 1];
        self.0.env.random.fill(&mut chance);
        whole * 4 / 5 + whole / 5 * u32::from(chance[0]) / 255
    }

    async fn write(&self, server: &ServerName, outage: Option<&Outage>) {
        let server = &server.to_owned();
        let written = self.0.env.store.transact(|tx| {
            async move {
                match outage {
                    Some(outage) => tx.put(&OUTAGES, Node, server, outage),
                    None => tx.delete(&OUTAGES, Node, server),
                }
                Ok::<_, millrace_store::Error>(())
            }
            .boxed()
        });
        if let Err(error) = written.await {
            tracing::error!(%server, %error, "that a server is down or up cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::{
        Settings,
        testing::{START_MS, World},
    };

    #[tokio::test]
    async fn pauses_grow_to_a_day_and_end_with_success() {
        let world = World::new(Settings::default()).await;
        let (destinations, one) = (&world.federation.destinations, server_name!("one"));
        let mut returned = destinations.returned();
        assert!(destinations.is_due(one));
        let mut pauses = Vec::new();
        for _ in 0..20 {
            destinations.failed(one).await;
            destinations.failed(one).await;
            assert!(!destinations.is_due(one));
            let now = world.federation.env.now();
            let due = destinations.due_at(one).unwrap();
            let pause = Duration::from_millis((due.0 - now.0).into());
            pauses.push(pause.as_secs());
            world.clock.advance(pause);
            assert!(destinations.is_due(one));
        }
        assert!((4..=5).contains(&pauses[0]) && (8..=10).contains(&pauses[1]), "{pauses:?}");
        assert!((69_120..=86_400).contains(&pauses[19]));
        assert_eq!(u64::from(destinations.down_since(one).unwrap().0), START_MS);
        destinations.succeeded(one).await;
        assert_eq!((destinations.due_at(one), returned.try_recv().unwrap()), (None, one.into()));
    }

    #[tokio::test]
    async fn an_outage_is_remembered_over_a_restart_and_its_end_too() {
        let world = World::new(Settings::default()).await;
        world.federation.destinations.failed(server_name!("one")).await;
        world.federation.destinations.failed(server_name!("two")).await;
        world.federation.destinations.succeeded(server_name!("two")).await;
        let due = world.federation.destinations.due_at(server_name!("one"));
        let world = world.restarted().await;
        assert_eq!(world.federation.destinations.due_at(server_name!("one")), due);
        assert!(world.federation.destinations.due_at(server_name!("two")).is_none());
    }

    #[tokio::test]
    async fn who_contacts_us_is_tried_at_once_but_not_again_and_again() {
        let world = World::new(Settings::default()).await;
        let (destinations, one) = (&world.federation.destinations, server_name!("one"));
        let fail_until_long_pause = async || {
            for _ in 0..6 {
                destinations.failed(one).await;
                let due = destinations.due_at(one).unwrap();
                world
                    .clock
                    .advance(Duration::from_millis((due.0 - world.federation.env.now().0).into()));
            }
            destinations.failed(one).await;
        };
        fail_until_long_pause().await;
        let mut returned = destinations.returned();
        destinations.heard_from(one);
        assert!(!destinations.is_due(one), "it was tried a moment ago");
        world.clock.advance(HEARD_PAUSE);
        destinations.heard_from(one);
        assert!(destinations.is_due(one) && returned.try_recv().is_ok());
        destinations.heard_from(one);
        assert!(returned.try_recv().is_err(), "told once");
        destinations.failed(one).await;
        assert!(!destinations.is_due(one));
    }
}
