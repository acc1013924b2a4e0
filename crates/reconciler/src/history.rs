//! What is kept of the past: what pods of one owner and image use, and what each pool is asked for.
//!
//! It is added to by whoever counts at the time: the loop ([`account`]), or whoever reads older
//! measurements back ([`account_past`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_analysis as analysis;
use gpu_autoscaler_model::{
    Backfill, Delta, DemandHour, HistoryRecord, Interval, Pod, ProfileKey, Timestamp, UsageProfile,
};

use crate::state::State;
use crate::{Policy, demand, waste};

/// The past, as far as decisions depend on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    profiles: BTreeMap<ProfileKey, UsageProfile>,
    /// The hour that runs, by pool.
    pub demand: BTreeMap<Arc<str>, DemandHour>,
    /// Until when all profiles are complete.
    pub through: Option<Timestamp>,
}

/// Profiles that are kept at most; beyond it the one that was added to longest ago goes. At 1 KiB
/// each that is 20 MiB.
const PROFILES_MAX: usize = 20_000;

impl History {
    /// What pods like this one used.
    pub fn of(&self, pod: &Pod) -> Option<&UsageProfile> {
        self.profiles.get(&profile_key(pod))
    }

    /// Takes in a record of the store. Of two of one key, the one that saw more counts.
    pub fn take(&mut self, record: &HistoryRecord) {
        match record {
            HistoryRecord::Usage(profile) => {
                self.through = self.through.max(Some(profile.through));
                let known = self.profiles.get(&profile.key);
                if known.is_none_or(|known| known.observed_secs < profile.observed_secs) {
                    self.profiles.insert(profile.key.clone(), profile.clone());
                    // Not at every record: each time costs a look at all of them.
                    if self.profiles.len() > PROFILES_MAX + PROFILES_MAX / 8 {
                        self.forget_oldest();
                    }
                }
            }
            HistoryRecord::Demand(hour) => {
                let known = self.demand.get(&hour.pool);
                if known.is_none_or(|known| {
                    (known.hour, known.observed_millis) < (hour.hour, hour.observed_millis)
                }) {
                    self.demand.insert(hour.pool.clone(), hour.clone());
                }
            }
        }
    }

    /// Keeps the profiles that were added to last, as many as may be kept.
    fn forget_oldest(&mut self) {
        let beyond = self.profiles.len().saturating_sub(PROFILES_MAX);
        if beyond == 0 {
            return;
        }
        let mut ages: Vec<(Timestamp, &ProfileKey)> =
            self.profiles.values().map(|profile| (profile.through, &profile.key)).collect();
        ages.select_nth_unstable(beyond - 1);
        let oldest: Vec<ProfileKey> =
            ages[..beyond].iter().map(|(_, key)| (*key).clone()).collect();
        for key in &oldest {
            self.profiles.remove(key);
        }
    }
}

/// Adds what was measured since, and what is asked for now; returns the records that changed.
///
/// Time is cut into stretches that are the same for everybody, and each is added once, when its
/// last readings have come. A restart begins with the stretch after the last that was kept.
///
/// Nothing while older measurements are read back: what is measured meanwhile is read with them.
pub(crate) fn account(now: Timestamp, state: &mut State, policy: &Policy) -> Vec<HistoryRecord> {
    if state.backfill == Backfill::UnderWay {
        return Vec::new();
    }
    let mut history = std::mem::take(&mut state.history);
    let ended = last_end(now, policy);
    let mut records = count_until(ended, state, &mut history, policy);
    let requested = demand::requested_now(state, &history);
    records.extend(demand::account(now, &requested, state.judged, &mut history));
    state.history = history;
    records
}

/// The same of the past: adds what was measured within the stretch that ended at `until`, and what
/// was asked for then as far as `seen`, the samples of that stretch, tells.
pub(crate) fn account_past(
    until: Timestamp,
    state: &mut State,
    seen: &Delta,
    policy: &Policy,
) -> Vec<HistoryRecord> {
    let mut history = std::mem::take(&mut state.history);
    let before = until.before(analysis::stretch(&policy.waste));
    let mut records = count_until(until, state, &mut history, policy);
    let requested = demand::requested_then(until, state, seen, policy);
    records.extend(demand::account(until, &requested, Some(before), &mut history));
    state.history = history;
    records
}

/// Until when everything that was measured has come, at the end of a stretch.
pub(crate) fn last_end(now: Timestamp, policy: &Policy) -> Timestamp {
    start_of(now.before(policy.waste.gap_max), analysis::stretch(&policy.waste))
}

/// Counts the stretch that ended at `ended`, unless it was; returns the profiles that changed.
fn count_until(
    ended: Timestamp,
    state: &State,
    history: &mut History,
    policy: &Policy,
) -> Vec<HistoryRecord> {
    let mut changed = BTreeMap::new();
    if let Some(stretch) = next_stretch(history, ended, analysis::stretch(&policy.waste)) {
        count_stretch(state, history, stretch, policy, &mut changed);
        history.through = Some(stretch.end);
    }
    changed.into_values().map(HistoryRecord::Usage).collect()
}

/// The start of the stretch that holds `at`.
pub(crate) fn start_of(at: Timestamp, length: Duration) -> Timestamp {
    // No window is as long as the calendar, nor empty.
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
    let into = at.as_millis().rem_euclid(length);
    at.before(Duration::from_millis(u64::try_from(into).unwrap_or(0)))
}

/// What is to be added now: from where the last stretch ended, but not from before the window.
fn next_stretch(history: &History, ended: Timestamp, length: Duration) -> Option<Interval> {
    let start = ended.before(length);
    let start = history.through.map_or(start, |through| through.max(start));
    Interval::new(start, ended).filter(|stretch| stretch.start < stretch.end)
}

fn count_stretch(
    state: &State,
    history: &mut History,
    stretch: Interval,
    policy: &Policy,
    changed: &mut BTreeMap<ProfileKey, UsageProfile>,
) {
    for entry in state.active_gpu_pods() {
        let Some(node) = entry.pod.node.as_ref().and_then(|node| state.nodes.get(node)) else {
            continue;
        };
        let key = profile_key(&entry.pod);
        let mut profile = match history.profiles.remove(&key) {
            Some(profile) => profile,
            None => UsageProfile::empty(key, stretch.start),
        };
        let before = profile.observed_secs;
        // What is not known now is not learned either.
        let known = waste::disagreement(stretch.end, state, entry, node, policy).is_none();
        let held = waste::held(state, entry, node).filter(|_| known);
        analysis::count(&mut profile, held, stretch, &policy.waste);
        if profile.observed_secs == before {
            // Nothing was measured; a profile of nothing is not kept.
            if before > 0 {
                history.profiles.insert(profile.key.clone(), profile);
            }
            continue;
        }
        profile.through = stretch.end;
        changed.insert(profile.key.clone(), profile.clone());
        history.profiles.insert(profile.key.clone(), profile);
    }
    history.forget_oldest();
}

/// The controller and image of a pod.
fn profile_key(pod: &Pod) -> ProfileKey {
    let owner = match &pod.owner {
        // A Deployment's ReplicaSets are told apart by the hash of their template, which is also
        // a label of their pods; the next rollout is the same workload.
        Some(owner) if &*owner.kind == "ReplicaSet" => {
            let hash = pod.labels.get("pod-template-hash");
            let stem = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
            match stem {
                Some(deployment) => format!("Deployment/{deployment}"),
                None => format!("ReplicaSet/{}", owner.name),
            }
        }
        Some(owner) => format!("{}/{}", owner.kind, owner.name),
        None => format!("Pod/{}", pod.key.name),
    };
    ProfileKey {
        namespace: pod.key.namespace.clone(),
        owner: owner.into(),
        image: pod.containers.image.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_the_profiles_that_were_added_to_longest_ago_go() {
        let mut history = History::default();
        let at = |n: usize| Timestamp::EPOCH.after(Duration::from_secs(n as u64));
        // The last record takes it beyond what is kept between two looks.
        let records = PROFILES_MAX + PROFILES_MAX / 8 + 1;
        for n in 0..records {
            let key = ProfileKey {
                namespace: "ml".into(),
                // The newest have the smallest names, so that names do not decide.
                owner: format!("Job/{:06}", records - n).into(),
                image: "".into(),
            };
            let profile = UsageProfile { through: at(n), ..UsageProfile::empty(key, at(n)) };
            history.take(&HistoryRecord::Usage(profile));
        }
        assert_eq!(history.profiles.len(), PROFILES_MAX);
        let oldest = history.profiles.values().map(|profile| profile.through).min();
        assert_eq!(oldest, Some(at(records - PROFILES_MAX)));
    }
}
