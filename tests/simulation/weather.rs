//! What the network does to requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use millrace_federation::{
    Transport,
    transport::{ExchangeLimits, TransportError},
};
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use ruma::ServerName;

/// How bad it is, in percent of the requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Requests that never arrive.
    pub dropped: u32,
    /// Requests whose answer never arrives.
    pub unanswered: u32,
    /// Requests that arrive twice.
    pub doubled: u32,
    /// The longest that a request is on its way.
    pub delay_max: Duration,
}

impl Weather {
    /// Everything goes wrong at times.
    pub const STORM: Self =
        Self { dropped: 10, unanswered: 10, doubled: 10, delay_max: Duration::from_millis(1500) };
}

/// The weather over all servers. Clones are the same sky.
#[derive(Clone)]
pub struct Sky(Arc<Mutex<(Weather, StdRng)>>);

impl Sky {
    /// Fine weather; what comes follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new((Weather::default(), StdRng::seed_from_u64(seed)))))
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.0.lock().0 = weather;
    }

    /// What becomes of one request.
    fn fate(&self) -> Fate {
        let (weather, random) = &mut *self.0.lock();
        let mut percent = |chance: u32| random.random_range(0..100) < chance;
        let (dropped, unanswered) = (percent(weather.dropped), percent(weather.unanswered));
        let doubled = percent(weather.doubled);
        let most = weather.delay_max.as_millis().try_into().unwrap_or(u32::MAX);
        let mut delay = || Duration::from_millis(u64::from(random.next_u32() % (most + 1)));
        Fate { dropped, unanswered, doubled, there: delay(), back: delay() }
    }
}

struct Fate {
    dropped: bool,
    unanswered: bool,
    doubled: bool,
    there: Duration,
    back: Duration,
}

/// A link that the weather blows on.
pub struct Exposed {
    /// The link.
    pub link: Arc<dyn Transport>,
    /// What blows.
    pub sky: Sky,
}

impl Transport for Exposed {
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        async move {
            let fate = self.sky.fate();
            let lost = || TransportError::Unreachable("lost on its way".to_owned());
            tokio::time::sleep(fate.there).await;
            if fate.dropped {
                return Err(lost());
            }
            let again = fate.doubled.then(|| copy(&request));
            let answer = self.link.exchange(destination, request, limits).await;
            if let Some(again) = again {
                tokio::time::sleep(fate.back).await;
                drop(self.link.exchange(destination, again, limits).await);
            }
            tokio::time::sleep(fate.back).await;
            if fate.unanswered { Err(lost()) } else { answer }
        }
        .boxed()
    }
}

fn copy(request: &http::Request<Bytes>) -> http::Request<Bytes> {
    let mut copy = http::Request::new(request.body().clone());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
