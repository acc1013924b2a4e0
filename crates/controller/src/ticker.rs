//! Collects what was seen and calls `reconcile` when it is time.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_k8s::watch::Part;
use gpu_autoscaler_model::{Backfill, Delta, Effect, Receipt, View};
use gpu_autoscaler_reconciler::{Policy, State, reconcile};
use gpu_autoscaler_store::Writer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, field, info, info_span, warn};

use crate::faults::Faults;
use crate::health::{BEAT, Health};
use crate::metrics::Metrics;
use crate::telemetry::Reading;
use crate::{backfill, clock};

/// Changes are collected for this long before they are looked at: placement is due 100 ms after a
/// change.
const COLLECT: Duration = Duration::from_millis(100);

/// How long the first tick waits for telemetry that does not answer.
const FIRST_READING_MAX: Duration = Duration::from_secs(15);

/// Parts taken in at once before anything else gets its turn.
const PARTS_AT_ONCE: usize = 1024;

/// Where what is seen comes from.
pub struct Inputs {
    /// Of the watches.
    pub parts: mpsc::Receiver<Part>,
    /// Of telemetry.
    pub readings: mpsc::Receiver<Reading>,
    /// Of the performer.
    pub receipts: mpsc::Receiver<Receipt>,
    /// Of the store, once, and of what is read back.
    pub past: mpsc::Receiver<Delta>,
}

/// Where what was decided goes.
pub struct Outputs {
    /// To the performer.
    pub effects: mpsc::Sender<Effect>,
    /// To those who read.
    pub view: watch::Sender<Arc<View>>,
    /// To the store, where there is one.
    pub history: Option<Arc<Writer>>,
}

/// The loop around the loop.
pub struct Ticker {
    policy: Policy,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Nothing until everything that exists was seen once.
    state: Option<State>,
    /// Whether there was a tick.
    ticked: bool,
    pending: Delta,
    /// Since when something is pending.
    pending_since: Option<Instant>,
    /// When this began: long due.
    began: Instant,
    /// When the next stage is due; before the first tick, until when telemetry is waited for.
    due: Instant,
    faults: Faults,
    /// Who reads the past back wants to know what there is.
    objects: Option<oneshot::Sender<Delta>>,
    /// In how many terms of leadership effects were asked for.
    terms: u64,
}

impl Ticker {
    /// With nothing seen yet. Where the past is read back, `objects` is told of what there is at
    /// the first tick, and nothing is counted until that has ended.
    pub fn new(
        policy: Policy,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        objects: Option<oneshot::Sender<Delta>>,
    ) -> Self {
        let began = Instant::now();
        Self {
            policy,
            health,
            metrics,
            state: None,
            ticked: false,
            pending: Delta::default(),
            pending_since: None,
            began,
            due: began + FIRST_READING_MAX,
            faults: Faults::new(began),
            objects,
            terms: 0,
        }
    }

    /// Runs until `stop`.
    pub async fn run(
        mut self,
        mut inputs: Inputs,
        outputs: Outputs,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut leadership = self.health.leadership.clone();
        let mut elections = true;
        let mut parts = Vec::with_capacity(PARTS_AT_ONCE);
        loop {
            self.health.beat();
            if let Some(faults) = self.faults.look(Instant::now(), || self.health.faults()) {
                self.see(Delta { faults: Some(faults), ..Delta::default() });
            }
            let next = self.next();
            tokio::select! {
                () = &mut stop => return,
                count = inputs.parts.recv_many(&mut parts, PARTS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    for part in parts.drain(..) {
                        self.see(part.delta);
                    }
                }
                // Samples take more room than what is kept of them: they wait where they are
                // until there is something to take them in.
                Some(reading) = inputs.readings.recv(), if self.state.is_some() => {
                    self.metrics.samples(reading.samples.len());
                    self.see(Delta {
                        samples: reading.samples,
                        scrapes: reading.scrapes,
                        ..Delta::default()
                    });
                }
                Some(receipt) = inputs.receipts.recv() => {
                    self.see(Delta { receipts: vec![receipt], ..Delta::default() });
                }
                Some(past) = inputs.past.recv() => self.see(past),
                changed = leadership.changed(), if elections => elections = changed,
                () = tokio::time::sleep_until(next) => {}
            }
            if self.state.is_none() && self.health.synced() {
                tokio::task::block_in_place(|| self.begin());
            }
            if self.begin_term() || Instant::now() >= self.next_tick() {
                tokio::task::block_in_place(|| self.tick(&outputs));
            }
        }
    }

    fn see(&mut self, delta: Delta) {
        if delta.is_empty() {
            return;
        }
        if let Some(state) = self.state.as_mut().filter(|_| !self.ticked) {
            tokio::task::block_in_place(|| state.take_in(clock::now(), &delta, &self.policy));
            return;
        }
        self.pending.append(delta);
        self.pending_since.get_or_insert_with(Instant::now);
    }

    /// When a tick is due.
    fn next_tick(&self) -> Instant {
        if !self.ticked {
            // Everything that exists, what was kept of the past, and one look at telemetry, or the
            // end of patience.
            let now = Instant::now();
            let told = self.health.telemetry.borrow().asked && self.health.history_tried();
            let asked = told || now >= self.due;
            return if asked && self.state.is_some() { self.began } else { now + COLLECT };
        }
        match self.pending_since {
            Some(since) => self.due.min(since + COLLECT),
            None => self.due,
        }
    }

    /// When to look again, a tick or not.
    fn next(&self) -> Instant {
        self.next_tick().min(Instant::now() + BEAT)
    }

    /// Whether a new term of leadership has begun: then everything is decided anew, because what
    /// was asked for before was dropped here, or died with the replica that led.
    fn begin_term(&mut self) -> bool {
        let terms = self.health.leadership.standing().terms;
        if terms == self.terms || self.health.leadership.may_write().is_none() {
            return false;
        }
        let Some(state) = self.state.as_mut().filter(|_| self.ticked) else { return false };
        self.terms = terms;
        state.forget_under_way();
        true
    }

    /// Everything that exists was seen.
    fn begin(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        self.pending_since = None;
        if let Some(objects) = self.objects.take() {
            // Nobody takes it where the task has ended, and then nobody counts in its place.
            let told = objects.send(backfill::objects(&pending));
            pending.backfill = told.is_ok().then_some(Backfill::UnderWay);
        }
        info!(
            nodes = pending.nodes.len(),
            pods = pending.pods.len(),
            events = pending.events.len(),
            "begin"
        );
        self.state = Some(State::rebuild(clock::now(), &pending, &self.policy));
    }

    fn tick(&mut self, outputs: &Outputs) {
        let Some(state) = &mut self.state else { return };
        let now = clock::now();
        let began = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        self.pending_since = None;
        if !std::mem::replace(&mut self.ticked, true)
            && self.health.leadership.may_write().is_some()
        {
            // What this first tick asks for belongs to this term.
            self.terms = self.health.leadership.standing().terms;
        }
        let span = info_span!("reconcile", effects = field::Empty, findings = field::Empty);
        let _entered = span.enter();
        let outcome = reconcile(now, state, &pending, &self.policy);
        span.record("effects", outcome.effects.len());
        span.record("findings", outcome.view.findings.len());
        self.due = Instant::now() + outcome.wake.since(now);
        let report = &outcome.report;
        if report.samples_ahead > 0 || report.samples_unplaced > 0 {
            debug!(
                ahead = report.samples_ahead,
                unplaced = report.samples_unplaced,
                "samples not used"
            );
        }
        self.metrics.tick(now, began.elapsed());
        outputs.view.send_replace(Arc::new(outcome.view));
        self.health.ticked();
        if let Some(history) = &outputs.history {
            history.put(outcome.history);
        }
        self.hand_over(outcome.effects, outputs);
    }

    /// Only a leader's effects go on; another replica's are dropped, and decided anew when it
    /// becomes the leader.
    fn hand_over(&mut self, effects: Vec<Effect>, outputs: &Outputs) {
        if self.health.leadership.may_write().is_none() {
            return;
        }
        for effect in effects {
            if outputs.effects.try_send(effect).is_err() {
                self.metrics.effect_dropped();
                warn!("effect dropped: too many wait for their turn; it is decided again");
            }
        }
    }
}
