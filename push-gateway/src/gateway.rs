//! One call of a homeserver: all its devices at the same time, and one answer.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    apps::{AppError, Apps},
    config::Config,
    delivery::{End, Job},
    memory::Memory,
    metrics::Metrics,
    notification::{Device, Notification},
    vendor::Unsent,
};

/// When a homeserver may come again that met a full queue or a gateway that stops.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// Everything that a call needs.
pub struct Gateway {
    apps: Apps,
    memory: Memory,
    /// Figures.
    pub metrics: Metrics,
    calls: Arc<Semaphore>,
    answer_within: Duration,
    retry_for: Duration,
    stopping: AtomicBool,
}

/// The answer to a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done, or will be.
    Accepted {
        /// Keys that are not valid.
        rejected: Vec<String>,
    },
    /// Nothing of it is kept: the homeserver is to come again. Who has got it gets it no second time.
    NotNow {
        /// Why.
        reason: NotNow,
        /// After this time.
        after: Duration,
    },
}

/// Why a homeserver is to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotNow {
    /// The vendor does not take it.
    VendorFails,
    /// Too many wait for the vendor. Told before the other.
    QueueFull,
}

/// What is known of a device before anything is sent.
enum Settled {
    /// There is nothing to send, or it was sent before.
    Done,
    /// Its key is not valid.
    Rejected,
    /// There is no place for it.
    Busy,
}

impl Gateway {
    /// Reads the keys and makes the clients of all apps.
    ///
    /// # Errors
    /// Where an app cannot be set up.
    pub fn new(config: &Config) -> Result<Self, AppError> {
        Ok(Self {
            apps: Apps::new(config)?,
            memory: Memory::default(),
            metrics: Metrics::default(),
            calls: Arc::new(Semaphore::new(config.calls_max.min(Semaphore::MAX_PERMITS))),
            answer_within: config.answer_within(),
            retry_for: config.retry_for(),
            stopping: AtomicBool::new(false),
        })
    }

    /// A place for a call; none where there are too many.
    #[must_use]
    pub fn call(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Takes no more calls.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no more calls.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns when nothing is under way any more; whether that was in time.
    pub async fn drained(&self, within: Duration) -> bool {
        timeout(within, join_all(self.apps.iter().map(|app| app.idle()))).await.is_ok()
    }

    /// The figures in Prometheus' format.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        for app in self.apps.iter() {
            self.metrics.waiting(&app.name, app.waiting());
        }
        self.metrics.text()
    }

    /// Sends a notification to its devices. What has not arrived when the answer is due is tried
    /// again afterwards if another device got it; otherwise, or if there was no place for one, the
    /// homeserver is asked to come again.
    pub async fn notify(self: &Arc<Self>, mut notification: Notification) -> Reply {
        let devices = mem::take(&mut notification.devices);
        let keys: Vec<String> = devices.iter().map(|device| device.pushkey.clone()).collect();
        let deadline = Instant::now() + self.answer_within;
        let tasks = devices.into_iter().map(|device| {
            let job = self.job(&notification, device);
            let gateway = Arc::clone(self);
            // A task of its own: it goes on where the homeserver hangs up.
            async move {
                let job = job?;
                let task = tokio::spawn(async move {
                    let end = job.run(deadline, &gateway.metrics).await;
                    gateway.note(&job, &end);
                    (job, end)
                });
                task.await.map_err(|_| Settled::Busy)
            }
        });
        let settled = join_all(tasks).await;
        self.reply(keys, settled)
    }

    fn reply(
        self: &Arc<Self>,
        keys: Vec<String>,
        settled: Vec<Result<(Job, End), Settled>>,
    ) -> Reply {
        let is_done = |device: &Result<(Job, End), Settled>| match device {
            Ok((_, end)) => matches!(end, End::Delivered | End::Rejected | End::Dropped),
            Err(settled) => !matches!(settled, Settled::Busy),
        };
        let busy = settled.iter().any(|device| matches!(device, Err(Settled::Busy)));
        let kept = !busy && (settled.iter().any(is_done) || settled.is_empty());
        let mut rejected = Vec::new();
        let mut failure: Option<(NotNow, Duration)> = None;
        for (key, device) in keys.into_iter().zip(settled) {
            match device {
                Ok((_, End::Rejected)) | Err(Settled::Rejected) => rejected.push(key),
                Ok((_, End::Delivered | End::Dropped)) | Err(Settled::Done) => {}
                Ok((job, End::Failed { .. })) if kept => self.try_again(job),
                Ok((_, End::Failed { after })) => {
                    failure = failure.max(Some((NotNow::VendorFails, after)));
                }
                Ok((_, End::Refused)) => {
                    failure = failure.max(Some((NotNow::VendorFails, BUSY_FOR)));
                }
                Err(Settled::Busy) => failure = failure.max(Some((NotNow::QueueFull, BUSY_FOR))),
            }
        }
        match failure {
            Some((reason, after)) if !kept => Reply::NotNow { reason, after },
            _ => Reply::Accepted { rejected },
        }
    }

    /// What is to be sent to a device.
    fn job(&self, notification: &Notification, device: Device) -> Result<Job, Settled> {
        let Some(app) = self.apps.find(&device.app_id) else {
            tracing::warn!(app_id = device.app_id, "there is no app of this ID");
            self.metrics.push("", "unknown_app");
            return Err(Settled::Rejected);
        };
        let count = |outcome: &'static str| self.metrics.push(&app.name, outcome);
        if self.memory.take_rejected(&device) {
            return Err(Settled::Rejected);
        }
        if let Some(event) = &notification.event_id
            && self.memory.has(&device, event)
        {
            count("duplicate");
            return Err(Settled::Done);
        }
        let push = app.vendor.push(notification, &device).map_err(|unsent| match unsent {
            Unsent::Nothing => {
                count("nothing");
                Settled::Done
            }
            Unsent::InvalidKey(reason) => {
                tracing::info!(app = app.name, reason, "a push key is not valid");
                count("rejected");
                Settled::Rejected
            }
            Unsent::Undeliverable(reason) => {
                tracing::warn!(app = app.name, reason, "a notification cannot be sent");
                count("dropped");
                Settled::Done
            }
        })?;
        let Some(place) = app.place(&push) else {
            count("queue_full");
            return Err(Settled::Busy);
        };
        let (app, event_id) = (app.clone(), notification.event_id.clone());
        Ok(Job { app, device, event_id, push, place })
    }

    fn try_again(self: &Arc<Self>, job: Job) {
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let end = job.run(Instant::now() + gateway.retry_for, &gateway.metrics).await;
            gateway.note(&job, &end);
            match end {
                End::Rejected => gateway.memory.rejected(&job.device),
                End::Failed { .. } => {
                    tracing::error!(app = job.app.name, "an accepted notification was given up");
                }
                End::Delivered | End::Dropped | End::Refused => {}
            }
        });
    }

    fn note(&self, job: &Job, end: &End) {
        if let (End::Delivered, Some(event)) = (end, &job.event_id) {
            self.memory.delivered(&job.device, event);
        }
        let outcome = match end {
            End::Delivered => "delivered",
            End::Rejected => "rejected",
            End::Dropped => "dropped",
            End::Refused => "refused",
            End::Failed { .. } => "failed",
        };
        self.metrics.push(&job.app.name, outcome);
    }
}
