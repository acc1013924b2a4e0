//! Joint placement against the optimum, found by trying everything, on all tiny clusters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gpu_autoscaler_planner::check::check;
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::{
    Amounts, Fleet, Gpu, GpuPicker, Isolation, Node, Sharing, WHOLE_GPU_MILLI,
};
use gpu_autoscaler_planner::place::place;
use gpu_autoscaler_planner::request::{GpuRequest, Links, Pod, PodKind, Request};
use gpu_autoscaler_planner::strategy::Strategy;

use crate::Printed;

/// GPUs and cores of a node.
const NODES: [(usize, u64); 4] = [(1, 4), (1, 8), (2, 4), (2, 8)];
const NODES_MAX: usize = 3;
/// Thousandths of GPU (2000: two whole ones) and cores of a pod.
const PODS: [(u16, u64); 10] = [
    (300, 1),
    (300, 4),
    (500, 1),
    (500, 4),
    (700, 1),
    (700, 4),
    (1000, 1),
    (1000, 4),
    (2000, 1),
    (2000, 4),
];
const PODS_MAX: usize = 5;
/// Upper ends of the classes of gaps, in percent of the optimum.
const CLASSES: [u32; 6] = [0, 5, 10, 20, 40, 100];
/// At least this part of the clusters must be packed at the optimum by the default.
const OPTIMAL_PART_MIN: f64 = 0.95;

const STRATEGIES: [(&str, Strategy); 4] = [
    ("default", Strategy::Default),
    ("fgd", Strategy::Fgd),
    ("bestFit", Strategy::BestFit),
    ("firstFit", Strategy::FirstFit),
];

/// All multisets of 1 to `len_max` of `kinds` kinds, as ascending lists.
fn multisets(kinds: usize, len_max: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::new();
    let mut layer: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..len_max {
        let longer = |list: &Vec<usize>| {
            let first = list.last().copied().unwrap_or(0);
            let list = list.clone();
            (first..kinds).map(move |kind| [list.as_slice(), &[kind]].concat())
        };
        layer = layer.iter().flat_map(longer).collect();
        all.extend(layer.iter().cloned());
    }
    all
}

/// The most thousandths of GPU that can be allocated, by trying every place of every pod.
fn optimum(nodes: &[usize], pods: &[usize]) -> u32 {
    struct Search {
        gpus: Vec<Vec<u16>>,
        cores: Vec<u64>,
        best: u32,
    }
    fn go(search: &mut Search, pods: &[usize], allocated: u32, left: u32) {
        search.best = search.best.max(allocated);
        if allocated + left <= search.best {
            return;
        }
        let Some((&pod, rest)) = pods.split_last() else { return };
        let (milli, cores) = PODS[pod];
        let left = left - u32::from(milli);
        for node in 0..search.gpus.len() {
            if search.cores[node] < cores {
                continue;
            }
            search.cores[node] -= cores;
            if milli > WHOLE_GPU_MILLI {
                if search.gpus[node] == [WHOLE_GPU_MILLI; 2] {
                    search.gpus[node] = vec![0; 2];
                    go(search, rest, allocated + u32::from(milli), left);
                    search.gpus[node] = vec![WHOLE_GPU_MILLI; 2];
                }
            } else {
                for gpu in 0..search.gpus[node].len() {
                    if search.gpus[node][gpu] >= milli {
                        search.gpus[node][gpu] -= milli;
                        go(search, rest, allocated + u32::from(milli), left);
                        search.gpus[node][gpu] += milli;
                    }
                }
            }
            search.cores[node] += cores;
        }
        go(search, rest, allocated, left);
    }
    let mut search = Search {
        gpus: nodes.iter().map(|&n| vec![WHOLE_GPU_MILLI; NODES[n].0]).collect(),
        cores: nodes.iter().map(|&n| NODES[n].1).collect(),
        best: 0,
    };
    let total = pods.iter().map(|&pod| u32::from(PODS[pod].0)).sum();
    go(&mut search, pods, 0, total);
    search.best
}

fn fleet_of(nodes: &[usize]) -> Fleet {
    let node = |(index, &kind): (usize, &usize)| {
        let (gpus, cores) = NODES[kind];
        let allocatable = Amounts { cpu_milli: cores * 1000, memory_bytes: 1 << 40, pods: 110 };
        Node {
            name: format!("node-{index}").into(),
            schedulable: true,
            labels: Default::default(),
            taints: Vec::new(),
            gpu_model: "A100".into(),
            allocatable,
            free: allocatable,
            gpus: vec![Gpu::new(Sharing::Fraction, 0); gpus],
            picker: GpuPicker::Plan,
            tenants: Vec::new(),
            extended_free: Default::default(),
        }
    };
    Fleet::new(nodes.iter().enumerate().map(node).collect())
}

fn pods_of(pods: &[usize]) -> Vec<Pod> {
    let pod = |(index, &kind): (usize, &usize)| {
        let (milli, cores) = PODS[kind];
        let gpu = match milli {
            1000 => GpuRequest::Whole { count: 1 },
            2000 => GpuRequest::Whole { count: 2 },
            compute_milli => GpuRequest::Share { compute_milli, memory_mib: 0 },
        };
        Pod {
            name: format!("pod-{index}").into(),
            priority: 0,
            kind: PodKind::plain(Request {
                cpu_milli: cores * 1000,
                memory_bytes: 1 << 20,
                gpu,
                models: Vec::new(),
                isolation: Isolation::None,
                links: Links::Any,
                extended: Vec::new(),
            }),
            gang: None,
        }
    };
    pods.iter().enumerate().map(pod).collect()
}

/// For each strategy, how many clusters are in each class of gaps, and the sum of gaps.
#[derive(Clone, Default)]
struct Tally {
    classes: [[u64; CLASSES.len()]; STRATEGIES.len()],
    lost: [u64; STRATEGIES.len()],
    optimal_milli: u64,
    faults: u64,
}

fn examine(nodes: &[usize], pods: &[usize], tally: &mut Tally) {
    let best = optimum(nodes, pods);
    let (fleet, pods) = (fleet_of(nodes), pods_of(pods));
    tally.optimal_milli += u64::from(best);
    for (index, (_, strategy)) in STRATEGIES.iter().enumerate() {
        let results = place(&pods, &fleet, &Demand::default(), *strategy);
        let placed: Vec<_> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
        tally.faults += check(&pods, &fleet, &placed).len() as u64;
        let got: u32 = pods
            .iter()
            .zip(&placed)
            .filter(|(_, place)| place.is_some())
            .map(|(pod, _)| pod.kind.request.gpu_milli())
            .sum();
        // More than the optimum would be a fault of the search or of the check.
        assert!(got <= best, "{got} of at most {best} allocated on {fleet:?}");
        let lost = best - got;
        let percent = (lost * 100).div_ceil(best.max(1));
        let class = CLASSES.iter().position(|&end| percent <= end).unwrap_or(CLASSES.len() - 1);
        tally.classes[index][class] += 1;
        tally.lost[index] += u64::from(lost);
    }
}

/// Prints the distribution of the gap to the optimum.
pub fn table() -> Printed {
    let clusters = multisets(NODES.len(), NODES_MAX);
    let loads = multisets(PODS.len(), PODS_MAX);
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, |n| n.get());
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let worker = || {
            let mut tally = Tally::default();
            while let Some(pods) = loads.get(next.fetch_add(1, Ordering::Relaxed)) {
                clusters.iter().for_each(|nodes| examine(nodes, pods, &mut tally));
            }
            tally
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().map(|handle| handle.join().expect("no search panics")).collect()
    });
    let count = clusters.len() * loads.len();
    println!("{count} clusters of 1 to {NODES_MAX} nodes with 1 to {PODS_MAX} pods");
    println!("clusters by GPU lost against the optimum, in percent of it:");
    print!("{:<10}", "strategy");
    CLASSES.iter().for_each(|end| print!(" {:>8}", format!("<= {end} %")));
    println!(" {:>10}", "mean gap");
    let optimal: u64 = tallies.iter().map(|tally| tally.optimal_milli).sum();
    let faults: u64 = tallies.iter().map(|tally| tally.faults).sum();
    let mut broken = Vec::new();
    let mut json = serde_json::Map::new();
    for (index, (name, _)) in STRATEGIES.iter().enumerate() {
        let sums: Vec<u64> = (0..CLASSES.len())
            .map(|class| tallies.iter().map(|tally| tally.classes[index][class]).sum())
            .collect();
        let lost: u64 = tallies.iter().map(|tally| tally.lost[index]).sum();
        let gap = 100.0 * lost as f64 / optimal as f64;
        print!("{name:<10}");
        sums.iter().for_each(|sum| print!(" {sum:>8}"));
        println!(" {gap:>8.3} %");
        let part = sums[0] as f64 / count as f64;
        if *name == "default" && part < OPTIMAL_PART_MIN {
            broken.push(format!(
                "the default is at the optimum on {part:.3} of the clusters, at least \
                 {OPTIMAL_PART_MIN}"
            ));
        }
        json.insert(
            (*name).to_owned(),
            serde_json::json!({ "clusters_by_gap": sums, "mean_gap_percent": gap }),
        );
    }
    if faults > 0 {
        broken.push(format!("{faults} faults found by check()"));
    }
    println!("faults found by check(): {faults}");
    Printed {
        json: serde_json::json!({
            "clusters": count, "gap_classes_percent": CLASSES, "strategies": json,
            "faults": faults, "broken": broken,
        }),
        broken,
    }
}
