//! Whether a request fits on a node, and on which of its devices.

use gpu_autoscaler_model::{
    Constraints, MigGeometry, MigProfileSpec, NodeSelectorTerm, TaintEffect,
};

use crate::fleet::{Devices, Gpu, GpuPicker, Node, Sharing};
use crate::request::{GpuRequest, Links, PodKind, Request};

/// What keeps a pod from a node, in the order in which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Not ready, or cordoned.
    Unschedulable,
    /// The node selector or the required node affinity does not match.
    NodeAffinity,
    /// A volume cannot be attached there.
    Volume,
    /// A taint that is not tolerated.
    Taint,
    /// Its GPUs are of another model.
    Model,
    /// Its GPUs are not shared in the way that is asked.
    Sharing,
    /// Its GPUs keep pods apart less than is asked.
    Isolation,
    /// Required pod affinity, anti-affinity or topology spread, its own or a neighbor's.
    Neighbors,
    /// A port of the host is taken.
    HostPort,
    /// Too many pods.
    Pods,
    /// Too little processor.
    Cpu,
    /// Too little host memory.
    Memory,
    /// Too little of an extended resource.
    Extended,
    /// Too few GPUs, or too little of one.
    Gpu,
}

/// The first obstacle that does not depend on what other pods hold.
pub fn standing_obstacle(node: &Node, pod: &PodKind) -> Option<Obstacle> {
    if !node.schedulable {
        return Some(Obstacle::Unschedulable);
    }
    if !node_affinity_holds(node, &pod.constraints) {
        return Some(Obstacle::NodeAffinity);
    }
    if !pod.constraints.volume_terms.iter().all(|terms| any_term_matches(node, terms)) {
        return Some(Obstacle::Volume);
    }
    if !taints_tolerated(node, &pod.constraints) {
        return Some(Obstacle::Taint);
    }
    standing_gpu_obstacle(node, &pod.request)
}

/// Whether the node selector and the required node affinity match.
pub fn node_affinity_holds(node: &Node, constraints: &Constraints) -> bool {
    constraints.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(&**value))
        && constraints.node_terms.as_ref().is_none_or(|terms| any_term_matches(node, terms))
}

fn any_term_matches(node: &Node, terms: &[NodeSelectorTerm]) -> bool {
    terms.iter().any(|term| term_matches(node, term))
}

fn term_matches(node: &Node, term: &NodeSelectorTerm) -> bool {
    !(term.labels.is_empty() && term.name.is_empty())
        && term.labels.iter().all(|r| r.operator.holds(node.labels.get(&r.key)))
        && term.name.iter().all(|r| r.operator.holds(Some(&node.name)))
}

/// What a taint that only prefers to keep a pod away weighs: as much as the heaviest preference
/// that a pod can name.
const TAINT_WEIGHT: i32 = 100;

/// How much a pod with these constraints prefers `node`, whoever is there: the weights of the
/// terms that match, less those of taints that prefer to keep it away.
pub fn standing_preference(node: &Node, constraints: &Constraints) -> i32 {
    let matching = constraints.preferred_nodes.iter().filter(|(_, term)| term_matches(node, term));
    let wished: i32 = matching.map(|(weight, _)| weight).sum();
    let repelling = node.taints.iter().filter(|taint| {
        taint.effect == TaintEffect::PreferNoSchedule
            && !constraints.tolerations.iter().any(|t| t.tolerates(taint))
    });
    repelling.fold(wished, |sum, _| sum - TAINT_WEIGHT)
}

/// Whether every taint that keeps pods away is tolerated.
pub fn taints_tolerated(node: &Node, constraints: &Constraints) -> bool {
    let repels = |effect| matches!(effect, TaintEffect::NoSchedule | TaintEffect::NoExecute);
    node.taints
        .iter()
        .filter(|taint| repels(taint.effect))
        .all(|taint| constraints.tolerations.iter().any(|t| t.tolerates(taint)))
}

/// The first obstacle that the node's GPUs are, whatever is free of them.
fn standing_gpu_obstacle(node: &Node, request: &Request) -> Option<Obstacle> {
    if request.gpu == GpuRequest::None {
        // As in kube-scheduler: a model is asked of the GPU, and none is asked for.
        return None;
    }
    if !request.models.is_empty() && request.models.binary_search(&node.gpu_model).is_err() {
        return Some(Obstacle::Model);
    }
    if !could_ever_serve(node, &request.gpu) {
        return Some(Obstacle::Sharing);
    }
    let isolated = node
        .gpus
        .iter()
        .any(|gpu| serves(gpu, &request.gpu, node.picker) && isolation_holds(gpu, request));
    (!isolated).then_some(Obstacle::Isolation)
}

fn isolation_holds(gpu: &Gpu, request: &Request) -> bool {
    // A whole GPU has no neighbor, however it may be shared.
    matches!(request.gpu, GpuRequest::Whole { .. }) || gpu.isolation() >= request.isolation
}

/// Whether `gpu` is shared in the way that `request` asks for.
fn serves(gpu: &Gpu, request: &GpuRequest, picker: GpuPicker) -> bool {
    match (request, &gpu.sharing) {
        (GpuRequest::None, _) => false,
        (GpuRequest::Whole { .. }, Sharing::Exclusive | Sharing::Fraction) => true,
        // Of unequal shares the kubelet would know nothing.
        (GpuRequest::Share { .. }, Sharing::Fraction) => picker == GpuPicker::Plan,
        (
            GpuRequest::Replicas { count },
            Sharing::TimeSlicing { replicas } | Sharing::Mps { replicas },
        ) => count <= replicas,
        // The kubelet would mix users.
        (GpuRequest::Clients { processes, .. }, Sharing::Mps { replicas }) => {
            processes <= replicas && picker == GpuPicker::Plan
        }
        (GpuRequest::Mig { .. } | GpuRequest::MigAtLeast { .. }, Sharing::Mig(geometry)) => {
            mig_profile(geometry, request).is_some()
        }
        _ => false,
    }
}

/// Whether `node`, were it empty, could serve `request`'s GPUs.
pub fn could_ever_serve(node: &Node, request: &GpuRequest) -> bool {
    let serving = || node.gpus.iter().filter(|gpu| serves(gpu, request, node.picker));
    match request {
        GpuRequest::None => true,
        GpuRequest::Whole { count } => serving().count() >= usize::from(*count),
        GpuRequest::Share { memory_mib, .. } => serving().any(|gpu| gpu.memory_mib >= *memory_mib),
        _ => serving().next().is_some(),
    }
}

/// The profile of `geometry` that `request` is served with: the one named, or the smallest that
/// holds what is asked. A profile of unknown memory holds no request by memory.
///
/// Of profiles with the same memory the one with the least compute is taken, save that the
/// double-memory 1g comes last: it takes the memory of 2g for half of its compute, and whoever
/// wants that names it. Published behavior: 8 GiB on an A100-40GB is `2g.10gb`.
pub fn mig_profile<'a>(
    geometry: &'a MigGeometry,
    request: &GpuRequest,
) -> Option<(u8, &'a MigProfileSpec)> {
    let holds = |profile: &MigProfileSpec| match request {
        GpuRequest::Mig { profile: name } => profile.name == **name,
        GpuRequest::MigAtLeast { compute_slices, memory_mib } => {
            !profile.takes_media_engines
                && profile.compute_slices >= *compute_slices
                && (*memory_mib == 0 || profile.memory_mib.is_some_and(|mib| mib >= *memory_mib))
        }
        _ => false,
    };
    geometry
        .profiles
        .iter()
        .enumerate()
        .filter(|(_, profile)| holds(profile))
        .min_by_key(|(index, profile)| {
            let double_memory = profile.compute_slices == 1 && profile.memory_slices == 2;
            (profile.memory_slices, double_memory, profile.compute_slices, *index)
        })
        // A table has at most a few dozen profiles.
        .map(|(index, profile)| (index as u8, profile))
}

/// The first resource that `node` has too little left of.
pub fn shortage(node: &Node, request: &Request) -> Option<Obstacle> {
    if node.free.pods == 0 {
        return Some(Obstacle::Pods);
    }
    if node.free.cpu_milli < request.cpu_milli {
        return Some(Obstacle::Cpu);
    }
    if node.free.memory_bytes < request.memory_bytes {
        return Some(Obstacle::Memory);
    }
    if !node.holds_extended(request) {
        return Some(Obstacle::Extended);
    }
    let mut fits = false;
    each_choice(node, request, &mut |_| fits = true);
    (!fits).then_some(Obstacle::Gpu)
}

/// Calls `visit` with every choice of devices on `node` that serves `request` now.
///
/// GPUs in the same state are the same choice: only the first of them is visited. Of processor,
/// memory and pods nothing is asked here.
pub fn each_choice(node: &Node, request: &Request, visit: &mut dyn FnMut(Devices)) {
    match request.gpu {
        GpuRequest::None => visit(Devices::None),
        GpuRequest::Whole { count } => match request.links {
            Links::Any => each_whole(node, request, count, &|_| true, visit),
            Links::NvLink => {
                let clique_of = |position: usize| node.gpus[position].clique;
                for position in 0..node.gpus.len() {
                    let Some(clique) = clique_of(position) else { continue };
                    // Each clique once, at its first GPU; all of them where the kubelet picks.
                    let seen = (0..position).any(|before| clique_of(before) == Some(clique));
                    let all = || node.gpus.iter().all(|gpu| gpu.clique == Some(clique));
                    if !seen && (node.picker == GpuPicker::Plan || all()) {
                        let of = |gpu: &Gpu| gpu.clique == Some(clique);
                        each_whole(node, request, count, &of, visit);
                    }
                }
            }
        },
        _ => {
            for (position, gpu) in node.gpus.iter().enumerate() {
                if !serves(gpu, &request.gpu, node.picker)
                    || !isolation_holds(gpu, request)
                    || node.gpus[..position].iter().any(|other| other.is_in_state_of(gpu))
                {
                    continue;
                }
                // At most `GPUS_PER_NODE_MAX` positions.
                each_choice_on(gpu, position as u8, &request.gpu, visit);
            }
        }
    }
}

/// Visits the first `count` free GPUs that `will_do`.
fn each_whole(
    node: &Node,
    request: &Request,
    count: u16,
    will_do: &dyn Fn(&Gpu) -> bool,
    visit: &mut dyn FnMut(Devices),
) {
    let mut gpus = 0_u32;
    let mut found = 0;
    for (position, gpu) in node.gpus.iter().enumerate() {
        let serves = gpu.is_free() && serves(gpu, &request.gpu, node.picker);
        if found < count && serves && will_do(gpu) {
            gpus |= 1 << position;
            found += 1;
        }
    }
    if found == count {
        visit(Devices::Whole { gpus });
    }
}

fn each_choice_on(gpu: &Gpu, position: u8, request: &GpuRequest, visit: &mut dyn FnMut(Devices)) {
    match *request {
        GpuRequest::Share { compute_milli, memory_mib } => {
            if gpu.compute_free_milli >= compute_milli && gpu.memory_free_mib >= memory_mib {
                visit(Devices::Share { gpu: position, compute_milli, memory_mib });
            }
        }
        GpuRequest::Replicas { count } => {
            if gpu.replicas_free >= count {
                visit(Devices::Replicas { gpu: position, count });
            }
        }
        GpuRequest::Clients { processes, user } => {
            let ours = gpu.mps_user.is_none_or(|of| of == user);
            if ours && gpu.replicas_free >= processes {
                visit(Devices::Clients { gpu: position, processes, user });
            }
        }
        _ => {
            let Sharing::Mig(geometry) = &gpu.sharing else { return };
            let Some((index, profile)) = mig_profile(geometry, request) else { return };
            // The start of the fill order comes first: of equal costs the first choice wins.
            let preferred = geometry.fill_order_start(gpu.mig, profile);
            let others = geometry.legal_starts(gpu.mig, profile);
            for start in preferred.into_iter().chain(others.filter(|s| Some(*s) != preferred)) {
                visit(Devices::Mig { gpu: position, profile: index, start });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gpu_autoscaler_model::{A100_40GB, A100_80GB, H100_NVL};

    use super::*;

    fn profile(geometry: &MigGeometry, compute_slices: u8, gib: u32) -> Option<&str> {
        let request = GpuRequest::MigAtLeast { compute_slices, memory_mib: gib << 10 };
        mig_profile(geometry, &request).map(|(_, profile)| profile.name.as_ref())
    }

    #[test]
    fn the_smallest_profile_on_an_a100_40gb_is_the_published_one() {
        assert_eq!(profile(&A100_40GB, 1, 4), Some("1g.5gb"));
        assert_eq!(profile(&A100_40GB, 1, 8), Some("2g.10gb"));
        assert_eq!(profile(&A100_40GB, 2, 18), Some("3g.20gb"));
        assert_eq!(profile(&A100_40GB, 7, 100), None);
    }

    #[test]
    fn the_same_memory_is_another_profile_on_an_a100_80gb() {
        assert_eq!(profile(&A100_80GB, 1, 8), Some("1g.10gb"));
        // The name says 5 GB, 1g.5gb has 4864 MiB.
        assert_eq!(profile(&A100_40GB, 1, 5), Some("2g.10gb"));
    }

    #[test]
    fn a_profile_of_unknown_memory_holds_no_request_by_memory() {
        assert_eq!(profile(&H100_NVL, 1, 1), None);
        assert_eq!(profile(&H100_NVL, 2, 0), Some("2g.24gb"));
    }
}
