//! Drives the loop on a world, as the controller drives it on a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use gpu_autoscaler_model::{
    Action, Delta, EffectId, FindingKind, GpuMillis, Money, Rate, Reason, ReceiptResult, Timestamp,
    Uid, View,
};
use gpu_autoscaler_reconciler::{Outcome, Policy, State, reconcile};

use crate::World;

/// How long changes are gathered before a tick: they come in bursts, and one tick serves a burst.
pub const GATHER: Duration = Duration::from_millis(100);

/// A loop on a world: its state, its clock, and what it has done so far.
pub struct Driver {
    /// The world.
    pub world: World,
    policy: Policy,
    state: State,
    view: View,
    /// Delivered since the last tick.
    pending: Delta,
    /// When to tick because something was delivered.
    due: Option<Timestamp>,
    wake: Timestamp,
    tally: Tally,
}

/// What happened over a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Calls of the loop.
    pub ticks: u64,
    /// Samples taken in.
    pub samples: u64,
    /// Scrapes that failed.
    pub scrapes_failed: u64,
    /// Pods seen, by uid.
    pub pods: BTreeSet<Uid>,
    /// Findings ever, by pod and kind: how long each stood and what it cost meanwhile.
    pub findings: BTreeMap<(Uid, FindingKind), Standing>,
    /// Effects asked for, announcements by reason and conditions.
    pub announcements: BTreeMap<Reason, u64>,
    /// See `announcements`.
    pub conditions: u64,
    /// Answers to effects.
    pub receipts: Receipts,
    /// What all GPU nodes with a known price cost, until now.
    pub cost: Option<Money>,
    /// What standing findings would have saved, until now.
    pub saving: Option<Money>,
    /// A hash over everything that was decided, in order.
    pub digest: EffectId,
}

/// How long a finding stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Milliseconds, as judged.
    pub millis: u64,
    /// The same, times the devices that the pod held.
    pub held: GpuMillis,
    /// What the reclaimable share cost meanwhile; `None` where the price is not known.
    pub saving: Option<Money>,
}

/// Counts of answers to effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// Done.
    pub applied: u64,
    /// Found done already.
    pub already: u64,
    /// The object had changed.
    pub conflicts: u64,
    /// No answer.
    pub unanswered: u64,
    /// Anything else.
    pub other: u64,
}

impl Driver {
    /// Puts a loop that knows nothing on a world.
    pub fn new(world: World, policy: Policy) -> Self {
        let (state, now) = (State::new(), world.now());
        let view = View::default();
        let tally = Tally {
            ticks: 0,
            samples: 0,
            scrapes_failed: 0,
            pods: BTreeSet::new(),
            findings: BTreeMap::new(),
            announcements: BTreeMap::new(),
            conditions: 0,
            receipts: Receipts::default(),
            cost: None,
            saving: None,
            digest: EffectId::of(&[]),
        };
        let pending = Delta::default();
        Self { world, policy, state, view, pending, due: None, wake: now, tally }
    }

    /// What readers see.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The policy of the loop.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The state of the loop, for tests that replace it.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Lets the world go on and ticks whenever a tick is due, until `until`.
    pub fn run(&mut self, until: Timestamp) {
        self.run_with(until, |_, _, _, _| {});
    }

    /// The same; `each` sees the time, what was seen, and what was decided, after every tick.
    pub fn run_with(
        &mut self,
        until: Timestamp,
        mut each: impl FnMut(&World, &Policy, &Delta, &Outcome),
    ) {
        loop {
            let tick_at = self.due.map_or(self.wake, |due| due.min(self.wake));
            let next = self.world.next_change().map_or(tick_at, |change| change.min(tick_at));
            if next.min(tick_at) > until {
                self.world.advance(until);
                return;
            }
            self.world.advance(next);
            let seen = self.world.observe();
            if self.due.is_none() && is_urgent(&seen) {
                self.due = Some(self.world.now().after(GATHER));
            }
            self.pending.append(seen);
            if self.world.now() >= tick_at {
                let (seen, outcome) = self.tick();
                each(&self.world, &self.policy, &seen, &outcome);
            }
        }
    }

    fn tick(&mut self) -> (Delta, Outcome) {
        let now = self.world.now();
        let seen = std::mem::take(&mut self.pending);
        self.due = None;
        let before = self.view.judged;
        let outcome = reconcile(now, &mut self.state, &seen, &self.policy);
        self.wake = outcome.wake;
        self.view = outcome.view.clone();
        self.count(&seen, &outcome, before);
        self.world.perform(outcome.effects.clone());
        (seen, outcome)
    }

    fn count(&mut self, seen: &Delta, outcome: &Outcome, judged_before: Option<Timestamp>) {
        let tally = &mut self.tally;
        tally.ticks += 1;
        tally.samples += seen.samples.len() as u64;
        tally.scrapes_failed +=
            seen.scrapes.iter().filter(|one| one.result.is_err()).count() as u64;
        for receipt in &seen.receipts {
            let count = match receipt.result {
                ReceiptResult::Applied => &mut tally.receipts.applied,
                ReceiptResult::AlreadyApplied => &mut tally.receipts.already,
                ReceiptResult::Conflict => &mut tally.receipts.conflicts,
                ReceiptResult::Unanswered { .. } => &mut tally.receipts.unanswered,
                ReceiptResult::Gone | ReceiptResult::NotSent | ReceiptResult::Refused { .. } => {
                    &mut tally.receipts.other
                }
            };
            *count += 1;
        }
        let mut decided = String::new();
        for effect in &outcome.effects {
            match &effect.action {
                Action::Announce(announcement) => {
                    *tally.announcements.entry(announcement.reason).or_insert(0) += 1;
                }
                Action::SetConditions { .. } => tally.conditions += 1,
            }
            // Writing to a string does not fail.
            let _ = write!(decided, "{effect:?}");
        }
        if outcome.view.judged != judged_before {
            tally.judge(&outcome.view, judged_before);
            note_judgement(&mut decided, &outcome.view);
        }
        if !decided.is_empty() {
            tally.digest = EffectId::of(&[&tally.digest.to_string(), &decided]);
        }
    }
}

impl Tally {
    /// Adds what stands in `view` for the time since the judgement before.
    fn judge(&mut self, view: &View, before: Option<Timestamp>) {
        self.pods.extend(view.pods.iter().map(|pod| pod.uid.clone()));
        let span = view.judged.zip(before).map_or(Duration::ZERO, |(now, then)| now.since(then));
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        add(&mut self.cost, view.totals.cost, millis);
        add(&mut self.saving, view.totals.saving, millis);
        for finding in view.findings.iter() {
            let key = (finding.pod_uid.clone(), finding.kind);
            let standing = self.findings.entry(key).or_default();
            standing.millis = standing.millis.saturating_add(millis);
            let devices = finding.devices.len() as u128;
            standing.held += GpuMillis::new(u128::from(millis) * devices);
            add(&mut standing.saving, finding.recommendation.saving, millis);
        }
    }
}

/// Writes down what was judged: every finding with its numbers, every unknown with its reason.
fn note_judgement(decided: &mut String, view: &View) {
    for finding in view.findings.iter() {
        let mean = finding.usage.as_ref().map_or(0, |usage| usage.activity_mean.as_ppm());
        let saving = finding.recommendation.saving.map_or(-1, |rate| rate.hourly().as_nanos());
        let _ = write!(decided, "{}{}{mean},{saving};", finding.pod_uid, finding.kind.as_str());
    }
    for unknown in view.unknown.iter() {
        let (node, why) = (&unknown.node, unknown.why.as_str());
        let _ = write!(decided, "{node}{}{:?}{why};", unknown.count, unknown.pod);
    }
}

/// Adds what `rate` costs over `millis`; unknown adds nothing.
fn add(sum: &mut Option<Money>, rate: Option<Rate>, millis: u64) {
    let Some(amount) = rate.and_then(|rate| rate.over(millis)) else { return };
    *sum = match sum {
        // Amounts of different currencies do not add; the simulated clouds have one.
        Some(sum) => sum.checked_add(amount).or(Some(*sum)),
        None => Some(amount),
    };
}

/// Objects and receipts are acted on at once; samples wait for the next judgement.
fn is_urgent(seen: &Delta) -> bool {
    !(seen.nodes.is_empty()
        && seen.pods.is_empty()
        && seen.budgets.is_empty()
        && seen.policies.is_empty()
        && seen.events.is_empty()
        && seen.receipts.is_empty())
}
