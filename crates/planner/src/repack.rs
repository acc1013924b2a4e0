//! Moves running pods together, so that whole nodes and whole GPUs come free.
//!
//! A node or GPU is emptied only where all of its pods may move, all find room on what is in use
//! anyway, and the GPU time that is freed is worth more than what the moves lose.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::Timestamp;

use crate::board::Board;
use crate::demand::Demand;
use crate::fleet::{Assignment, Devices, Fleet, GpuPicker, NodeIndex, Sharing};
use crate::request::PodKind;
use crate::strategy::{Scorer, Strategy};

/// Nodes and GPUs that one call tries to empty; the cheapest first, so that the rest are worth
/// less.
const CANDIDATES_MAX: usize = 64;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its namespace and name.
    pub name: Arc<str>,
    /// What it asks of its node, with its claims looked up. One that packing does not cover
    /// exactly never moves.
    pub kind: PodKind,
    /// Where it runs.
    pub place: Assignment,
    /// The gang that it belongs to: moved whole or not at all.
    pub gang: Option<Arc<str>>,
    /// What a move loses, in GPU-seconds: its GPUs x (time since the last checkpoint + reload).
    /// `None` when it may not move: a disruption budget, an annotation, or not known.
    pub move_loss: Option<u64>,
}

/// How far one call may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most moves: what is [left](moves_left) of the hour's allowance.
    pub moves_max: usize,
    /// For how long what is freed is expected to stay free or be off, in seconds.
    pub horizon_secs: u64,
}

/// What is left of an allowance of `per_hour` moves after those at `past`.
pub fn moves_left(per_hour: usize, past: &[Timestamp], now: Timestamp) -> usize {
    const HOUR: Duration = Duration::from_secs(3_600);
    // One from the future counts: a clock that was set back must not lift the limit.
    let recent = past.iter().filter(|&&at| at > now || now.since(at) < HOUR).count();
    per_hour.saturating_sub(recent)
}

/// A node or GPU that is emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// The node.
    pub node: NodeIndex,
    /// The GPU of it; `None` when it is the whole node.
    pub gpu: Option<u8>,
    /// What is moved, in this order.
    pub moves: Vec<Move>,
    /// GPU-seconds that come free.
    pub gain: u64,
    /// GPU-seconds that the moves lose; less than `gain`.
    pub loss: u64,
}

/// A pod that is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Position in the list of running pods.
    pub pod: usize,
    /// Where to.
    pub to: Assignment,
}

/// The nodes and GPUs of `fleet` that can be emptied within `limits`, in order; later moves count
/// on the earlier ones. `fleet` is as it is with all of `running` in place.
///
/// Nodes come first. GPUs are emptied where the plan picks them, also onto others of their node.
pub fn repack(fleet: &Fleet, running: &[Running], demand: &Demand, limits: Limits) -> Vec<Emptied> {
    let mut repacking = Repacking {
        running,
        scorer: Scorer::new(Strategy::Default, demand, fleet),
        gangs: BTreeMap::new(),
        moves_left: limits.moves_max,
        touched: vec![false; fleet.nodes.len()],
        emptied: Vec::new(),
    };
    let mut by_node: BTreeMap<NodeIndex, Vec<usize>> = BTreeMap::new();
    let mut by_gpu: BTreeMap<(NodeIndex, u8), Vec<usize>> = BTreeMap::new();
    for (index, pod) in running.iter().enumerate() {
        by_node.entry(pod.place.node).or_default().push(index);
        if let Devices::Share { gpu, .. } = pod.place.devices {
            by_gpu.entry((pod.place.node, gpu)).or_default().push(index);
        }
        if let Some(gang) = &pod.gang {
            *repacking.gangs.entry(gang).or_default() += 1;
        }
    }
    let mut fleet = fleet.clone();
    // What is empty may be off before long: nothing is moved there.
    // A position in the list of nodes, which is counted in 32 bits.
    for index in (0..fleet.nodes.len() as u32).map(NodeIndex) {
        if fleet.node(index).schedulable && !by_node.contains_key(&index) {
            fleet.node_mut(index).schedulable = false;
        }
    }
    let nodes = by_node.iter().map(|(&node, pods)| {
        let gain = (fleet.node(node).gpus.len() as u64).saturating_mul(limits.horizon_secs);
        Candidate { node, gpu: None, pods, gain }
    });
    for candidate in repacking.cheapest(nodes.collect()) {
        repacking.empty(&mut fleet, &candidate);
    }
    // A GPU that is free stays free: nothing is moved onto it.
    for index in (0..fleet.nodes.len() as u32).map(NodeIndex) {
        let free = |gpu: &crate::fleet::Gpu| gpu.sharing == Sharing::Fraction && gpu.is_free();
        if fleet.node(index).schedulable && fleet.node(index).gpus.iter().any(free) {
            for gpu in fleet.node_mut(index).gpus.iter_mut().filter(|gpu| free(gpu)) {
                gpu.compute_free_milli = 0;
                gpu.memory_free_mib = 0;
            }
        }
    }
    let picked = |&(&(node, _), _): &(&(NodeIndex, u8), &Vec<usize>)| {
        fleet.node(node).picker == GpuPicker::Plan
    };
    let gpus = by_gpu.iter().filter(picked).map(|(&(node, gpu), pods)| Candidate {
        node,
        gpu: Some(gpu),
        pods,
        gain: limits.horizon_secs,
    });
    for candidate in repacking.cheapest(gpus.collect()) {
        repacking.empty(&mut fleet, &candidate);
    }
    repacking.emptied
}

/// What might be emptied.
struct Candidate<'a> {
    node: NodeIndex,
    gpu: Option<u8>,
    pods: &'a [usize],
    gain: u64,
}

struct Repacking<'a> {
    running: &'a [Running],
    scorer: Scorer,
    gangs: BTreeMap<&'a Arc<str>, usize>,
    moves_left: usize,
    /// Nodes that pods were moved to or from: no pod moves twice in one call.
    touched: Vec<bool>,
    emptied: Vec<Emptied>,
}

impl Repacking<'_> {
    /// The candidates that lose least, where all pods may move.
    fn cheapest<'c>(&self, all: Vec<Candidate<'c>>) -> Vec<Candidate<'c>> {
        let mut losing: Vec<(u64, Candidate<'c>)> =
            all.into_iter().filter_map(|c| Some((self.loss_of(c.pods)?, c))).collect();
        losing.sort_by_key(|(loss, candidate)| (*loss, candidate.node, candidate.gpu));
        losing.truncate(CANDIDATES_MAX);
        losing.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// What moving all of `pods` loses; `None` when one may not move or a gang would be split.
    fn loss_of(&self, pods: &[usize]) -> Option<u64> {
        let mut sum = 0_u64;
        for &index in pods {
            let pod = &self.running[index];
            // Where else it may run is not known.
            if !pod.kind.uncovered().is_empty() {
                return None;
            }
            if let Some(gang) = &pod.gang {
                let of_it = |&&other: &&usize| self.running[other].gang.as_ref() == Some(gang);
                if pods.iter().filter(of_it).count() < self.gangs[gang] {
                    return None;
                }
            }
            sum = sum.saturating_add(pod.move_loss?);
        }
        Some(sum)
    }

    /// Empties the candidate, where that is worth it and all of its pods find room.
    fn empty(&mut self, fleet: &mut Fleet, candidate: &Candidate<'_>) {
        let &Candidate { node, gpu, pods, gain } = candidate;
        let Some(loss) = self.loss_of(pods) else { return };
        // A node that took pods in is not emptied in the same call.
        if pods.len() > self.moves_left || loss >= gain || self.touched[node.0 as usize] {
            return;
        }
        let Some((next, moves)) = self.without(fleet, candidate) else { return };
        *fleet = next;
        self.moves_left -= moves.len();
        self.touched[node.0 as usize] = true;
        moves.iter().for_each(|m| self.touched[m.to.node.0 as usize] = true);
        self.emptied.push(Emptied { node, gpu, moves, gain, loss });
    }

    /// The fleet with all pods of the candidate moved away; `None` when one finds no room.
    fn without(&self, fleet: &Fleet, candidate: &Candidate<'_>) -> Option<(Fleet, Vec<Move>)> {
        let mut fleet = fleet.clone();
        for &index in candidate.pods {
            fleet.unbind(&self.running[index].kind, self.running[index].place);
        }
        let node = fleet.node_mut(candidate.node);
        match candidate.gpu {
            None => node.schedulable = false,
            Some(gpu) => {
                let gpu = &mut node.gpus[usize::from(gpu)];
                gpu.compute_free_milli = 0;
                gpu.memory_free_mib = 0;
            }
        }
        let mut order = candidate.pods.to_vec();
        order.sort_by_key(|&index| {
            let request = &self.running[index].kind.request;
            (Reverse(request.gpu_milli()), Reverse(request.cpu_milli), index)
        });
        let mut board = Board::new(self.scorer.clone(), &fleet);
        let mut moves = Vec::new();
        for index in order {
            let kind = &self.running[index].kind;
            let number = board.add_kind(&fleet, kind);
            let to = board.best(&fleet, number)?;
            fleet.bind(kind, to);
            board.bound(number, to.node);
            moves.push(Move { pod: index, to });
        }
        Some((fleet, moves))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_autoscaler_model::Constraints;

    use crate::check::check;
    use crate::fleet::{Amounts, Devices, Gpu, GpuPicker, Isolation, Node, Sharing};
    use crate::request::{GpuRequest, Links, Pod, Request};

    fn kind(gpus: u16) -> PodKind {
        PodKind::plain(Request {
            cpu_milli: 1_000,
            memory_bytes: 1,
            gpu: GpuRequest::Whole { count: gpus },
            models: Vec::new(),
            isolation: Isolation::None,
            links: Links::Any,
            extended: Vec::new(),
        })
    }

    /// Three nodes of four GPUs: the first runs one pod, the second two, the third none.
    fn scene(move_loss: Option<u64>, gang: Option<&str>) -> (Fleet, Fleet, Vec<Running>) {
        let node = |name: &str| {
            let allocatable = Amounts { cpu_milli: 16_000, memory_bytes: 1 << 30, pods: 10 };
            Node {
                name: name.into(),
                schedulable: true,
                labels: Default::default(),
                taints: Vec::new(),
                gpu_model: "A100".into(),
                allocatable,
                free: allocatable,
                gpus: vec![Gpu::new(Sharing::Exclusive, 0); 4],
                picker: GpuPicker::Kubelet,
                extended_free: BTreeMap::new(),
                tenants: Vec::new(),
            }
        };
        let empty = Fleet::new(["a", "b", "c"].map(node).into());
        let mut fleet = empty.clone();
        let places = [(0, 0b0001), (1, 0b0001), (1, 0b0010)];
        let running: Vec<Running> = places
            .iter()
            .enumerate()
            .map(|(index, &(node, gpus))| Running {
                name: format!("p{index}").into(),
                kind: kind(1),
                place: Assignment { node: NodeIndex(node), devices: Devices::Whole { gpus } },
                gang: gang.map(Into::into),
                move_loss,
            })
            .collect();
        for pod in &running {
            fleet.bind(&pod.kind, pod.place);
        }
        (empty, fleet, running)
    }

    const LIMITS: Limits = Limits { moves_max: 10, horizon_secs: 3_600 };

    #[test]
    fn the_node_that_loses_least_is_emptied_onto_one_in_use() {
        let (empty, fleet, running) = scene(Some(600), None);
        let emptied = repack(&fleet, &running, &Demand::default(), LIMITS);
        assert_eq!(emptied.len(), 1);
        assert_eq!((emptied[0].node, emptied[0].moves.len()), (NodeIndex(0), 1));
        assert_eq!((emptied[0].gain, emptied[0].loss), (4 * 3_600, 600));
        assert_eq!(emptied[0].moves[0].to.node, NodeIndex(1));
        let mut places: Vec<Option<Assignment>> = running.iter().map(|p| Some(p.place)).collect();
        emptied[0].moves.iter().for_each(|m| places[m.pod] = Some(m.to));
        let pods: Vec<Pod> = running
            .iter()
            .map(|r| Pod { name: r.name.clone(), priority: 0, kind: r.kind.clone(), gang: None })
            .collect();
        assert_eq!(check(&pods, &empty, &places), []);
    }

    #[test]
    fn nothing_moves_that_may_not_or_is_not_worth_it_or_exceeds_the_allowance() {
        let count = |move_loss, gang, limits| {
            let (_, fleet, running) = scene(move_loss, gang);
            repack(&fleet, &running, &Demand::default(), limits).len()
        };
        assert_eq!(count(None, None, LIMITS), 0);
        assert_eq!(count(Some(4 * 3_600), None, LIMITS), 0);
        assert_eq!(count(Some(600), None, Limits { moves_max: 0, ..LIMITS }), 0);
        assert_eq!(count(Some(600), Some("spans both nodes"), LIMITS), 0);
    }

    #[test]
    fn a_pod_that_packing_does_not_cover_stays_where_it_is() {
        let (_, fleet, mut running) = scene(Some(600), None);
        let count = |running: &[Running]| repack(&fleet, running, &Demand::default(), LIMITS).len();
        assert_eq!(count(&running), 1);
        let uncovered = vec!["spec.schedulerName".into()];
        let constraints = Constraints { uncovered, ..Constraints::default() };
        running.iter_mut().for_each(|pod| pod.kind.constraints = constraints.clone().into());
        assert_eq!(count(&running), 0);
    }

    fn share(name: &str, node: u32, gpu: u8, compute_milli: u16, move_loss: u64) -> Running {
        let mut kind = kind(0);
        kind.request.gpu = GpuRequest::Share { compute_milli, memory_mib: 0 };
        let devices = Devices::Share { gpu, compute_milli, memory_mib: 0 };
        let place = Assignment { node: NodeIndex(node), devices };
        Running { name: name.into(), kind, place, gang: None, move_loss: Some(move_loss) }
    }

    #[test]
    fn a_gpu_is_freed_within_its_node_and_never_onto_a_free_one() {
        let (empty, ..) = scene(None, None);
        let mut fleet = Fleet::new(vec![(*empty.nodes[0]).clone()]);
        let node = fleet.node_mut(NodeIndex(0));
        node.picker = GpuPicker::Plan;
        node.gpus = vec![Gpu::new(Sharing::Fraction, 0); 3];
        let running = [share("a", 0, 0, 600, 60), share("b", 0, 1, 300, 30)];
        running.iter().for_each(|pod| fleet.bind(&pod.kind, pod.place));
        let emptied = repack(&fleet, &running, &Demand::default(), LIMITS);
        assert_eq!(emptied.len(), 1, "{emptied:?}");
        assert_eq!((emptied[0].node, emptied[0].gpu), (NodeIndex(0), Some(1)));
        assert_eq!((emptied[0].gain, emptied[0].loss), (3_600, 30));
        let Devices::Share { gpu, .. } = emptied[0].moves[0].to.devices else { panic!("a share") };
        assert_eq!(gpu, 0, "onto the GPU that is in use");
        let dear = [share("a", 0, 0, 600, 3_600), share("b", 0, 1, 300, 3_600)];
        assert!(repack(&fleet, &dear, &Demand::default(), LIMITS).is_empty());
        let large = [share("a", 0, 0, 600, 60), share("b", 0, 1, 500, 30)];
        let mut full = Fleet::new(vec![(*fleet.nodes[0]).clone()]);
        full.node_mut(NodeIndex(0)).gpus = vec![Gpu::new(Sharing::Fraction, 0); 3];
        large.iter().for_each(|pod| full.bind(&pod.kind, pod.place));
        assert!(repack(&full, &large, &Demand::default(), LIMITS).is_empty(), "no room");
    }

    #[test]
    fn moves_of_the_last_hour_count_against_the_allowance() {
        let at = |secs: u64| Timestamp::EPOCH.after(Duration::from_secs(secs));
        let past = [at(0), at(3_000), at(9_000)];
        assert_eq!(moves_left(3, &past, at(3_599)), 0);
        assert_eq!(moves_left(3, &past[..2], at(3_600)), 2);
        assert_eq!(moves_left(1, &past, at(9_001)), 0);
    }
}
