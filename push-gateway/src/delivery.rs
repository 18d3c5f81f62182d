//! Bringing one notification to one device: attempts, pauses, an end.

use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::header;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    apps::{App, Place},
    internet::NotPublic,
    metrics::Metrics,
    notification::Device,
    vendor::{Answer, Pause, Push, Unauthorised, Verdict},
};

/// The pause after the first failure; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_mins(1);
/// Longest pause that a vendor is granted.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Of an answer no more than this is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One notification for one device.
pub struct Job {
    /// Whose device it is.
    pub app: Arc<App>,
    /// The device.
    pub device: Device,
    /// The event, if it is about one.
    pub event_id: Option<String>,
    /// What is sent.
    pub push: Push,
    /// In the queue.
    pub place: Place,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The vendor has it.
    Delivered,
    /// The key is dead.
    Rejected,
    /// The vendor does not take it.
    Dropped,
    /// The vendor refuses us: trying again is of no use before an administrator did something.
    Refused,
    /// Not until the deadline.
    Failed {
        /// When it may work.
        after: Duration,
    },
}

impl Job {
    /// Tries until there is an end, or `deadline`.
    pub async fn run(&self, deadline: Instant, metrics: &Metrics) -> End {
        let mut failures = 0;
        let mut renewed = false;
        loop {
            if let Some(until) = self.app.paused_until() {
                if until >= deadline {
                    return End::Failed { after: until - Instant::now() };
                }
                sleep_until(until).await;
            }
            match self.attempt(deadline, metrics).await {
                Verdict::Delivered => return End::Delivered,
                Verdict::Rejected(reason) => {
                    tracing::info!(app = self.app.name, reason, "a push key was rejected");
                    return End::Rejected;
                }
                Verdict::Dropped(reason) => {
                    tracing::warn!(app = self.app.name, reason, "a notification was not taken");
                    return End::Dropped;
                }
                Verdict::Expired(_) if !renewed => renewed = true,
                Verdict::Expired(reason) | Verdict::Refused(reason) => {
                    tracing::error!(app = self.app.name, reason, "the vendor refuses the gateway");
                    return End::Refused;
                }
                Verdict::Later { after, pause, reason } => {
                    failures += 1;
                    tracing::debug!(app = self.app.name, reason, failures, "to be tried again");
                    let wait =
                        after.map_or_else(|| backoff(failures), |wait| wait.min(RETRY_AFTER_MAX));
                    if pause == Pause::App && after.is_some() {
                        self.app.pause(wait);
                    }
                    if Instant::now() + wait >= deadline {
                        return End::Failed { after: wait };
                    }
                    sleep_until(Instant::now() + wait).await;
                }
            }
        }
    }

    async fn attempt(&self, deadline: Instant, metrics: &Metrics) -> Verdict {
        let late = |reason: &str| Verdict::Later {
            after: None,
            pause: Pause::Device,
            reason: reason.to_owned(),
        };
        let Ok(permission) = timeout_at(deadline, self.app.request(&self.place)).await else {
            return late("too many requests are under way");
        };
        let started = Instant::now();
        let answered = timeout_at(deadline, self.exchange()).await;
        drop(permission);
        let (status, verdict) = match answered {
            Ok(Ok((status, verdict))) => (status, verdict),
            Ok(Err(verdict)) => (0, verdict),
            Err(_) => (0, late("no answer in time")),
        };
        let app = &self.app;
        metrics.attempt(&app.name, app.vendor.name(), status, started.elapsed());
        verdict
    }

    /// One request. An error is a verdict without an answer.
    async fn exchange(&self) -> Result<(u16, Verdict), Verdict> {
        let App { vendor, client, .. } = &*self.app;
        let authorization =
            vendor.authorization(&self.push).await.map_err(|error| match error {
                Unauthorised::Later(reason) => {
                    Verdict::Later { after: None, pause: Pause::App, reason }
                }
                Unauthorised::Refused(reason) => Verdict::Refused(reason),
            })?;
        let mut headers = self.push.headers.clone();
        if let Some(authorization) = &authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let request = client.post(self.push.url.clone()).headers(headers);
        let answer = request.body(self.push.body.clone()).send().await.map_err(unanswered)?;
        let answer = read(answer).await.map_err(unanswered)?;
        let verdict = vendor.judge(&self.push, &answer);
        if let (Verdict::Expired(_), Some(authorization)) = (&verdict, &authorization) {
            vendor.forget(authorization);
        }
        Ok((answer.status.as_u16(), verdict))
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let mut body = BytesMut::new();
    while body.len() < ANSWER_BYTES_MAX {
        let Some(chunk) = answer.chunk().await? else { break };
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
    }
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    Ok(Answer { status, headers, body: Bytes::from(body) })
}

#[expect(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn unanswered(error: reqwest::Error) -> Verdict {
    let mut reasons = Vec::new();
    // Without the address: it may tell whose device it is.
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if error.downcast_ref::<NotPublic>().is_some() {
            return Verdict::Rejected(error.to_string());
        }
        reasons.push(error.to_string());
        next = error.source();
    }
    let timeout = if error.is_timeout() { "no answer in time" } else { "no answer" };
    let reason = if reasons.is_empty() { timeout.to_owned() } else { reasons.join(": ") };
    Verdict::Later { after: None, pause: Pause::Device, reason }
}

/// Longer after each failure, and never the same for all.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF_MAX);
    // Between a half and all of it.
    let chance = RandomState::new().hash_one(failures) % 512;
    full.mul_f64(0.5 + f64::from(u16::try_from(chance).unwrap_or(0)) / 1024.0)
}
