//! A second opinion on any plan, by code that shares nothing with the code that made it.
//!
//! Packing subtracts from what is free; the check adds up what is granted and compares the sums
//! with what each node and GPU can give. Neither calls the other's functions.

mod neighbors;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{Constraints, MigOccupancy, NodeSelectorTerm, TaintEffect, Toleration};

use crate::fleet::{Assignment, Devices, Fleet, GpuPicker, Isolation, Node, Sharing};
use crate::request::{GpuRequest, Links, Pod};

/// A fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The node, or the gang where it has no one node.
    pub object: Arc<str>,
    /// The pod, where one is at fault.
    pub pod: Option<Arc<str>>,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The node is not in the fleet.
    NoSuchNode,
    /// The node takes no pods.
    Unschedulable,
    /// The node selector, the required node affinity or that of a volume does not match.
    NodeAffinity,
    /// A neighbor that the pod's anti-affinity or the neighbor's own forbids.
    AntiAffinity {
        /// The neighbor.
        neighbor: Arc<str>,
    },
    /// No neighbor that the pod's affinity demands.
    Affinity,
    /// A port of the host that another pod has.
    HostPort {
        /// Which.
        port: u16,
    },
    /// A taint is not tolerated.
    Taint,
    /// The GPU model is not among those that will do.
    Model,
    /// The devices are not those that were asked for.
    Devices,
    /// NVLink does not join all of its GPUs.
    Links,
    /// The MPS server of a GPU would have to serve two users at a time.
    MixedUsers,
    /// Its neighbors on the GPU are kept apart less than it asks.
    Isolation,
    /// More is granted than is free.
    Overcommitted {
        /// Of what.
        resource: &'static str,
        /// How much is granted by this plan.
        granted: u64,
        /// How much was free before it.
        free: u64,
    },
    /// A MIG instance where none may lie, or two that overlap.
    IllegalMigLayout,
    /// A gang of which some members are placed and some are not.
    GangSplit {
        /// How many are placed.
        placed: u32,
        /// How many there are.
        members: u32,
    },
    /// No node will do for one of its claims.
    Claim,
    /// A pod is placed that has a constraint which packing does not cover.
    Uncovered,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "pod `{pod}` on ")?;
        }
        write!(f, "`{}`: ", self.object)?;
        match &self.kind {
            FaultKind::NoSuchNode => write!(f, "no such node"),
            FaultKind::Unschedulable => write!(f, "the node is not ready or cordoned"),
            FaultKind::NodeAffinity => write!(f, "the node selector or affinity does not match"),
            FaultKind::AntiAffinity { neighbor } => {
                write!(f, "anti-affinity forbids its neighbor `{neighbor}`")
            }
            FaultKind::Affinity => write!(f, "affinity demands a neighbor that is not there"),
            FaultKind::HostPort { port } => write!(f, "port {port} of the host is taken"),
            FaultKind::Taint => write!(f, "a taint is not tolerated"),
            FaultKind::Model => write!(f, "the GPU model will not do"),
            FaultKind::Devices => write!(f, "the devices are not those that were asked for"),
            FaultKind::Links => write!(f, "NVLink does not join all of the GPUs"),
            FaultKind::MixedUsers => write!(f, "an MPS server serves one user at a time"),
            FaultKind::Isolation => write!(f, "isolation is weaker than asked"),
            FaultKind::Overcommitted { resource, granted, free } => {
                write!(f, "{granted} of {resource} granted, but only {free} free")
            }
            FaultKind::IllegalMigLayout => write!(f, "illegal MIG layout"),
            FaultKind::GangSplit { placed, members } => {
                write!(f, "{placed} of {members} members of the gang are placed")
            }
            FaultKind::Claim => write!(f, "no node will do for one of its claims"),
            FaultKind::Uncovered => write!(f, "a constraint is not covered by packing"),
        }
    }
}

/// What a plan grants of one node.
#[derive(Default)]
struct Granted {
    cpu_milli: u64,
    memory_bytes: u64,
    pods: u64,
    whole: BTreeMap<usize, u64>,
    compute: BTreeMap<usize, u64>,
    memory_mib: BTreeMap<usize, u64>,
    replicas: BTreeMap<usize, u64>,
    users: BTreeMap<usize, BTreeSet<u32>>,
    mig: BTreeMap<usize, Vec<(u8, u8)>>,
    extended: BTreeMap<Arc<str>, u64>,
}

/// Every fault of the plan that gives `pods[i]` the place `placed[i]` on what `before` has free;
/// empty when it has none.
///
/// # Panics
/// When the lists differ in length.
pub fn check(pods: &[Pod], before: &Fleet, placed: &[Option<Assignment>]) -> Vec<Fault> {
    assert_eq!(pods.len(), placed.len(), "a plan has one place for each pod");
    let mut faults = Vec::new();
    let mut granted: BTreeMap<usize, Granted> = BTreeMap::new();
    for (pod, place) in pods.iter().zip(placed) {
        let Some(place) = place else { continue };
        let index = place.node.0 as usize;
        let Some(node) = before.nodes.get(index) else {
            let object = format!("node {index}").into();
            faults.push(Fault { object, pod: Some(pod.name.clone()), kind: FaultKind::NoSuchNode });
            continue;
        };
        if let Some(kind) = standing_fault(node, pod, place.devices) {
            faults.push(Fault { object: node.name.clone(), pod: Some(pod.name.clone()), kind });
        }
        add(granted.entry(index).or_default(), pod, place.devices);
    }
    for (index, granted) in granted {
        let node = &before.nodes[index];
        for kind in overcommitted(node, &granted) {
            faults.push(Fault { object: node.name.clone(), pod: None, kind });
        }
    }
    faults.extend(split_gangs(pods, placed));
    faults.extend(neighbors::faults(pods, before, placed));
    faults
}

fn term_holds(node: &Node, term: &NodeSelectorTerm) -> bool {
    let mut any = false;
    for requirement in &term.labels {
        any = true;
        if !requirement.operator.holds(node.labels.get(&requirement.key)) {
            return false;
        }
    }
    for requirement in &term.name {
        any = true;
        if !requirement.operator.holds(Some(&node.name)) {
            return false;
        }
    }
    any
}

fn split_gangs(pods: &[Pod], placed: &[Option<Assignment>]) -> Vec<Fault> {
    let mut gangs: BTreeMap<&Arc<str>, (u32, u32)> = BTreeMap::new();
    for (pod, place) in pods.iter().zip(placed) {
        if let Some(gang) = &pod.gang {
            let (done, members) = gangs.entry(gang).or_default();
            *done += u32::from(place.is_some());
            *members += 1;
        }
    }
    let split = gangs.into_iter().filter(|(_, (done, members))| *done > 0 && done < members);
    split
        .map(|(gang, (placed, members))| Fault {
            object: gang.clone(),
            pod: None,
            kind: FaultKind::GangSplit { placed, members },
        })
        .collect()
}

/// What is wrong whatever else the plan grants.
fn standing_fault(node: &Node, pod: &Pod, devices: Devices) -> Option<FaultKind> {
    let kind = &pod.kind;
    let Constraints { uncovered, claims, device_claims, .. } = &*kind.constraints;
    if !(uncovered.is_empty() && claims.is_empty() && device_claims.is_empty()) {
        return Some(FaultKind::Uncovered);
    }
    if kind.constraints.claim_fault.is_some() {
        return Some(FaultKind::Claim);
    }
    if !node.schedulable {
        return Some(FaultKind::Unschedulable);
    }
    for (key, value) in &kind.constraints.node_selector {
        if node.labels.get(key) != Some(&**value) {
            return Some(FaultKind::NodeAffinity);
        }
    }
    let demanded = kind.constraints.node_terms.iter().chain(&kind.constraints.volume_terms);
    for terms in demanded {
        if !terms.iter().any(|term| term_holds(node, term)) {
            return Some(FaultKind::NodeAffinity);
        }
    }
    for taint in &node.taints {
        let matches = |t: &Toleration| {
            let key = t.key.is_empty() || t.key == taint.key;
            let value = t.value.is_none() || t.value.as_ref() == Some(&taint.value);
            let effect = t.effect.is_none() || t.effect == Some(taint.effect);
            key && value && effect
        };
        if taint.effect != TaintEffect::PreferNoSchedule
            && !kind.constraints.tolerations.iter().any(matches)
        {
            return Some(FaultKind::Taint);
        }
    }
    let request = &kind.request;
    if request.gpu != GpuRequest::None
        && !request.models.is_empty()
        && !request.models.contains(&node.gpu_model)
    {
        return Some(FaultKind::Model);
    }
    if !devices_match(node, &request.gpu, devices) {
        return Some(FaultKind::Devices);
    }
    if request.links == Links::NvLink && !joined(node, devices) {
        return Some(FaultKind::Links);
    }
    let weakest = match devices {
        Devices::None | Devices::Whole { .. } => Isolation::Hardware,
        Devices::Share { gpu, .. }
        | Devices::Replicas { gpu, .. }
        | Devices::Clients { gpu, .. }
        | Devices::Mig { gpu, .. } => match node.gpus[usize::from(gpu)].sharing {
            Sharing::Exclusive | Sharing::Mig(_) => Isolation::Hardware,
            Sharing::Mps { .. } => Isolation::Driver,
            Sharing::Fraction => Isolation::Cooperative,
            Sharing::TimeSlicing { .. } => Isolation::None,
        },
    };
    (weakest < request.isolation).then_some(FaultKind::Isolation)
}

/// Whether NVLink joins all of `devices`, and where the kubelet picks, all it may pick.
fn joined(node: &Node, devices: Devices) -> bool {
    let Devices::Whole { gpus } = devices else { return true };
    let picked = |position: usize| match node.picker {
        GpuPicker::Plan => gpus >> position & 1 == 1,
        GpuPicker::Kubelet => true,
    };
    let cliques: Vec<Option<u8>> = (0..node.gpus.len())
        .filter(|&position| picked(position))
        .map(|position| node.gpus[position].clique)
        .collect();
    cliques.windows(2).all(|pair| pair[0] == pair[1]) && !cliques.contains(&None)
}

/// Whether `devices` are of the kind and size that `request` asks for.
fn devices_match(node: &Node, request: &GpuRequest, devices: Devices) -> bool {
    let sharing = |gpu: u8| node.gpus.get(usize::from(gpu)).map(|gpu| &gpu.sharing);
    match (request, devices) {
        (GpuRequest::None, Devices::None) => true,
        (GpuRequest::Whole { count }, Devices::Whole { gpus }) => {
            let all = (0..32_u8).filter(|bit| gpus >> bit & 1 == 1);
            gpus.count_ones() == u32::from(*count)
                && all
                    .map(sharing)
                    .all(|s| matches!(s, Some(Sharing::Exclusive | Sharing::Fraction)))
        }
        (
            GpuRequest::Share { compute_milli, memory_mib },
            Devices::Share { gpu, compute_milli: compute, memory_mib: memory },
        ) => {
            compute >= *compute_milli
                && memory >= *memory_mib
                && sharing(gpu) == Some(&Sharing::Fraction)
                && node.picker == GpuPicker::Plan
        }
        (GpuRequest::Replicas { count }, Devices::Replicas { gpu, count: granted }) => {
            granted == *count
                && matches!(sharing(gpu), Some(Sharing::TimeSlicing { .. } | Sharing::Mps { .. }))
        }
        (
            GpuRequest::Clients { processes, user },
            Devices::Clients { gpu, processes: granted, user: of },
        ) => {
            granted == *processes
                && of == *user
                && node.picker == GpuPicker::Plan
                && matches!(sharing(gpu), Some(Sharing::Mps { .. }))
        }
        (
            GpuRequest::Mig { .. } | GpuRequest::MigAtLeast { .. },
            Devices::Mig { gpu, profile, .. },
        ) => {
            let Some(Sharing::Mig(geometry)) = sharing(gpu) else { return false };
            let Some(row) = geometry.profiles.get(usize::from(profile)) else { return false };
            match request {
                GpuRequest::Mig { profile } => row.name.as_ref() == profile.as_ref(),
                GpuRequest::MigAtLeast { compute_slices, memory_mib } => {
                    row.compute_slices >= *compute_slices
                        && (*memory_mib == 0 || row.memory_mib.unwrap_or(0) >= *memory_mib)
                }
                _ => false,
            }
        }
        _ => false,
    }
}

fn add(granted: &mut Granted, pod: &Pod, devices: Devices) {
    granted.cpu_milli = granted.cpu_milli.saturating_add(pod.kind.request.cpu_milli);
    granted.memory_bytes = granted.memory_bytes.saturating_add(pod.kind.request.memory_bytes);
    granted.pods += 1;
    for (name, count) in &pod.kind.request.extended {
        let sum = granted.extended.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    match devices {
        Devices::None => {}
        Devices::Whole { gpus } => {
            for bit in (0..32).filter(|bit| gpus >> bit & 1 == 1) {
                *granted.whole.entry(bit).or_default() += 1;
            }
        }
        Devices::Share { gpu, compute_milli, memory_mib } => {
            *granted.compute.entry(gpu.into()).or_default() += u64::from(compute_milli);
            *granted.memory_mib.entry(gpu.into()).or_default() += u64::from(memory_mib);
        }
        Devices::Replicas { gpu, count } => {
            *granted.replicas.entry(gpu.into()).or_default() += u64::from(count);
        }
        Devices::Clients { gpu, processes, user } => {
            *granted.replicas.entry(gpu.into()).or_default() += u64::from(processes);
            granted.users.entry(gpu.into()).or_default().insert(user);
        }
        Devices::Mig { gpu, profile, start } => {
            granted.mig.entry(gpu.into()).or_default().push((profile, start));
        }
    }
}

/// The sums that exceed what was free.
fn overcommitted(node: &Node, granted: &Granted) -> Vec<FaultKind> {
    let mut faults = Vec::new();
    let mut at_most = |resource, granted: u64, free: u64| {
        if granted > free {
            faults.push(FaultKind::Overcommitted { resource, granted, free });
        }
    };
    at_most("cpu", granted.cpu_milli, node.free.cpu_milli);
    at_most("memory", granted.memory_bytes, node.free.memory_bytes);
    at_most("pods", granted.pods, node.free.pods.into());
    for (name, &count) in &granted.extended {
        let free = node.extended_free.iter().find(|(key, _)| *key == name).map_or(0, |(_, f)| *f);
        at_most("an extended resource", count, free);
    }
    for (index, gpu) in node.gpus.iter().enumerate() {
        let of = |map: &BTreeMap<usize, u64>| map.get(&index).copied().unwrap_or(0);
        let whole = of(&granted.whole);
        let untouched = gpu.compute_free_milli == 1000
            && gpu.memory_free_mib == gpu.memory_mib
            && gpu.mig == MigOccupancy::default();
        let shared = of(&granted.compute) > 0
            || of(&granted.memory_mib) > 0
            || of(&granted.replicas) > 0
            || granted.mig.contains_key(&index);
        at_most("a whole GPU", whole, u64::from(untouched && !(whole > 0 && shared)));
        at_most("GPU compute", of(&granted.compute), gpu.compute_free_milli.into());
        at_most("GPU memory", of(&granted.memory_mib), gpu.memory_free_mib.into());
        at_most("GPU replicas", of(&granted.replicas), gpu.replicas_free.into());
    }
    for (&index, users) in &granted.users {
        let served = node.gpus.get(index).and_then(|gpu| gpu.mps_user);
        if users.iter().chain(&served).collect::<BTreeSet<_>>().len() > 1 {
            faults.push(FaultKind::MixedUsers);
        }
    }
    for (&index, instances) in &granted.mig {
        if !legal_mig_layout(node, index, instances) {
            faults.push(FaultKind::IllegalMigLayout);
        }
    }
    faults
}

/// Whether the instances lie where their profile may and no slice is taken twice, counted slice
/// by slice.
fn legal_mig_layout(node: &Node, gpu: usize, instances: &[(u8, u8)]) -> bool {
    let Some(gpu) = node.gpus.get(gpu) else { return false };
    let Sharing::Mig(geometry) = &gpu.sharing else { return false };
    let mut owners = [0_u32; 8];
    for (slice, count) in owners.iter_mut().enumerate() {
        *count += u32::from(gpu.mig.slices >> slice & 1);
    }
    let mut media = u32::from(gpu.mig.media_engines);
    for &(profile, start) in instances {
        let Some(row) = geometry.profiles.get(usize::from(profile)) else { return false };
        if !row.starts.contains(&start) {
            return false;
        }
        media += u32::from(row.takes_media_engines);
        for slice in start..start + row.memory_slices {
            match owners.get_mut(usize::from(slice)) {
                Some(count) => *count += 1,
                None => return false,
            }
        }
    }
    media <= 1 && owners.iter().all(|&count| count <= 1)
}
