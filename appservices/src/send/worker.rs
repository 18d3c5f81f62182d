//! The worker of one service.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use millrace_domain::{rooms::ReadError, to_device};
use millrace_store::{
    Read, Tx,
    rows::appservice::ServiceProgress,
    tables::{SERVICE_PROGRESS, SERVICE_QUEUE},
};

use super::{Built, Desk, backoff};
use crate::{
    AppServices, CallError,
    call::{Call, Endpoint, Form, call_as, is_unknown_endpoint},
};

/// How long after a failure of the store it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The worker looks at the clock at least so often while the service is left alone.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// A service that only knows the older form is asked in the newer one every so many transactions.
const NEWER_EVERY: u32 = 100;
/// Failures are told in the log at the first, and at every so many.
const LOGGED_EVERY: u32 = 20;

/// Why nothing was sent, which is never the service's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What the worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There may be more.
    Now,
    /// There is nothing.
    Idle,
    /// The service is left alone for so long.
    After(Duration),
}

/// Sends to one service.
pub(super) struct Worker {
    pub services: Arc<AppServices>,
    pub desk: Arc<Desk>,
    pub progress: ServiceProgress,
    /// No row up to this one is left.
    pub deleted: u64,
    /// When it is looked next for what has waited for too long, counted from 1970.
    pub expire_at: Duration,
    /// Transactions since it was found that the service knows only the older form.
    older: Option<u32>,
}

impl Worker {
    pub fn new(services: Arc<AppServices>, desk: Arc<Desk>) -> Self {
        let progress = ServiceProgress::default();
        Self { services, desk, progress, deleted: 0, expire_at: Duration::ZERO, older: None }
    }

    /// Sends until it is dropped.
    pub async fn run(mut self) {
        while let Err(error) = self.resume().await {
            tracing::error!(%error, id = self.desk.service.id, "sending to a service cannot begin");
            tokio::time::sleep(RETRY).await;
        }
        loop {
            match self.step().await {
                Ok(Next::Now) => {}
                Ok(Next::Idle) => self.desk.news.notified().await,
                Ok(Next::After(wait)) => self.pause(wait).await,
                Err(error) => {
                    let id = &self.desk.service.id;
                    tracing::error!(%error, id, "what a service is to be told cannot be read");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn resume(&mut self) -> millrace_store::Result<()> {
        let snapshot = self.services.rooms.env.store.snapshot();
        let progress = snapshot.get(&SERVICE_PROGRESS, &self.desk.service.id, ()).await?;
        self.progress = progress.unwrap_or_default();
        self.deleted = self.progress.sent;
        Ok(())
    }

    /// Waits until the service is due or shows up. News do not count: it would not take them.
    async fn pause(&self, wait: Duration) {
        // Never none at all, which would keep a processor busy if a clock stood still.
        let wait = wait.clamp(Duration::from_millis(5), LONGEST_SLEEP);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.desk.news.notified() => {}
        }
    }

    /// Sends the next transaction, if there is one and the service is due.
    async fn step(&mut self) -> Result<Next, SendError> {
        self.expire().await?;
        let showed_up = self.desk.now.swap(false, Ordering::AcqRel);
        let wait = self.progress.due_ms.saturating_sub(self.now_ms());
        if self.progress.failures > 0 && wait > 0 && !showed_up {
            return Ok(Next::After(Duration::from_millis(wait)));
        }
        self.desk.fresh.store(false, Ordering::Release);
        let built = match self.progress.batch.clone() {
            Some(batch) => self.rebuild(batch).await?,
            None => match self.build().await? {
                Some(built) => built,
                None => return self.rest().await,
            },
        };
        if built.durable && self.progress.batch.is_none() {
            self.progress.batch = Some(built.batch.clone());
            self.persist().await?;
        }
        if built.durable {
            // What was dropped before it need not be deleted again.
            self.deleted = self.deleted.max(built.after);
        }
        match self.send(&built).await {
            Ok(()) => {
                self.acknowledged(built).await?;
                Ok(Next::Now)
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// Nothing is left: writes down that all was acknowledged.
    async fn rest(&mut self) -> Result<Next, SendError> {
        if self.deleted < self.progress.sent {
            self.persist().await?;
        }
        Ok(Next::Idle)
    }

    async fn send(&mut self, built: &Built) -> Result<(), CallError> {
        let call = Call {
            endpoint: Endpoint::Transaction(&built.batch.id),
            query: &[],
            body: Some(built.body.clone()),
            timeout: self.services.settings.timeout,
        };
        let (client, service) = (&self.services.client, &self.desk.service);
        if self.older.is_some_and(|since| since < NEWER_EVERY) {
            self.older = self.older.map(|since| since + 1);
            return call_as(client, service, &call, Form::Legacy).await.map(drop);
        }
        match call_as(client, service, &call, Form::Stable).await {
            Err(error) if is_unknown_endpoint(&error) => {
                call_as(client, service, &call, Form::Legacy).await.map_err(|_| error)?;
                self.older = Some(0);
                Ok(())
            }
            answer => {
                self.older = None;
                answer.map(drop)
            }
        }
    }

    async fn acknowledged(&mut self, built: Built) -> Result<(), SendError> {
        let env = &self.services.rooms.env;
        for ((user, device), last) in &built.messages {
            to_device::acknowledge(env, user, device, *last).await?;
        }
        if self.progress.failures > 0 {
            tracing::info!(id = self.desk.service.id, "an application service answers again");
        }
        if built.durable {
            self.progress.sent = built.batch.end;
            self.progress.batch = None;
        }
        (self.progress.failures, self.progress.due_ms) = (0, 0);
        Ok(())
    }

    async fn failed(&mut self, error: &CallError) -> Result<Next, SendError> {
        let mut share = [0];
        let env = &self.services.rooms.env;
        env.random.fill(&mut share);
        let failures = self.progress.failures.saturating_add(1);
        let wait = backoff::wait(failures, self.services.settings.retry_max, share[0]);
        let id = &self.desk.service.id;
        if failures == 1 || failures.is_multiple_of(LOGGED_EVERY) {
            tracing::warn!(id, %error, failures, "an application service does not take a transaction");
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.progress.failures = failures;
        self.progress.due_ms = self.now_ms().saturating_add(wait_ms);
        if self.progress.batch.is_some() {
            self.persist().await?;
        }
        Ok(Next::After(wait))
    }

    /// Writes how far the service was told and what is on its way, and deletes what it has.
    async fn persist(&mut self) -> millrace_store::Result<()> {
        let (id, progress, deleted) = (&self.desk.service.id, &self.progress, self.deleted);
        let body = |tx: Tx| {
            for n in deleted + 1..=progress.sent {
                tx.delete(&SERVICE_QUEUE, id, n);
            }
            tx.put(&SERVICE_PROGRESS, id, (), progress);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        self.services.rooms.env.store.transact(body).await?;
        self.deleted = self.deleted.max(self.progress.sent);
        Ok(())
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.services.rooms.env.now().get().into()
    }
}
