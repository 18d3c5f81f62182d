//! Sending to services: a worker for each, which sends what waits in the service's queue, one
//! transaction after the other.
//!
//! The ID and the end of a transaction are written before it is sent, together with the
//! acknowledgement of the one before: whatever happens, it is repeated as the same, until the service
//! has answered. A service that does not answer is a timer.

mod backoff;
mod batch;
mod ephemeral;
mod expire;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use millrace_store::rows::appservice::ServiceBatch;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId};
use tokio::{sync::Notify, task::JoinHandle};

use self::worker::Worker;
pub(crate) use self::{batch::ROWS_MAX, expire::day_of};
use crate::{AppServices, Registry, Service};

/// Typing, receipts and presence that wait for one service; what is beyond is dropped.
const MOVING_MAX: usize = 1000;

/// What is not durable and new to a service: where to look, not what there is.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    /// Rooms in which who types has changed.
    pub typing: BTreeSet<OwnedRoomId>,
    /// Receipts that are new: room, and user, kind and thread.
    pub receipts: BTreeSet<(OwnedRoomId, (OwnedUserId, u8, String))>,
    /// Users whose presence has changed.
    pub presence: BTreeSet<OwnedUserId>,
}

impl Moving {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.typing.len() + self.receipts.len() + self.presence.len()
    }
}

/// Where a service's worker is told that there is something.
pub(crate) struct Desk {
    service: Arc<Service>,
    moving: Mutex<Moving>,
    /// Something is new since the worker last looked.
    fresh: AtomicBool,
    news: Notify,
    /// The service is to be tried, whenever it would be due.
    now: AtomicBool,
}

impl Desk {
    fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            moving: Mutex::default(),
            fresh: AtomicBool::new(true),
            news: Notify::new(),
            now: AtomicBool::new(false),
        }
    }

    /// Its queue has got rows.
    pub fn has_news(&self) {
        self.fresh.store(true, Ordering::Release);
    }

    /// Notes what is not durable.
    pub fn tell(&self, note: impl FnOnce(&mut Moving)) {
        let mut moving = self.moving.lock();
        if moving.len() < MOVING_MAX {
            note(&mut moving);
            self.fresh.store(true, Ordering::Release);
        }
    }

    /// Wakes the worker if there is anything new.
    pub fn ring(&self) {
        if self.fresh.load(Ordering::Acquire) {
            self.news.notify_one();
        }
    }

    /// The service has asked something, so it is there.
    pub fn showed_up(&self) {
        self.now.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Makes the worker look at the clock.
    pub fn wake(&self) {
        self.news.notify_one();
    }
}

/// The workers of all services.
#[derive(Default)]
pub(crate) struct Workers {
    running: BTreeMap<String, (Arc<Service>, JoinHandle<()>)>,
}

impl Workers {
    /// Has a worker for each service of `registry` that is sent to, and no others.
    pub fn attend(&mut self, services: &Arc<AppServices>, registry: &Registry) {
        let mut desks = services.desks.lock();
        let wanted: BTreeMap<&str, &Arc<Service>> = registry
            .all()
            .iter()
            .filter(|service| service.url.is_some())
            .map(|service| (service.id.as_str(), service))
            .collect();
        self.running.retain(|id, (service, worker)| {
            let same = wanted.get(id.as_str()).is_some_and(|wanted| Arc::ptr_eq(wanted, service));
            if !same {
                worker.abort();
                desks.remove(id);
            }
            same
        });
        for (id, service) in wanted {
            if self.running.contains_key(id) {
                continue;
            }
            let desk = Arc::new(Desk::new(Arc::clone(service)));
            desks.insert(id.to_owned(), Arc::clone(&desk));
            let worker = tokio::spawn(Worker::new(Arc::clone(services), desk).run());
            self.running.insert(id.to_owned(), (Arc::clone(service), worker));
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (_, worker) in self.running.values() {
            worker.abort();
        }
    }
}

/// A transaction, ready to be sent.
#[derive(Debug)]
struct Built {
    batch: ServiceBatch,
    /// The row before its first: none of those up to here waits, though they may never have been sent.
    after: u64,
    body: bytes::Bytes,
    /// Whether it holds rows of the queue, so that its ID is stored before it is sent.
    durable: bool,
    /// Messages to devices that it holds: by device, the last.
    messages: BTreeMap<(OwnedUserId, ruma::OwnedDeviceId), u64>,
}
