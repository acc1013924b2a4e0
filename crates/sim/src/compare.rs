//! What was found, held against what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gpu_autoscaler_model::{
    Finding, FindingKind, GpuUuid, HardwareFinding, NodeName, ObjectKey, Uid, View,
};
use serde::Serialize;

use crate::curve::Load;
use crate::truth::{PodTruth, TrueUse, Truth};

/// How well a view agrees with the truth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Pods that waste GPUs beyond doubt.
    pub wasteful: u32,
    /// Those of them that were found.
    pub found: u32,
    /// Pods that may not be accused: busy, young or not knowable.
    pub innocent: u32,
    /// Those of them that were accused.
    pub accused: u32,
    /// Pods whose use cannot be known.
    pub unknowable: u32,
    /// Those of them that are listed as unknown.
    pub listed: u32,
    /// Pods of which either answer is right: near the threshold, or not watched for long enough.
    pub borderline: u32,
    /// Everything that is wrong.
    pub mistakes: Vec<Mistake>,
}

/// One disagreement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "mistake")]
pub enum Mistake {
    /// Waste that was not found, or found as another kind.
    Missed {
        /// What is so.
        truth: PodTruth,
    },
    /// A finding about a pod that may not be accused.
    Accused {
        /// What is so.
        truth: PodTruth,
    },
    /// A pod whose use cannot be known and that is not listed.
    NotListed {
        /// What is so.
        truth: PodTruth,
    },
    /// A finding about a pod that is gone.
    Ghost {
        /// The pod.
        pod: ObjectKey,
    },
    /// A device that is well and was called unwell, or the other way round.
    Hardware {
        /// Its node.
        node: NodeName,
        /// The device.
        gpu: GpuUuid,
        /// The kind of finding that is too much or missing.
        kind: FindingKind,
    },
    /// A node that nobody measures, of whose GPUs not all are listed as unknown.
    NodeNotListed {
        /// The node.
        node: NodeName,
        /// How many are listed.
        listed: u32,
        /// How many there are.
        gpus: u32,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let so = |f: &mut fmt::Formatter<'_>, what: &str, truth: &PodTruth| {
            let node = truth.node.as_ref().map_or("no node", |node| node.as_str());
            write!(f, "{what}: {} on {node} is {:?} ", truth.pod, truth.use_)?;
            write!(f, "({:?}, mean {:?})", truth.load, truth.activity_mean)
        };
        match self {
            Self::Missed { truth } => so(f, "missed", truth),
            Self::Accused { truth } => so(f, "accused", truth),
            Self::NotListed { truth } => so(f, "not listed as unknown", truth),
            Self::Ghost { pod } => write!(f, "accused: {pod} is gone"),
            Self::Hardware { node, gpu, kind } => {
                write!(f, "hardware: {kind} of {gpu} on {node} is missing or not so")
            }
            Self::NodeNotListed { node, listed, gpus } => {
                write!(f, "node {node}: {listed} of {gpus} GPUs listed as unknown")
            }
        }
    }
}

/// Compares findings and unknowns with the truth of the same instant.
pub fn compare(truth: &Truth, view: &View) -> Comparison {
    let findings: BTreeMap<&Uid, &Finding> =
        view.findings.iter().map(|finding| (&finding.pod_uid, finding)).collect();
    let unknown: BTreeSet<&ObjectKey> = view.unknown.iter().flat_map(|one| &one.pod).collect();
    let mut result = Comparison::default();
    for pod in &truth.pods {
        let finding = findings.get(&pod.uid).copied();
        match pod.use_ {
            TrueUse::Borderline => result.borderline += 1,
            TrueUse::Idle
            | TrueUse::MemoryHeld
            | TrueUse::OverRequested
            | TrueUse::Stuck
            | TrueUse::Underutilized => {
                result.wasteful += 1;
                if finding.is_some_and(|finding| is_right(pod, finding.kind)) {
                    result.found += 1;
                } else {
                    result.mistakes.push(Mistake::Missed { truth: pod.clone() });
                }
            }
            TrueUse::Pending | TrueUse::Young | TrueUse::Busy | TrueUse::Unknown => {
                result.innocent += 1;
                if finding.is_some() {
                    result.accused += 1;
                    result.mistakes.push(Mistake::Accused { truth: pod.clone() });
                }
            }
        }
        if pod.use_ == TrueUse::Unknown {
            result.unknowable += 1;
            if unknown.contains(&pod.pod) {
                result.listed += 1;
            } else {
                result.mistakes.push(Mistake::NotListed { truth: pod.clone() });
            }
        }
    }
    for (node, gpus) in &truth.unmeasured {
        let listed = view.unknown.iter().filter(|one| one.node == *node);
        // What a stuck pod holds is known to serve nothing.
        let stuck = view.pods.iter().filter(|pod| {
            pod.node.as_ref() == Some(node)
                && findings.get(&pod.uid).is_some_and(|found| found.kind == FindingKind::Stuck)
        });
        let held = stuck.map(|pod| pod.gpus);
        let listed = listed.map(|one| one.count).chain(held).fold(0, u32::saturating_add);
        if listed != *gpus {
            let (node, gpus) = (node.clone(), *gpus);
            result.mistakes.push(Mistake::NodeNotListed { node, listed, gpus });
        }
    }
    let ailing: BTreeSet<_> = truth.ailing.iter().cloned().collect();
    let unwell =
        |one: &HardwareFinding| (one.node.clone(), one.device.uuid.clone(), one.fault.kind());
    let unwell: BTreeSet<_> = view.hardware.iter().map(unwell).collect();
    result.mistakes.extend(ailing.symmetric_difference(&unwell).map(|(node, gpu, kind)| {
        Mistake::Hardware { node: node.clone(), gpu: gpu.clone(), kind: *kind }
    }));
    let here: BTreeSet<&Uid> = truth.pods.iter().map(|pod| &pod.uid).collect();
    let gone = view.findings.iter().filter(|finding| !here.contains(&finding.pod_uid));
    result.mistakes.extend(gone.map(|finding| Mistake::Ghost { pod: finding.pod.clone() }));
    result
}

fn is_right(pod: &PodTruth, kind: FindingKind) -> bool {
    match (pod.use_, kind) {
        (TrueUse::Idle, FindingKind::Idle)
        | (TrueUse::MemoryHeld, FindingKind::MemoryHeld)
        | (TrueUse::OverRequested, FindingKind::OverRequested)
        | (TrueUse::Stuck, FindingKind::Stuck)
        | (TrueUse::Underutilized, FindingKind::Underutilized) => true,
        // Memory at the threshold; or not measured, as of a pod alone on a shared GPU.
        (TrueUse::Idle, FindingKind::MemoryHeld) => pod.fb.is_some_and(|fb| fb > 0.48),
        (TrueUse::MemoryHeld, FindingKind::Idle) => {
            pod.shared || pod.fb.is_some_and(|fb| fb < 0.52)
        }
        // A counter that looks at one second in thirty can miss every burst of ten minutes.
        (TrueUse::Underutilized, FindingKind::Idle | FindingKind::MemoryHeld) => {
            pod.load == Load::FivePercent
        }
        _ => false,
    }
}
