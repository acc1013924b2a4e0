//! Moves running pods together, so that whole nodes come free.
//!
//! A node is emptied only where all of its pods may move, all find room on nodes that are in use
//! anyway, and the GPU time that is freed is worth more than what the moves lose.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::board::Board;
use crate::demand::Demand;
use crate::fleet::{Assignment, Fleet, NodeIndex};
use crate::request::PodKind;
use crate::strategy::{Scorer, Strategy};

/// Nodes that one call tries to empty; the cheapest first, so that the rest are worth less.
const CANDIDATES_MAX: usize = 64;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its namespace and name.
    pub name: Arc<str>,
    /// What it asks of its node.
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
    /// The most moves: what is left of the hour's allowance.
    pub moves_max: usize,
    /// For how long a freed node is expected to stay free or be off, in seconds.
    pub horizon_secs: u64,
}

/// A node that is emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// Which.
    pub node: NodeIndex,
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

/// The nodes of `fleet` that can be emptied within `limits`, in order; later moves count on the
/// earlier ones. `fleet` is as it is with all of `running` in place.
pub fn repack(fleet: &Fleet, running: &[Running], demand: &Demand, limits: Limits) -> Vec<Emptied> {
    let mut by_node: BTreeMap<NodeIndex, Vec<usize>> = BTreeMap::new();
    let mut gangs: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for (index, pod) in running.iter().enumerate() {
        by_node.entry(pod.place.node).or_default().push(index);
        if let Some(gang) = &pod.gang {
            *gangs.entry(gang).or_default() += 1;
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
    let mut candidates: Vec<(u64, NodeIndex)> = by_node
        .iter()
        .filter_map(|(&node, pods)| Some((loss_of(running, pods, &gangs)?, node)))
        .collect();
    candidates.sort();
    candidates.truncate(CANDIDATES_MAX);
    let mut emptied: Vec<Emptied> = Vec::new();
    let mut moves_left = limits.moves_max;
    let mut received: Vec<NodeIndex> = Vec::new();
    for (loss, node) in candidates {
        let pods = &by_node[&node];
        let gain = (fleet.node(node).gpus.len() as u64).saturating_mul(limits.horizon_secs);
        // A node that took pods in is not emptied in the same call: no pod moves twice.
        if pods.len() > moves_left || loss >= gain || received.contains(&node) {
            continue;
        }
        if let Some((next, moves)) = without(&fleet, node, pods, running, demand) {
            fleet = next;
            moves_left -= moves.len();
            received.extend(moves.iter().map(|m| m.to.node));
            emptied.push(Emptied { node, moves, gain, loss });
        }
    }
    emptied
}

/// What moving all of `pods` loses; `None` when one may not move or a gang would be split.
fn loss_of(running: &[Running], pods: &[usize], gangs: &BTreeMap<&Arc<str>, usize>) -> Option<u64> {
    let mut sum = 0_u64;
    for &index in pods {
        let pod = &running[index];
        if let Some(gang) = &pod.gang {
            let here = pods.iter().filter(|&&other| running[other].gang.as_ref() == Some(gang));
            if here.count() < gangs[gang] {
                return None;
            }
        }
        sum = sum.saturating_add(pod.move_loss?);
    }
    Some(sum)
}

/// The fleet with all of `pods` moved away from `node`; `None` when one finds no room.
fn without(
    fleet: &Fleet,
    node: NodeIndex,
    pods: &[usize],
    running: &[Running],
    demand: &Demand,
) -> Option<(Fleet, Vec<Move>)> {
    let mut fleet = fleet.clone();
    fleet.node_mut(node).schedulable = false;
    for &index in pods {
        fleet.unbind(&running[index].kind, running[index].place);
    }
    let mut order = pods.to_vec();
    order.sort_by_key(|&index| {
        let request = &running[index].kind.request;
        (Reverse(request.gpu_milli()), Reverse(request.cpu_milli), index)
    });
    let mut board = Board::new(Scorer::new(Strategy::Default, demand, &fleet), &fleet);
    let mut moves = Vec::new();
    for index in order {
        let kind = &running[index].kind;
        let number = board.add_kind(&fleet, kind);
        let to = board.best(&fleet, number)?;
        fleet.bind(kind, to);
        board.bound(number, to.node);
        moves.push(Move { pod: index, to });
    }
    Some((fleet, moves))
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
