//! The loop of GPU Autoscaler as one pure function.
//!
//! In: the time, what changed since the last tick, and the policy. Out: what to do, what is owed,
//! what was refused, what readers see, and when to come back. The controller, the simulator, the
//! command line and the benchmarks call [`reconcile`] and [`admit`], and nothing else decides.
//! [`learn`] is the part of a tick that adds to the history, for measurements of before the first.
//!
//! # Invariants
//! - [`State`] is a cache: [`State::rebuild`] from what the cluster holds decides the same.
//! - An effect is not asked for again while it is under way; what it would change is decided anew
//!   from what is observed, so that losing every receipt costs time and nothing else.
//! - No clock, no randomness, no IO; no step takes longer than the number of objects says.

mod admit;
mod announce;
mod demand;
mod effects;
mod hardware;
mod history;
mod namespaces;
mod nodes;
mod observe;
mod placement;
mod policy;
mod pricing;
mod reports;
mod small_map;
mod state;
mod view;
mod waste;

#[cfg(test)]
mod tests;

use std::time::Duration;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{ChargeLine, Delta, Effect, HistoryRecord, Refusal, Timestamp, View};

pub use admit::admit;
pub use policy::Policy;
pub use state::State;

/// What one tick decided.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What to do now, in this order.
    pub effects: Vec<Effect>,
    /// What was sealed since the last tick.
    pub charges: Vec<ChargeLine>,
    /// What is to be kept of the past, each the whole of what is known under its key: the store
    /// replaces it. Handing all of it back at the next start gives the same decisions.
    pub history: Vec<HistoryRecord>,
    /// What was not used or not decided.
    pub report: Report,
    /// What readers see.
    pub view: View,
    /// When to call again even if nothing changes.
    pub wake: Timestamp,
}

/// What a tick did not use or not decide.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// GPU pods for which nothing is decided. Filled by a tick that judges, empty otherwise.
    pub refusals: Vec<Refusal>,
    /// Samples of a node that is not known.
    pub samples_unplaced: u32,
    /// Samples from the future: the clock of whoever took them is ahead.
    pub samples_ahead: u32,
    /// Receipts of effects that are not under way: late, or repeated.
    pub receipts_unmatched: u32,
}

/// One tick: takes in what was `seen`, judges when it is time, and decides what to do.
pub fn reconcile(now: Timestamp, state: &mut State, seen: &Delta, policy: &Policy) -> Outcome {
    let mut report = Report::default();
    observe::take_in(now, state, seen, policy, &mut report);
    placement::place_waiting(now, state, policy);
    let mut history = Vec::new();
    if state.judgement_due(now, policy) {
        observe::forget_old_layouts(state, policy);
        history = history::account(now, state, policy);
        let judged = waste::judge_all(now, state, policy);
        report.refusals.clone_from(&judged.refusals);
        view::rebuild(now, state, policy, judged);
    }
    let effects = effects::decide(now, state, policy);
    let wake = state.wake(now, policy);
    let view = state.view.clone();
    Outcome { effects, charges: Vec::new(), history, report, view, wake }
}

/// Adds measurements of the past to the history, as ticks at that time would have: `seen` holds the
/// samples of the stretch that ended at `until`. Stretches come in their order, each once
/// ([`State::unlearned`]); nothing is judged. Returns the records that changed.
///
/// `state` knows the nodes and pods that exist now. A pod that is gone adds to the demand of that
/// time, but to no profile: nothing tells what started it.
pub fn learn(
    until: Timestamp,
    state: &mut State,
    seen: &Delta,
    policy: &Policy,
) -> Vec<HistoryRecord> {
    observe::take_in(until, state, seen, policy, &mut Report::default());
    history::account_past(until, state, seen, policy)
}

/// The length of the stretches in which measurements are added to the history.
pub fn stretch(policy: &Policy) -> Duration {
    analysis::stretch(&policy.waste)
}
