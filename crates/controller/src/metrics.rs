//! What is exposed to Prometheus.
//!
//! Published names are kept, `controller_reconcile_*` among them.

mod fleet;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gpu_autoscaler_k8s::effects::Performed;
use gpu_autoscaler_model::{Effect, ReceiptResult, Timestamp, View};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::health::Health;

type Level = Gauge<f64, AtomicU64>;
type Sum = Counter<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPart {
    part: String,
}

/// All metrics of a controller.
pub struct Metrics {
    registry: Registry,
    reconcile_errors: Counter,
    reconcile_errors_published: Gauge,
    reconcile_duration: Histogram,
    reconcile_duration_published: Level,
    last_reconcile: Level,
    leader: Gauge,
    effects: Family<ByOutcome, Counter>,
    effects_dropped: Counter,
    write_wait: Sum,
    samples: Counter,
    telemetry_failing: Gauge,
    telemetry_partial: Gauge,
    history_unreadable: Gauge,
    backfill_failing: Gauge,
    backfill_samples: Counter,
    watch_objects: Family<ByKind, Gauge>,
    watch_malformed: Family<ByKind, Gauge>,
    watch_synced: Family<ByKind, Gauge>,
    watch_breaks: Family<ByKind, Counter>,
    watch_expired: Family<ByKind, Counter>,
    watch_lists: Family<ByKind, Counter>,
    watch_absent: Family<ByKind, Gauge>,
    part_works: Family<ByPart, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All at nothing; those of the fleet come from the last view.
    pub fn new(view: watch::Receiver<Arc<View>>) -> Self {
        let buckets = || exponential_buckets(0.01, 2.0, 10);
        let mut this = Self {
            registry: Registry::default(),
            reconcile_errors: Counter::default(),
            reconcile_errors_published: Gauge::default(),
            reconcile_duration: Histogram::new(buckets()),
            reconcile_duration_published: Level::default(),
            last_reconcile: Level::default(),
            leader: Gauge::default(),
            effects: Family::default(),
            effects_dropped: Counter::default(),
            write_wait: Sum::default(),
            samples: Counter::default(),
            telemetry_failing: Gauge::default(),
            telemetry_partial: Gauge::default(),
            history_unreadable: Gauge::default(),
            backfill_failing: Gauge::default(),
            backfill_samples: Counter::default(),
            watch_objects: Family::default(),
            watch_malformed: Family::default(),
            watch_synced: Family::default(),
            watch_breaks: Family::default(),
            watch_expired: Family::default(),
            watch_lists: Family::default(),
            watch_absent: Family::default(),
            part_works: Family::default(),
        };
        this.register();
        this.registry.register_collector(Box::new(fleet::Fleet(view)));
        this
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        macro_rules! add {
            ($($field:ident $name:literal $help:literal;)*) => {
                $(registry.register($name, $help, self.$field.clone());)*
            };
        }
        add! {
            reconcile_errors "gpu_autoscaler_reconcile_errors" "Effects that were refused or not answered";
            reconcile_errors_published "controller_reconcile_errors" "The same under its first published name";
            reconcile_duration "gpu_autoscaler_reconcile_duration_seconds" "Duration of a tick";
            reconcile_duration_published "controller_reconcile_duration" "Duration of the last tick in seconds";
            last_reconcile "gpu_autoscaler_last_reconcile_timestamp" "Unix time of the last tick in seconds";
            leader "gpu_autoscaler_leader" "1 while this replica leads";
            effects "gpu_autoscaler_effects" "Effects by what became of them";
            effects_dropped "gpu_autoscaler_effects_dropped" "Effects that found the queue full; they are decided again";
            write_wait "gpu_autoscaler_write_wait_seconds" "Time that effects waited for the write rate";
            samples "gpu_autoscaler_samples" "Samples taken in";
            telemetry_failing "gpu_autoscaler_telemetry_sources_failing" "Sources of telemetry that cannot be read";
            telemetry_partial "gpu_autoscaler_telemetry_sources_partial" "Sources of telemetry that answer in part";
            history_unreadable "gpu_autoscaler_history_unreadable_records" "Records of the history that cannot be and were left out";
            backfill_failing "gpu_autoscaler_history_backfill_failing" "1 while the past cannot be read back from Prometheus, or was given up";
            backfill_samples "gpu_autoscaler_history_backfill_samples" "Samples of the past that were read back from Prometheus";
            watch_objects "gpu_autoscaler_watch_objects" "Objects known of each kind";
            watch_malformed "gpu_autoscaler_watch_malformed_objects" "Objects that cannot be read";
            watch_synced "gpu_autoscaler_watch_synced" "1 when everything that exists was seen";
            watch_breaks "gpu_autoscaler_watch_breaks" "How often a watch broke";
            watch_expired "gpu_autoscaler_watch_expired" "How often the version to resume from had expired (410)";
            watch_lists "gpu_autoscaler_watch_lists" "How often everything was listed";
            watch_absent "gpu_autoscaler_watch_absent" "1 while the API server does not know the kind";
            part_works "gpu_autoscaler_part_works" "1 while a part of the controller works, as /readyz names it";
        }
    }

    /// A tick at `now` that took `took`.
    pub fn tick(&self, now: Timestamp, took: Duration) {
        self.reconcile_duration.observe(took.as_secs_f64());
        self.reconcile_duration_published.set(took.as_secs_f64());
        // Milliseconds since 1970 are far below 2^53.
        self.last_reconcile.set(now.as_millis() as f64 / 1000.0);
    }

    /// Samples were taken in.
    pub fn samples(&self, count: usize) {
        self.samples.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// An effect was performed.
    pub fn effect(&self, effect: &Effect, performed: &Performed) {
        let action = effect.action.as_str();
        let result = match performed.receipt.result {
            ReceiptResult::Applied => "applied",
            ReceiptResult::AlreadyApplied => "already_applied",
            ReceiptResult::Conflict => "conflict",
            ReceiptResult::Gone => "gone",
            ReceiptResult::NotSent => "not_sent",
            ReceiptResult::Refused { .. } => "refused",
            ReceiptResult::Unanswered { .. } => "unanswered",
        };
        self.effects.get_or_create(&ByOutcome { action, result }).inc();
        self.write_wait.inc_by(performed.waited.as_secs_f64());
        if matches!(result, "refused" | "unanswered") {
            self.reconcile_errors.inc();
            self.reconcile_errors_published.inc();
        }
    }

    /// An effect found the queue full.
    pub fn effect_dropped(&self) {
        self.effects_dropped.inc();
    }

    /// Takes over what is kept elsewhere.
    pub fn observe(&self, health: &Health) {
        self.leader.set(i64::from(health.leadership.may_write().is_some()));
        self.telemetry_failing.set(count(health.telemetry.borrow().failing.len()));
        self.telemetry_partial.set(count(health.telemetry.borrow().partial.len()));
        self.history_unreadable.set(count(health.history_unreadable()));
        let backfill = health.backfill();
        self.backfill_failing.set(i64::from(backfill.error.is_some()));
        raise(&self.backfill_samples, backfill.samples);
        for (resource, watch) in &health.watches {
            let label = ByKind { kind: resource.kind().as_str() };
            let watch = watch.borrow();
            self.watch_objects.get_or_create(&label).set(count(watch.objects));
            self.watch_malformed.get_or_create(&label).set(count(watch.malformed));
            self.watch_synced.get_or_create(&label).set(i64::from(watch.synced));
            raise(&self.watch_breaks.get_or_create(&label), watch.breaks);
            raise(&self.watch_expired.get_or_create(&label), watch.expired);
            raise(&self.watch_lists.get_or_create(&label), watch.lists);
            self.watch_absent.get_or_create(&label).set(i64::from(watch.absent));
        }
        for part in health.parts() {
            let works = i64::from(part.fault.is_none());
            self.part_works.get_or_create(&ByPart { part: part.name }).set(works);
        }
        if let Some(works) = health.history_works() {
            let part = "history".to_owned();
            self.part_works.get_or_create(&ByPart { part }).set(i64::from(works));
        }
    }

    /// In the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry).expect("a string takes everything");
        encoded
    }
}

/// Raises `counter` to `value`; another process' worth of counting is never taken back.
fn raise(counter: &Counter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
