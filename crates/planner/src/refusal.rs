//! Why a pod is not placed, with the value, the limit, and what would make it fit.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{ClaimFault, ClaimFaultReason};

use crate::fit::{Obstacle, shortage, standing_obstacle};
use crate::fleet::{Fleet, Gpu, Node, Sharing};
use crate::request::{GpuRequest, InvalidRequest, PodKind, Request};

/// Why a pod is not placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request makes no sense on any fleet.
    Invalid(InvalidRequest),
    /// It has constraints that packing does not cover exactly: kube-scheduler places it.
    Uncovered {
        /// Their paths in the pod's spec.
        constraints: Vec<Arc<str>>,
    },
    /// No node will do for one of its claims.
    Claim(ClaimFault),
    /// There is no node at all.
    EmptyFleet,
    /// Others were looked at first, and all that is looked at in one go is used up.
    Postponed {
        /// Nodes that were examined, once for each kind of pod and more for each decision.
        examined: u64,
        /// The most that are.
        examined_max: u64,
    },
    /// It fits on no node.
    NoRoom {
        /// For each obstacle, in the order in which they are looked for, on how many nodes it is
        /// the first.
        nodes: Vec<(Obstacle, u32)>,
        /// What would make it fit.
        remedy: Remedy,
    },
    /// A member of its gang fits nowhere, so none is placed.
    Gang {
        /// The gang.
        gang: Arc<str>,
        /// How many members it has.
        members: u32,
        /// How many of them found room together.
        found_room: u32,
        /// The member that did not.
        first_refused: Arc<str>,
        /// Why that one did not.
        because: Box<Refusal>,
    },
}

/// What would make a refused pod fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A node without this obstacle.
    NodeWithout(Obstacle),
    /// A GPU with another table of MIG profiles, or a request for one of these.
    MigProfile {
        /// The profile that is asked for.
        asked: Arc<str>,
        /// Those that some GPU of the fleet has, sorted.
        offered: Vec<Arc<str>>,
    },
    /// Pods that leave a node which is large enough.
    Free {
        /// What is short.
        resource: Obstacle,
        /// Its unit, after a number.
        unit: &'static str,
        /// What is asked.
        asked: u64,
        /// The most that one suitable node has free.
        free_max: u64,
    },
    /// A larger node: no suitable one has as much even when it is empty.
    LargerNode {
        /// What is short.
        resource: Obstacle,
        /// Its unit, after a number.
        unit: &'static str,
        /// What is asked.
        asked: u64,
        /// The most that one suitable node has.
        allocatable_max: u64,
    },
}

/// Why `pod` fits on no node of `fleet`, where `by_neighbors` says what the pods on the node at a
/// position are to it; to be called only when it does not.
pub fn no_room(
    fleet: &Fleet,
    pod: &PodKind,
    mut by_neighbors: impl FnMut(usize) -> Option<Obstacle>,
) -> Refusal {
    if fleet.nodes.is_empty() {
        return Refusal::EmptyFleet;
    }
    let mut nodes: Vec<(Obstacle, u32)> = Vec::new();
    for (index, node) in fleet.nodes.iter().enumerate() {
        let found = standing_obstacle(node, pod)
            .or_else(|| by_neighbors(index))
            .or_else(|| shortage(node, &pod.request));
        let Some(found) = found else { continue };
        match nodes.binary_search_by_key(&found, |&(o, _)| o) {
            Ok(at) => nodes[at].1 += 1,
            Err(at) => nodes.insert(at, (found, 1)),
        }
    }
    // The node that comes closest meets its obstacle last.
    let last = nodes.last().map_or(Obstacle::Unschedulable, |&(o, _)| o);
    let standing = |node: &&Node| standing_obstacle(node, pod).is_none();
    let suitable: Vec<&Node> = fleet.nodes.iter().map(AsRef::as_ref).filter(standing).collect();
    let remedy = match last {
        Obstacle::Sharing => other_gpus(fleet, &pod.request),
        _ => remedy(&suitable, pod, last),
    };
    Refusal::NoRoom { nodes, remedy }
}

/// What would help where no GPU is shared in the way that is asked, or a node has too few.
fn other_gpus(fleet: &Fleet, request: &Request) -> Remedy {
    match &request.gpu {
        GpuRequest::Mig { profile } => {
            let gpus = fleet.nodes.iter().flat_map(|node| &node.gpus);
            let tables = gpus.filter_map(|gpu| match &gpu.sharing {
                Sharing::Mig(table) => Some(table),
                _ => None,
            });
            let profiles = tables.flat_map(|table| table.profiles.iter());
            let offered: BTreeSet<&str> = profiles.map(|profile| profile.name.as_ref()).collect();
            let offered = offered.into_iter().map(Arc::from).collect();
            Remedy::MigProfile { asked: profile.clone(), offered }
        }
        GpuRequest::Whole { count } => {
            let whole = |gpu: &&Gpu| matches!(gpu.sharing, Sharing::Exclusive | Sharing::Fraction);
            let of_node = fleet.nodes.iter().map(|node| node.gpus.iter().filter(whole).count());
            Remedy::LargerNode {
                resource: Obstacle::Gpu,
                unit: unit(Obstacle::Gpu, request),
                asked: (*count).into(),
                allocatable_max: of_node.max().unwrap_or(0) as u64,
            }
        }
        _ => Remedy::NodeWithout(Obstacle::Sharing),
    }
}

fn remedy(suitable: &[&Node], pod: &PodKind, last: Obstacle) -> Remedy {
    let request = &pod.request;
    let most = |of: &dyn Fn(&Node) -> u64| suitable.iter().map(|node| of(node)).max().unwrap_or(0);
    let (asked, free_max, allocatable_max) = match last {
        Obstacle::Pods => (1, 0, most(&|node| node.allocatable.pods.into())),
        Obstacle::Cpu => (
            request.cpu_milli,
            most(&|node| node.free.cpu_milli),
            most(&|node| node.allocatable.cpu_milli),
        ),
        Obstacle::Memory => (
            request.memory_bytes,
            most(&|node| node.free.memory_bytes),
            most(&|node| node.allocatable.memory_bytes),
        ),
        Obstacle::Extended => {
            let short = request.extended.iter().max_by_key(|(name, count)| {
                count.saturating_sub(most(&|node| {
                    node.extended_free.get(name).copied().unwrap_or(0)
                }))
            });
            let Some((name, count)) = short else { return Remedy::NodeWithout(last) };
            let free_max = most(&|node| node.extended_free.get(name).copied().unwrap_or(0));
            // What a node has of it when it is empty is not kept, so that it is not said.
            return Remedy::Free { resource: last, unit: "", asked: *count, free_max };
        }
        Obstacle::Gpu => match request.gpu {
            GpuRequest::Whole { count } => (
                count.into(),
                most(&|node| node.gpus_free().into()),
                most(&|node| node.gpus.len() as u64),
            ),
            GpuRequest::Share { .. } => {
                let memory = suitable.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.memory_mib);
                let milli = request.gpu_milli_of(memory.max().unwrap_or(0));
                let free = |gpu: &Gpu| u64::from(gpu.free_milli());
                let most_free = most(&|node| node.gpus.iter().map(free).max().unwrap_or(0));
                (milli.into(), most_free, 1000)
            }
            GpuRequest::Replicas { count } => (
                count.into(),
                most(&|node| node.gpus.iter().map(|gpu| u64::from(gpu.replicas_free)).sum()),
                u64::from(count),
            ),
            GpuRequest::Clients { processes, .. } => (
                processes.into(),
                most(&|node| {
                    node.gpus.iter().map(|gpu| u64::from(gpu.replicas_free)).max().unwrap_or(0)
                }),
                u64::from(processes),
            ),
            GpuRequest::None | GpuRequest::Mig { .. } | GpuRequest::MigAtLeast { .. } => (1, 0, 1),
        },
        standing => return Remedy::NodeWithout(standing),
    };
    let unit = unit(last, request);
    if asked > allocatable_max {
        Remedy::LargerNode { resource: last, unit, asked, allocatable_max }
    } else {
        Remedy::Free { resource: last, unit, asked, free_max }
    }
}

const fn unit(resource: Obstacle, request: &Request) -> &'static str {
    match (resource, &request.gpu) {
        (Obstacle::Cpu, _) => " thousandths of a core",
        (Obstacle::Memory, _) => " bytes of memory",
        (Obstacle::Pods, _) => " pods",
        (Obstacle::Gpu, GpuRequest::Whole { .. }) => " GPUs",
        (Obstacle::Gpu, GpuRequest::Share { .. }) => " thousandths of a GPU",
        (Obstacle::Gpu, GpuRequest::Replicas { .. }) => " replicas",
        (Obstacle::Gpu, GpuRequest::Clients { .. }) => " client processes",
        (Obstacle::Gpu, _) => " MIG instances",
        _ => "",
    }
}

impl Refusal {
    /// What would make the pod fit, where that is known.
    pub fn remedy(&self) -> Option<&Remedy> {
        match self {
            Self::NoRoom { remedy, .. } => Some(remedy),
            Self::Gang { because, .. } => because.remedy(),
            _ => None,
        }
    }
}

impl Obstacle {
    /// The obstacle in words, after "N nodes: ".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unschedulable => "not ready or cordoned",
            Self::NodeAffinity => "node selector or affinity does not match",
            Self::Volume => "a volume cannot be attached",
            Self::Neighbors => "pod affinity, anti-affinity or topology spread",
            Self::HostPort => "host port taken",
            Self::Taint => "taint not tolerated",
            Self::Model => "other GPU model",
            Self::Sharing => "GPUs not shared in the way that is asked, or too few",
            Self::Isolation => "isolation too weak",
            Self::Pods => "pod limit reached",
            Self::Cpu => "too little cpu",
            Self::Memory => "too little memory",
            Self::Extended => "too little of an extended resource",
            Self::Gpu => "too little GPU",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Uncovered { constraints } => {
                write!(f, "left to kube-scheduler, since packing does not cover ")?;
                for (index, constraint) in constraints.iter().enumerate() {
                    write!(f, "{}`{constraint}`", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Postponed { examined, examined_max } => write!(
                f,
                "not looked at: pods of higher priority or size were first, for which {examined} \
                 of at most {examined_max} nodes were examined"
            ),
            Self::Claim(ClaimFault { claim, reason }) => match reason {
                ClaimFaultReason::Lost => write!(
                    f,
                    "the volume of claim `{claim}` is gone; it would fit with a new claim"
                ),
                ClaimFaultReason::Deleting => {
                    write!(f, "claim `{claim}` is being deleted; it would fit once it is made anew")
                }
                ClaimFaultReason::Unbound => write!(
                    f,
                    "claim `{claim}` has no volume, and its class makes none for a pod that \
                     waits; it would fit once the claim is bound"
                ),
                ClaimFaultReason::InUse => write!(
                    f,
                    "claim `{claim}` is for one pod (ReadWriteOncePod), and another one has it; \
                     it would fit once that one is gone"
                ),
            },
            Self::EmptyFleet => write!(f, "there is no node; it would fit on one that is added"),
            Self::NoRoom { nodes, remedy } => {
                let total: u32 = nodes.iter().map(|&(_, count)| count).sum();
                write!(f, "0 of {total} nodes fit:")?;
                for (index, (obstacle, count)) in nodes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma} {count} {}", obstacle.as_str())?;
                }
                write!(f, "; {remedy}")
            }
            Self::Gang { gang, members, found_room, first_refused, because } => write!(
                f,
                "gang `{gang}` is placed whole or not at all: {found_room} of {members} members \
                 found room, `{first_refused}` did not: {because}"
            ),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeWithout(obstacle) => {
                write!(f, "it would fit on a node without: {}", obstacle.as_str())
            }
            Self::MigProfile { asked, offered } if offered.is_empty() => {
                write!(f, "it would fit on a GPU with the MIG profile `{asked}`; here none has MIG")
            }
            Self::MigProfile { asked, offered } => write!(
                f,
                "it would fit on a GPU with the MIG profile `{asked}`, or with one of these: {}",
                offered.join(", ")
            ),
            Self::Free { unit, asked, free_max, .. } => write!(
                f,
                "it would fit with {asked}{unit} free on one node, where now at most {free_max} are"
            ),
            Self::LargerNode { unit, asked, allocatable_max, .. } => write!(
                f,
                "it would fit on a node of {asked}{unit}, where no suitable one has more than \
                 {allocatable_max}"
            ),
        }
    }
}
