//! The apps: which one a device belongs to, and how much of each is under way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::{
    apns::Apns,
    config::{self, Config, VendorOptions},
    fcm::Fcm,
    glob,
    internet::{Identity, Manner, SetupError, client},
    jwt::KeyError,
    vendor::{Push, Vendor},
    webpush::WebPush,
};

/// Where each device has an address of its own, one service has at most this part of an app's
/// requests and of its queue: a slow one leaves room for others.
const PART_OF_ONE_SERVICE: usize = 8;
/// Services whose share is counted; beyond it, unused ones are forgotten.
const SERVICES_COUNTED_MAX: usize = 1024;

/// All apps.
pub struct Apps {
    exact: HashMap<String, Arc<App>>,
    /// The most definite first.
    patterns: Vec<(String, Arc<App>)>,
}

/// One app with its vendor.
pub struct App {
    /// Its ID, or the pattern of its IDs.
    pub name: String,
    /// How its devices are reached.
    pub vendor: Box<dyn Vendor>,
    /// What the requests go over.
    pub client: reqwest::Client,
    all: Lane,
    /// By origin, for vendors whose devices have addresses of their own.
    services: Option<Mutex<HashMap<String, Arc<Lane>>>>,
    requests_max: usize,
    queue_max: usize,
    paused_until: Mutex<Option<Instant>>,
}

/// How many requests and how many waiting notifications something may have.
struct Lane {
    requests: Semaphore,
    places: Arc<Semaphore>,
}

/// The place of one notification in the queues that it waits in.
pub struct Place {
    service: Option<Arc<Lane>>,
    _held: Vec<OwnedSemaphorePermit>,
}

/// Why an app cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("apps.{app}: {problem}")]
pub struct AppError {
    app: String,
    problem: String,
}

impl Lane {
    fn new(requests: usize, places: usize) -> Self {
        let bounded = |count: usize| Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS));
        Self { requests: bounded(requests), places: Arc::new(bounded(places)) }
    }
}

impl Apps {
    /// Reads the keys of all apps and makes their clients.
    ///
    /// # Errors
    /// Where one cannot be set up.
    pub fn new(config: &Config) -> Result<Self, AppError> {
        let mut apps = Self { exact: HashMap::new(), patterns: Vec::new() };
        for (name, options) in &config.apps {
            let app = App::new(name, options, config)
                .map_err(|problem| AppError { app: name.clone(), problem })?;
            if glob::is_pattern(name) {
                apps.patterns.push((name.clone(), Arc::new(app)));
            } else {
                apps.exact.insert(name.clone(), Arc::new(app));
            }
        }
        apps.patterns.sort_by_key(|(pattern, _)| {
            std::cmp::Reverse(pattern.chars().filter(|c| !matches!(c, '*' | '?')).count())
        });
        Ok(apps)
    }

    /// The app of a device.
    #[must_use]
    pub fn find(&self, app_id: &str) -> Option<&Arc<App>> {
        self.exact.get(app_id).or_else(|| {
            let found = self.patterns.iter().find(|(pattern, _)| glob::matches(pattern, app_id));
            found.map(|(_, app)| app)
        })
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.exact.values().chain(self.patterns.iter().map(|(_, app)| app))
    }
}

impl App {
    fn new(name: &str, options: &config::App, config: &Config) -> Result<Self, String> {
        let key = |error: KeyError| error.to_string();
        let setup = |error: SetupError| error.to_string();
        let mut manner = Manner::default();
        match &options.vendor {
            VendorOptions::Apns(apns) => {
                let file = apns.certfile.as_deref();
                manner.identity = file.map(Identity::from_file).transpose().map_err(setup)?;
                manner.http2_only = true;
            }
            VendorOptions::Fcm(_) => {}
            VendorOptions::WebPush(_) => manner.public_only = config.proxy.is_none(),
        }
        let client = client(config, manner).map_err(setup)?;
        let vendor: Box<dyn Vendor> = match &options.vendor {
            VendorOptions::Apns(apns) => Box::new(Apns::new(apns, options).map_err(key)?),
            VendorOptions::Fcm(fcm) => {
                Box::new(Fcm::new(fcm, options, client.clone()).map_err(key)?)
            }
            VendorOptions::WebPush(web) => {
                Box::new(WebPush::new(web, options, &config.allowed_addresses).map_err(key)?)
            }
        };
        let common = &options.common;
        let by_service = matches!(options.vendor, VendorOptions::WebPush(_));
        Ok(Self {
            name: name.to_owned(),
            vendor,
            client,
            all: Lane::new(common.inflight_request_limit, common.queue_max),
            services: by_service.then(Mutex::default),
            requests_max: common.inflight_request_limit,
            queue_max: common.queue_max,
            paused_until: Mutex::new(None),
        })
    }

    /// A place for a notification; none where the queue is full.
    #[must_use]
    pub fn place(&self, push: &Push) -> Option<Place> {
        let mut held = vec![Arc::clone(&self.all.places).try_acquire_owned().ok()?];
        let service = self.service(push);
        if let Some(service) = &service {
            held.push(Arc::clone(&service.places).try_acquire_owned().ok()?);
        }
        Some(Place { service, _held: held })
    }

    fn service(&self, push: &Push) -> Option<Arc<Lane>> {
        let mut services = self.services.as_ref()?.lock();
        if services.len() > SERVICES_COUNTED_MAX {
            services.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        let lane = services.entry(push.url.origin().ascii_serialization()).or_insert_with(|| {
            let part = |all: usize| all.div_ceil(PART_OF_ONE_SERVICE);
            Arc::new(Lane::new(part(self.requests_max), part(self.queue_max)))
        });
        Some(Arc::clone(lane))
    }

    /// Permission for one request, when there is one.
    pub async fn request<'a>(&'a self, place: &'a Place) -> Vec<SemaphorePermit<'a>> {
        let lanes = place.service.as_deref().into_iter().chain([&self.all]);
        let mut held = Vec::new();
        for lane in lanes {
            held.push(lane.requests.acquire().await.expect("it is never closed"));
        }
        held
    }

    /// How many notifications are under way.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue_max.saturating_sub(self.all.places.available_permits())
    }

    /// Until when the vendor wants no requests.
    #[must_use]
    pub fn paused_until(&self) -> Option<Instant> {
        let mut until = self.paused_until.lock();
        *until = until.filter(|until| *until > Instant::now());
        *until
    }

    /// The vendor wants no requests for this long.
    pub fn pause(&self, wait: Duration) {
        let mut until = self.paused_until.lock();
        *until = (*until).max(Some(Instant::now() + wait));
    }

    /// Returns when nothing is under way any more.
    pub async fn idle(&self) {
        let all = u32::try_from(self.queue_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let _all = self.all.places.acquire_many(all).await;
    }
}
