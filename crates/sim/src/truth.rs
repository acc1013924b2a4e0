//! What is really so in a world, for comparison with what was found.
//!
//! Nothing here is derived from samples: means are integrals of the curves. Where a fair observer
//! could come to either answer (a mean near the threshold, a change of behaviour within the
//! window, a counter that sees one second in thirty) the truth is [`TrueUse::Borderline`] and
//! settles nothing.

use std::time::Duration;

use gpu_autoscaler_model::{Device, FindingKind, GpuUuid, NodeName, ObjectKey, Timestamp, Uid};
use serde::Serialize;

use crate::curve::Load;
use crate::node::SimNode;
use crate::pod::SimPod;
use crate::reading::nth_device;
use crate::spec::{Counter, Layout};

/// The published rule by which waste is judged: a mean below the threshold for a while, over a
/// window, in pods that are not young.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Share of compute below which a GPU is underutilized.
    pub threshold: f64,
    /// The window over which the mean is taken.
    pub window: Duration,
    /// How long it must have been below.
    pub sustained: Duration,
    /// How old a pod must be.
    pub young: Duration,
    /// The waste score above which it counts.
    pub score_above: f64,
    /// How far behind the truth an observer may be: a scrape, a lost one, and a turn of the loop.
    pub lag: Duration,
}

impl Rule {
    /// Mean below 50 % for more than 5 minutes over a 10-minute window, and a waste score above
    /// 50; pods younger than 5 minutes are left alone.
    ///
    /// Source: the published architecture, "Waste detection".
    pub const PUBLISHED: Self = Self {
        threshold: 0.5,
        window: Duration::from_secs(600),
        sustained: Duration::from_secs(300),
        young: Duration::from_secs(300),
        score_above: 50.0,
        lag: Duration::from_secs(90),
    };
}

/// Everything that is so at one instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Truth {
    /// When.
    pub at: Timestamp,
    /// By which rule pods are called wasteful.
    pub rule: Rule,
    /// Active GPU pods, by namespace and name.
    pub pods: Vec<PodTruth>,
    /// Nodes whose GPUs nobody measures, and how many GPUs each has.
    pub unmeasured: Vec<(NodeName, u32)>,
    /// GPUs whose hardware is not well and is measured, and the kind of finding that each is.
    pub ailing: Vec<(NodeName, GpuUuid, FindingKind)>,
}

/// What is so of one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTruth {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub pod: ObjectKey,
    /// Its node, once bound.
    pub node: Option<NodeName>,
    /// Devices or instances that it holds; replicas of one GPU once each.
    pub devices: Vec<Device>,
    /// Whether it holds replicas of shared devices.
    pub shared: bool,
    /// What it does.
    pub load: Load,
    /// What an observer must say of it.
    #[serde(rename = "use")]
    pub use_: TrueUse,
    /// Exact mean share of compute over window and devices, of the part that it holds of a shared
    /// one; `None` before it is bound.
    pub activity_mean: Option<f64>,
    /// The same of each slot that it holds, over all that any window of the last minutes shows.
    pub device_means: Vec<f64>,
    /// Share of its devices' framebuffer in use now; `None` before it is bound.
    pub fb: Option<f64>,
}

/// What an observer must say of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TrueUse {
    /// It holds nothing yet.
    Pending,
    /// Its use cannot be known: it may not be accused and must be listed as unknown.
    Unknown,
    /// It is too young to be judged.
    Young,
    /// Nothing was computed, and little memory is held: it must be found.
    Idle,
    /// Nothing was computed, and half of the memory or more is held: it must be found.
    MemoryHeld,
    /// Its containers cannot run, and it holds its devices: it must be found.
    Stuck,
    /// Some of its devices are used and some never were: it must be found.
    OverRequested,
    /// Clearly less than the threshold was computed: it must be found.
    Underutilized,
    /// Clearly more was computed: it may not be accused.
    Busy,
    /// Either answer is right.
    Borderline,
}

/// Judges one pod at `at`. `observed_since` is when its exporter last began to deliver.
pub(crate) fn judge(
    pod: &SimPod,
    node: Option<&SimNode>,
    observed_since: Option<Timestamp>,
    rule: &Rule,
    at: Timestamp,
) -> PodTruth {
    let bound = pod.bound.as_ref().zip(node);
    let devices = bound.map_or_else(Vec::new, |(binding, node)| {
        let mut devices: Vec<Device> =
            binding.slots.iter().map(|&slot| node.slots[slot].device.clone()).collect();
        devices.sort();
        devices.dedup();
        devices
    });
    let mean = |to: Timestamp| bound.map(|(_, node)| window_mean(pod, node, rule, to));
    let fb = bound.map(|(binding, node)| {
        let slots = binding.slots.iter().map(|&slot| &node.slots[slot]);
        let total: u64 = slots.clone().map(|slot| slot.fb_mib).sum();
        let used: u64 = slots.map(|slot| pod.framebuffer_mib(slot.fb_mib, at)).sum();
        used as f64 / total.max(1) as f64
    });
    PodTruth {
        uid: pod.uid.clone(),
        pod: pod.key.clone(),
        node: node.map(|node| node.object.name.clone()),
        devices,
        shared: node.is_some_and(|node| matches!(node.spec.layout, Layout::TimeSliced { .. })),
        load: pod.job.curve.load,
        use_: bound.map_or(TrueUse::Pending, |(binding, node)| {
            let since = observed_since.map(|since| since.max(binding.at));
            let seen = Seen { bound: binding.at, since, fb: fb.unwrap_or(1.0) };
            true_use(pod, node, &seen, rule, at)
        }),
        activity_mean: mean(at),
        device_means: bound.map_or_else(Vec::new, |(binding, node)| {
            let reach = rule.window + rule.sustained + rule.lag;
            device_means(pod, node, at.before(reach).max(binding.at), at)
        }),
        fb,
    }
}

/// Exact mean over the rule's window before `to`, or since the pod was bound.
fn window_mean(pod: &SimPod, node: &SimNode, rule: &Rule, to: Timestamp) -> f64 {
    let Some(binding) = &pod.bound else { return 0.0 };
    let from = to.before(rule.window).max(binding.at);
    if from >= to {
        return 0.0;
    }
    let sum: f64 = binding
        .slots
        .iter()
        .map(|&slot| pod.mean_activity(nth_device(pod, &node.slots[slot], node), from, to))
        .sum();
    sum / binding.slots.len().max(1) as f64
}

/// Exact mean of each of the pod's devices between two instants.
fn device_means(pod: &SimPod, node: &SimNode, from: Timestamp, to: Timestamp) -> Vec<f64> {
    let slots = pod.bound.iter().flat_map(|binding| &binding.slots);
    slots
        .map(|&slot| pod.mean_activity(nth_device(pod, &node.slots[slot], node), from, to))
        .collect()
}

/// What an observer had of a pod.
struct Seen {
    bound: Timestamp,
    /// Since when it could be observed.
    since: Option<Timestamp>,
    /// Share of framebuffer in use.
    fb: f64,
}

fn true_use(pod: &SimPod, node: &SimNode, seen: &Seen, rule: &Rule, at: Timestamp) -> TrueUse {
    if pod.deleting {
        return TrueUse::Borderline;
    }
    if pod.job.snag.is_some() {
        let age = at.since(seen.bound);
        return match age {
            _ if age + rule.lag / 2 < rule.young => TrueUse::Young,
            _ if age >= rule.young + rule.lag => TrueUse::Stuck,
            _ => TrueUse::Borderline,
        };
    }
    let Some(exporter) = node.spec.exporter else { return TrueUse::Unknown };
    let shared = matches!(node.spec.layout, Layout::TimeSliced { .. });
    if shared && !node.tells_parts_apart() {
        return TrueUse::Unknown;
    }
    let mig = matches!(node.spec.layout, Layout::Mig(_));
    if mig && exporter.counter == Counter::GpuUtil {
        return TrueUse::Unknown;
    }
    let Some(observed_since) = seen.since else {
        // Nothing has come for so long that the whole window is empty.
        let silent = node.dead_since.is_some_and(|dead| at.since(dead) > rule.window + rule.lag);
        return if silent { TrueUse::Unknown } else { TrueUse::Borderline };
    };
    let age = at.since(seen.bound);
    if age + rule.lag / 2 < rule.young {
        return TrueUse::Young;
    }
    // A counter that sees one second of each period is right only on average.
    let tolerance = match exporter.counter {
        _ if shared => 0.25,
        Counter::GpuUtil => 0.25,
        Counter::SmActive | Counter::GrEngineActive => 0.08,
    };
    let means = |back: Duration| {
        let steps = back.as_secs() / 30 + 1;
        (0..steps).map(move |step| {
            window_mean(pod, node, rule, at.before(Duration::from_secs(30 * step)))
        })
    };
    // The whole of what any windows of the last minutes could show.
    let reach = rule.window + rule.sustained + rule.lag;
    let settled = rule.window + rule.lag;
    let is_settled = age >= settled && at.since(observed_since) >= settled;
    let devices = device_means(pod, node, at.before(reach.min(age)), at);
    if !shared && devices.contains(&0.0) && devices.iter().any(|mean| *mean > 0.0) {
        // A device that is hardly used may look unused through a counter that looks rarely.
        let certain = is_settled && devices.iter().all(|mean| *mean == 0.0 || *mean > 0.5);
        return if certain { TrueUse::OverRequested } else { TrueUse::Borderline };
    }
    if means(rule.lag).all(|mean| mean > rule.threshold + tolerance) {
        return TrueUse::Busy;
    }
    if !is_settled {
        return TrueUse::Borderline;
    }
    if devices.iter().all(|mean| *mean == 0.0) {
        return if seen.fb < 0.5 { TrueUse::Idle } else { TrueUse::MemoryHeld };
    }
    let clearly_low = |mean: f64| {
        let (activity, fb) = ((mean + tolerance).min(1.0), (seen.fb + 0.02).min(1.0));
        let score = 60.0 * (1.0 - activity) + 40.0 * (1.0 - fb);
        activity < rule.threshold && score > rule.score_above
    };
    // Of a pod that is alone on a shared GPU its own lines may be copies of the device's.
    if !shared && means(rule.sustained + rule.lag).all(clearly_low) {
        TrueUse::Underutilized
    } else {
        TrueUse::Borderline
    }
}
