//! Rate limits: a token bucket for each endpoint class and user or address.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use ruma::MilliSecondsSinceUnixEpoch;

use super::error::ApiError;

/// Most buckets remembered of one class. Beyond that, full ones are forgotten, then all.
const BUCKETS_MAX: usize = 50_000;

/// Endpoints that share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointClass {
    /// `/login` and whatever else tries passwords, by address and by account.
    Login,
    /// `/register`, its availability check and guest accounts, by address.
    Registration,
    /// Mails and text messages that ask for a proof, by address and by recipient.
    ThreepidValidation,
    /// Messages, state events, redactions, by user.
    Message,
    /// Joining and knocking, by user.
    Join,
    /// Invitations, by user.
    Invite,
    /// Creating and upgrading rooms, by user.
    CreateRoom,
    /// Searches in the user and the room directory, by user.
    Search,
    /// Requests of other servers, by server.
    Federation,
    /// Everything else that writes: profiles, account data, devices, reports, by user.
    Other,
}

impl EndpointClass {
    const COUNT: usize = Self::Other as usize + 1;
}

/// How much one user or address may do: `burst` at once, then `per_second` on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests that come back each second. Above zero.
    pub per_second: f64,
    /// Requests that may be made at once. Above zero.
    pub burst: u32,
}

/// The rate of each class; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// See [`EndpointClass::Login`].
    pub login: Option<Rate>,
    /// See [`EndpointClass::Registration`].
    pub registration: Option<Rate>,
    /// See [`EndpointClass::ThreepidValidation`].
    pub threepid_validation: Option<Rate>,
    /// See [`EndpointClass::Message`].
    pub message: Option<Rate>,
    /// See [`EndpointClass::Join`].
    pub join: Option<Rate>,
    /// See [`EndpointClass::Invite`].
    pub invite: Option<Rate>,
    /// See [`EndpointClass::CreateRoom`].
    pub create_room: Option<Rate>,
    /// See [`EndpointClass::Search`].
    pub search: Option<Rate>,
    /// See [`EndpointClass::Federation`].
    pub federation: Option<Rate>,
    /// See [`EndpointClass::Other`].
    pub other: Option<Rate>,
}

/// All buckets. The default has no limits.
#[derive(Debug, Default)]
pub struct RateLimiter {
    rates: Rates,
    /// For each class: key -> the time, in microseconds, at which its bucket is full again.
    full_at_us: [Mutex<HashMap<Box<str>, u64>>; EndpointClass::COUNT],
}

impl RateLimiter {
    /// A limiter whose buckets are all full.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self { rates, full_at_us: Default::default() }
    }

    /// Takes one token of `key` (a user ID, or [`super::client_ip::ClientIp::limit_key`]).
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED` with the time to wait, if no token is left.
    pub fn check(
        &self,
        class: EndpointClass,
        key: &str,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(), ApiError> {
        let Some(rate) = self.rate(class) else { return Ok(()) };
        let now_us = u64::from(now.0) * 1000;
        let token_us = micros(Duration::from_secs_f64(1.0 / rate.per_second));
        let mut buckets = self.full_at_us[class as usize].lock();
        let full_at_us = buckets.get(key).copied().unwrap_or(0).max(now_us) + token_us;
        let capacity_us = token_us.saturating_mul(rate.burst.into());
        let wait_us = full_at_us.saturating_sub(now_us + capacity_us);
        if wait_us > 0 {
            return Err(ApiError::limit_exceeded(Duration::from_micros(wait_us)));
        }
        if let Some(bucket) = buckets.get_mut(key) {
            *bucket = full_at_us;
        } else {
            make_room(&mut buckets, now_us);
            buckets.insert(key.into(), full_at_us);
        }
        Ok(())
    }

    fn rate(&self, class: EndpointClass) -> Option<Rate> {
        match class {
            EndpointClass::Login => self.rates.login,
            EndpointClass::Registration => self.rates.registration,
            EndpointClass::ThreepidValidation => self.rates.threepid_validation,
            EndpointClass::Message => self.rates.message,
            EndpointClass::Join => self.rates.join,
            EndpointClass::Invite => self.rates.invite,
            EndpointClass::CreateRoom => self.rates.create_room,
            EndpointClass::Search => self.rates.search,
            EndpointClass::Federation => self.rates.federation,
            EndpointClass::Other => self.rates.other,
        }
    }
}

fn make_room(buckets: &mut HashMap<Box<str>, u64>, now_us: u64) {
    if buckets.len() >= BUCKETS_MAX {
        buckets.retain(|_, full_at_us| *full_at_us > now_us);
        if buckets.len() >= BUCKETS_MAX {
            buckets.clear();
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use ruma::api::error::{ErrorKind, LimitExceededErrorData, RetryAfter};

    use super::*;

    fn limiter() -> RateLimiter {
        let login = Some(Rate { per_second: 0.5, burst: 3 });
        RateLimiter::new(Rates { login, ..Rates::default() })
    }

    fn seconds(s: u32) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch((s * 1000).into())
    }

    fn wait(error: &ApiError) -> Duration {
        match error.kind() {
            Some(ErrorKind::LimitExceeded(LimitExceededErrorData {
                retry_after: Some(RetryAfter::Delay(delay)),
                ..
            })) => *delay,
            other => panic!("not a limit: {other:?}"),
        }
    }

    #[test]
    fn a_burst_passes_and_the_next_one_is_told_how_long_to_wait() {
        let limiter = limiter();
        for _ in 0..3 {
            limiter.check(EndpointClass::Login, "a", seconds(10)).unwrap();
        }
        let refused = limiter.check(EndpointClass::Login, "a", seconds(10)).unwrap_err();
        assert_eq!(wait(&refused), Duration::from_secs(2));
        limiter.check(EndpointClass::Login, "a", seconds(12)).unwrap();
        limiter.check(EndpointClass::Login, "a", seconds(12)).unwrap_err();
    }

    #[test]
    fn a_refused_request_costs_no_token() {
        let limiter = limiter();
        for _ in 0..20 {
            let _ = limiter.check(EndpointClass::Login, "a", seconds(0));
        }
        limiter.check(EndpointClass::Login, "a", seconds(2)).unwrap();
    }

    #[test]
    fn keys_and_classes_do_not_share_buckets() {
        let limiter = limiter();
        for _ in 0..3 {
            limiter.check(EndpointClass::Login, "a", seconds(0)).unwrap();
        }
        limiter.check(EndpointClass::Login, "b", seconds(0)).unwrap();
        for _ in 0..100 {
            limiter.check(EndpointClass::Message, "a", seconds(0)).unwrap();
        }
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_keys() {
        let limiter = limiter();
        for n in 0..=BUCKETS_MAX {
            limiter.check(EndpointClass::Login, &n.to_string(), seconds(0)).unwrap();
        }
        assert!(limiter.full_at_us[EndpointClass::Login as usize].lock().len() <= BUCKETS_MAX);
    }
}
