//! Figures for Prometheus.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// All figures.
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    pushes: Family<PushLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    seconds: Family<AppLabels, Histogram>,
    waiting: Family<AppLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    app: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    app: String,
    vendor: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppLabels {
    app: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("push_gateway");
        let calls = Family::default();
        registry.register("calls", "Calls of homeservers by the status they got", calls.clone());
        let pushes = Family::default();
        registry.register(
            "pushes",
            "Notifications for a device by what became of them",
            pushes.clone(),
        );
        let attempts = Family::default();
        registry.register(
            "attempts",
            "Requests to vendors by the status they got; 0 where there was no answer",
            attempts.clone(),
        );
        let seconds = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.005, 2.0, 12))) as fn() -> Histogram,
        );
        registry.register("attempt_seconds", "How long vendors took to answer", seconds.clone());
        let waiting = Family::default();
        registry.register("waiting", "Notifications being sent or tried again", waiting.clone());
        Self { registry, calls, pushes, attempts, seconds, waiting }
    }
}

impl Metrics {
    /// A call was answered.
    pub fn call(&self, status: u16) {
        self.calls.get_or_create(&CallLabels { status }).inc();
    }

    /// A notification for a device came to an end.
    pub fn push(&self, app: &str, outcome: &'static str) {
        self.pushes.get_or_create(&PushLabels { app: app.to_owned(), outcome }).inc();
    }

    /// A vendor answered, or did not: status 0.
    pub fn attempt(&self, app: &str, vendor: &'static str, status: u16, took: Duration) {
        let app = app.to_owned();
        self.attempts.get_or_create(&AttemptLabels { app: app.clone(), vendor, status }).inc();
        self.seconds.get_or_create(&AppLabels { app }).observe(took.as_secs_f64());
    }

    /// How many notifications of an app are under way.
    pub fn waiting(&self, app: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.get_or_create(&AppLabels { app: app.to_owned() }).set(count);
    }

    /// All of them, in the text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}
