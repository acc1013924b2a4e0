//! What the loop remembers between ticks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_analysis::{self as analysis, ThrottleWindow, Window};
use gpu_autoscaler_model::{
    Activity, AnnouncedEvent, Backfill, Bytes, Delta, Device, DisruptionBudget, EffectId, Fault,
    Finding, FindingKind, GpuModel, GpuSample, GpuUuid, HardwareReading, Interval, Node, NodeName,
    ObjectKey, Pod, PolicyObject, SampleScope, Timestamp, Uid, UnknownGpus, UnknownReason, View,
};

use crate::announce::Announcements;
use crate::history::History;
use crate::placement::Placement;
use crate::reports::Reports;
use crate::small_map::SmallMap;
use crate::{Policy, Report, history, observe};

/// What the loop remembers: a cache of the cluster and of the window of measurements.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    /// Boxed, because a map has room for about half as many again.
    pub(crate) pods: BTreeMap<Uid, Box<PodEntry>>,
    /// Active pods that request GPUs, by name.
    pub(crate) gpu_pods: BTreeMap<ObjectKey, Uid>,
    pub(crate) devices: BTreeMap<NodeName, SmallMap<Device, DeviceEntry>>,
    /// Where each GPU was last measured: it may be moved to another node, but is in one only.
    pub(crate) homes: BTreeMap<GpuUuid, NodeName>,
    pub(crate) budgets: BTreeMap<Uid, DisruptionBudget>,
    pub(crate) policies: BTreeMap<Uid, PolicyObject>,
    pub(crate) events: BTreeMap<Uid, AnnouncedEvent>,
    /// Findings and the same events by name, which is what identifies them to us.
    pub(crate) announcements: Announcements,
    pub(crate) history: History,
    /// Who adds to the history.
    pub(crate) backfill: Backfill,
    /// Where each pod's finding is in `view`, which holds the only copy.
    pub(crate) findings: BTreeMap<Uid, u32>,
    pub(crate) totalled: Totalled,
    pub(crate) under_way: BTreeMap<EffectId, UnderWay>,
    /// What edges cannot do now.
    pub(crate) faults: Vec<Fault>,
    pub(crate) judged: Option<Timestamp>,
    pub(crate) placement: Placement,
    pub(crate) view: View,
}

/// A pod, and what was measured of it.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    pub pod: Pod,
    /// Its devices. Empty for pods without GPUs.
    pub windows: SmallMap<Device, Window>,
    /// Why the last sample of it could not be used.
    pub unusable: Option<UnknownReason>,
}

/// Sums over findings and unknowns, worked out once a judgement: conditions are set against them
/// at every tick.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totalled {
    /// GPUs whose use is not known.
    pub unknown: u32,
    /// Nodes with such GPUs.
    pub nodes_unknown: usize,
    /// The first of them by name.
    pub first_unknown: Option<NodeName>,
    /// Pods with a finding, by kind; none of them zero.
    pub pods: BTreeMap<FindingKind, usize>,
}

impl Totalled {
    /// Over findings, and over unknowns sorted by node.
    pub fn of(findings: &[Finding], unknown: &[UnknownGpus]) -> Self {
        let mut pods = BTreeMap::new();
        for finding in findings {
            *pods.entry(finding.kind).or_default() += 1;
        }
        Self {
            unknown: unknown.iter().map(|u| u.count).fold(0, u32::saturating_add),
            nodes_unknown: unknown.chunk_by(|a, b| a.node == b.node).count(),
            first_unknown: unknown.first().map(|u| u.node.clone()),
            pods,
        }
    }
}

/// A device as it was last measured.
#[derive(Clone, Debug)]
pub(crate) struct DeviceEntry {
    /// The last reading of the device as a whole, of the exporter that counts.
    pub last: DeviceReading,
    /// What each exporter reported, where there are several.
    pub reports: Option<Box<Reports>>,
    /// What it said of its clocks.
    pub throttle: ThrottleWindow,
    /// Pods that the exporter names as holders, with the time of the last sample that does.
    pub holders: SmallMap<Uid, Timestamp>,
}

/// What is kept of a sample: all but what the entry's place and holders say.
#[derive(Clone, Debug)]
pub(crate) struct DeviceReading {
    pub at: Timestamp,
    pub exporter: Arc<str>,
    pub model: Option<GpuModel>,
    pub scope: SampleScope,
    pub activity: Option<Activity>,
    pub fb_used: Option<Bytes>,
    pub fb_free: Option<Bytes>,
    pub fb_total: Option<Bytes>,
    pub hardware: HardwareReading,
}

impl DeviceReading {
    pub fn of(sample: &GpuSample) -> Self {
        Self {
            at: sample.at,
            exporter: Arc::clone(&sample.exporter),
            model: sample.model.clone(),
            scope: sample.scope,
            activity: sample.activity,
            fb_used: sample.fb_used,
            fb_free: sample.fb_free,
            fb_total: sample.fb_total,
            hardware: sample.hardware,
        }
    }

    /// Becomes what `sample` says. Texts that stay the same stay where they are: those of a sample
    /// are new at every scrape, and would be scattered over all the memory that scrapes take.
    pub fn renew(&mut self, sample: &GpuSample) {
        let before = std::mem::replace(self, Self::of(sample));
        if before.exporter == self.exporter {
            self.exporter = before.exporter;
        }
        if before.model == self.model {
            self.model = before.model;
        }
    }
}

/// An effect that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderWay {
    /// Not to be asked for again before this.
    pub not_before: Timestamp,
    /// How often it was asked for.
    pub attempts: u32,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Knows nothing.
    pub fn new() -> Self {
        Self {
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            gpu_pods: BTreeMap::new(),
            devices: BTreeMap::new(),
            homes: BTreeMap::new(),
            budgets: BTreeMap::new(),
            policies: BTreeMap::new(),
            events: BTreeMap::new(),
            announcements: Announcements::default(),
            history: History::default(),
            backfill: Backfill::default(),
            findings: BTreeMap::new(),
            totalled: Totalled::default(),
            under_way: BTreeMap::new(),
            faults: Vec::new(),
            judged: None,
            placement: Placement::default(),
            view: View::default(),
        }
    }

    /// From everything that the cluster holds now and the measurements of the last window, as
    /// after a restart. It decides what a state that saw all of it change by change decides.
    pub fn rebuild(now: Timestamp, snapshot: &Delta, policy: &Policy) -> Self {
        let mut state = Self::new();
        state.take_in(now, snapshot, policy);
        state
    }

    /// Takes in what was seen and decides nothing: what comes in many parts before the first tick
    /// need not wait until all of it is there.
    pub fn take_in(&mut self, now: Timestamp, seen: &Delta, policy: &Policy) {
        observe::take_in(now, self, seen, policy, &mut Report::default());
    }

    /// The next stretches of the past that are to be added by [`learn`](crate::learn), at most
    /// `count`: from where what is kept ends, but not from before `earliest`, until everything that
    /// was measured has come at `now`. `None` when nothing is left.
    pub fn unlearned(
        &self,
        now: Timestamp,
        earliest: Timestamp,
        count: u32,
        policy: &Policy,
    ) -> Option<Interval> {
        let length = analysis::stretch(&policy.waste);
        let start = self.history.through.map_or(earliest, |through| through.max(earliest));
        let start = history::start_of(start, length);
        let end = history::last_end(now, policy).min(start.after(length * count));
        Interval::new(start, end).filter(|rest| rest.start < rest.end)
    }

    /// Active pods that request GPUs, by name.
    pub(crate) fn active_gpu_pods(&self) -> impl Iterator<Item = &PodEntry> {
        self.gpu_pods.values().filter_map(|uid| self.pods.get(uid)).map(AsRef::as_ref)
    }

    /// What the last judgement found of a pod.
    pub(crate) fn finding(&self, pod: &Uid) -> Option<&Finding> {
        self.view.findings.get(*self.findings.get(pod)? as usize)
    }

    /// Forgets what was measured of a node's devices, apart from what pods made of them.
    pub(crate) fn forget_devices(&mut self, node: &NodeName) {
        for device in self.devices.remove(node).into_iter().flat_map(SmallMap::into_keys) {
            if self.homes.get(&device.uuid) == Some(node) {
                self.homes.remove(&device.uuid);
            }
        }
    }

    /// Forgets which effects are under way: whoever asked for them may have died before they were
    /// performed. Called on becoming the leader; preconditions make a second attempt harmless.
    pub fn forget_under_way(&mut self) {
        self.under_way.clear();
    }

    /// Whether waste is to be judged now.
    pub(crate) fn judgement_due(&self, now: Timestamp, policy: &Policy) -> bool {
        self.judged.is_none_or(|judged| now.since(judged) >= policy.judge_every || judged > now)
    }

    /// When something is due next.
    pub(crate) fn wake(&self, now: Timestamp, policy: &Policy) -> Timestamp {
        let judge = self.judged.map_or(now, |judged| judged.after(policy.judge_every));
        let retry = self.under_way.values().map(|u| u.not_before).filter(|at| *at > now).min();
        let place = self.placement.due();
        let soonest = [retry, place].into_iter().flatten().fold(judge, Timestamp::min);
        // Never at once: a clock that stands still must not make the caller spin.
        soonest.max(now.after(Duration::from_millis(1)))
    }
}
