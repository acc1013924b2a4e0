//! MIG: the placement tables against brute force, and instances on a stream of requests.

use std::collections::BTreeSet;

use benches::trace::Random;
use gpu_autoscaler_model::{A100_40GB, GEOMETRIES, MigGeometry, MigOccupancy, MigProfileSpec};
use gpu_autoscaler_planner::board::Board;
use gpu_autoscaler_planner::demand::Demand;
use gpu_autoscaler_planner::fleet::{
    Amounts, Assignment, Devices, Fleet, Gpu, GpuPicker, Isolation, MigTable, Node, NodeIndex,
    Sharing,
};
use gpu_autoscaler_planner::request::{GpuRequest, Links, PodKind, Request};
use gpu_autoscaler_planner::strategy::{Scorer, Strategy};

use crate::Printed;

/// Compares what is reached by creating instances one by one with all subsets of the placement
/// list that do not overlap.
pub fn masks() -> Printed {
    let mut broken = Vec::new();
    let mut rows = Vec::new();
    println!(
        "{:<14} {:>10} {:>10} {:>12} {:>12}",
        "model", "placements", "layouts", "occupancies", "brute force"
    );
    for geometry in GEOMETRIES {
        let reached = reached(geometry);
        let (expected, layouts) = all_layouts(geometry);
        let placements: usize = geometry.profiles.iter().map(|p| p.starts.len()).sum();
        println!(
            "{:<14} {placements:>10} {layouts:>10} {:>12} {:>12}",
            geometry.model,
            reached.len(),
            expected.len()
        );
        if reached != expected {
            broken.push(format!("{}: the occupancies differ", geometry.model));
        }
        rows.push(serde_json::json!({
            "model": geometry.model, "placements": placements, "layouts": layouts,
            "occupancies": reached.len(), "brute_force": expected.len(),
        }));
    }
    Printed { json: serde_json::json!({ "rows": rows, "broken": broken }), broken }
}

fn reached(geometry: &MigGeometry) -> BTreeSet<MigOccupancy> {
    let mut seen = BTreeSet::from([MigOccupancy::default()]);
    let mut open = vec![MigOccupancy::default()];
    while let Some(occupied) = open.pop() {
        for profile in geometry.profiles.iter() {
            for start in geometry.legal_starts(occupied, profile) {
                let next = occupied.with(profile, start);
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    seen
}

/// The occupancies of all legal layouts, slice by slice, and how many layouts there are.
fn all_layouts(geometry: &MigGeometry) -> (BTreeSet<MigOccupancy>, u64) {
    fn extend(
        list: &[(&MigProfileSpec, u8)],
        owner: &mut [bool; 8],
        media: bool,
        found: &mut (BTreeSet<MigOccupancy>, u64),
    ) {
        let taken = (0..8).filter(|&slice| owner[slice]).map(|slice| 1_u8 << slice);
        found.0.insert(MigOccupancy { slices: taken.sum(), media_engines: media });
        found.1 += 1;
        for (index, &(profile, start)) in list.iter().enumerate() {
            let range = usize::from(start)..usize::from(start + profile.memory_slices);
            if owner[range.clone()].contains(&true) || (media && profile.takes_media_engines) {
                continue;
            }
            owner[range.clone()].fill(true);
            let media = media || profile.takes_media_engines;
            extend(&list[index + 1..], owner, media, found);
            owner[range].fill(false);
        }
    }
    let list: Vec<(&MigProfileSpec, u8)> = geometry
        .profiles
        .iter()
        .flat_map(|profile| profile.starts.iter().map(move |&start| (profile, start)))
        .collect();
    let mut found = (BTreeSet::new(), 0);
    extend(&list, &mut [false; 8], false, &mut found);
    found
}

/// GPUs in the fleet of a stream.
const GPUS: usize = 200;
/// Streams of each mix, each with its own seed.
const STREAMS: u64 = 5;
/// Requests in a stream for each that the fleet holds on average.
const TURNOVER: usize = 20;
/// Load: expected memory slices in use, had nothing been refused, as a part of all.
const LOAD: f64 = 0.95;

/// Frequencies of the profiles that a mix asks for.
const MIXES: [(&str, &[(&str, u32)]); 4] = [
    ("small", &[("1g.5gb", 6), ("2g.10gb", 3), ("3g.20gb", 1)]),
    ("even", &[("1g.5gb", 1), ("2g.10gb", 1), ("3g.20gb", 1), ("4g.20gb", 1), ("7g.40gb", 1)]),
    ("large", &[("1g.5gb", 2), ("3g.20gb", 3), ("4g.20gb", 3), ("7g.40gb", 1)]),
    ("double memory", &[("1g.5gb", 3), ("1g.10gb", 3), ("2g.10gb", 2), ("4g.20gb", 1)]),
];

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Default,
    BestFit,
    /// First GPU, start by NVIDIA's fill order.
    FirstFit,
    /// First device in the order of the names of a ResourceSlice: GPU, then lowest start.
    NameOrder,
}

const POLICIES: [(&str, Policy); 4] = [
    ("default", Policy::Default),
    ("bestFit", Policy::BestFit),
    ("first fit, fill order", Policy::FirstFit),
    ("order of names", Policy::NameOrder),
];

fn request(profile: &str) -> PodKind {
    PodKind::plain(Request {
        cpu_milli: 0,
        memory_bytes: 0,
        gpu: GpuRequest::Mig { profile: profile.into() },
        models: Vec::new(),
        isolation: Isolation::None,
        links: Links::Any,
        extended: Vec::new(),
    })
}

fn fleet(geometry: &'static MigGeometry) -> Fleet {
    let allocatable = Amounts { cpu_milli: 1 << 20, memory_bytes: 1 << 40, pods: 1_000 };
    let node = |index: usize| Node {
        name: format!("node-{index:03}").into(),
        schedulable: true,
        labels: Default::default(),
        taints: Vec::new(),
        gpu_model: geometry.model.as_ref().into(),
        allocatable,
        free: allocatable,
        gpus: vec![Gpu::new(Sharing::Mig(MigTable::Listed(geometry)), 40_960); 8],
        picker: GpuPicker::Plan,
        tenants: Vec::new(),
        extended_free: Default::default(),
    };
    Fleet::new((0..GPUS / 8).map(node).collect())
}

/// What became of one stream.
#[derive(Default)]
struct Outcome {
    asked_slices: u64,
    refused_slices: u64,
    /// Sum over requests of memory slices that were free while a request was refused.
    idle_at_refusal: u64,
    refusals: u64,
}

fn by_name(fleet: &Fleet, profile: usize) -> Option<Assignment> {
    for (index, node) in fleet.nodes.iter().enumerate() {
        for (gpu, state) in node.gpus.iter().enumerate() {
            let Sharing::Mig(geometry) = &state.sharing else { continue };
            let start = geometry.legal_starts(state.mig, &geometry.profiles[profile]).next();
            if let Some(start) = start {
                let devices = Devices::Mig { gpu: gpu as u8, profile: profile as u8, start };
                return Some(Assignment { node: NodeIndex(index as u32), devices });
            }
        }
    }
    None
}

fn run(geometry: &'static MigGeometry, mix: &[(&str, u32)], policy: Policy, seed: u64) -> Outcome {
    let mut random = Random(seed);
    let mut fleet = fleet(geometry);
    let total: u32 = mix.iter().map(|&(_, weight)| weight).sum();
    let kinds: Vec<PodKind> = mix.iter().map(|&(name, _)| request(name)).collect();
    let profiles: Vec<usize> =
        mix.iter().map(|&(name, _)| geometry.profile_named(name).expect("in the table")).collect();
    let mut demand = Demand::default();
    for (kind, &(_, weight)) in kinds.iter().zip(mix) {
        (0..weight).for_each(|_| demand.observe(&kind.request));
    }
    let strategy = match policy {
        Policy::Default => Strategy::Default,
        Policy::BestFit => Strategy::BestFit,
        Policy::FirstFit | Policy::NameOrder => Strategy::FirstFit,
    };
    let mut board = Board::new(Scorer::new(strategy, &demand, &fleet), &fleet);
    let indices: Vec<_> = kinds.iter().map(|kind| board.add_kind(&fleet, kind)).collect();
    let size = |mix_index: usize| u64::from(geometry.profiles[profiles[mix_index]].memory_slices);
    let mean: f64 = (0..mix.len()).map(|i| size(i) as f64 * f64::from(mix[i].1)).sum::<f64>()
        / f64::from(total);
    let slices = GPUS as f64 * f64::from(geometry.memory_slices);
    // Little's law: at this lifetime in requests, LOAD of the slices is asked for at a time.
    let lifetime = LOAD * slices / mean;
    let mut ends: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut running: Vec<(usize, Assignment)> = Vec::new();
    let mut outcome = Outcome::default();
    for now in 0..(lifetime * TURNOVER as f64) as u64 {
        while let Some(&(end, pod)) = ends.first()
            && end <= now
        {
            ends.pop_first();
            let (kind, assignment) = running[pod];
            fleet.unbind(&kinds[kind], assignment);
            board.unbound(indices[kind], assignment.node);
        }
        let mut ticket = random.below(total as usize) as u32;
        let pick = mix.iter().position(|&(_, weight)| {
            let here = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            here
        });
        let pick = pick.expect("a ticket is below the sum of the weights");
        outcome.asked_slices += size(pick);
        let found = match policy {
            Policy::NameOrder => by_name(&fleet, profiles[pick]),
            _ => board.best(&fleet, indices[pick]),
        };
        // Exponential, from 53 uniform bits.
        let uniform = ((random.bits() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        let end = now + 1 + (-uniform.ln() * lifetime) as u64;
        match found {
            Some(assignment) => {
                fleet.bind(&kinds[pick], assignment);
                board.bound(indices[pick], assignment.node);
                ends.insert((end, running.len()));
                running.push((pick, assignment));
            }
            None => {
                outcome.refused_slices += size(pick);
                outcome.refusals += 1;
                let used: u32 = fleet
                    .nodes
                    .iter()
                    .flat_map(|node| &node.gpus)
                    .map(|gpu| gpu.mig.slices.count_ones())
                    .sum();
                outcome.idle_at_refusal += slices as u64 - u64::from(used);
            }
        }
    }
    outcome
}

/// Prints refused slices, and slices idle at a refusal, for each mix and policy.
pub fn stream(seed: u64) -> Printed {
    let mut broken = Vec::new();
    let mut rows = Vec::new();
    println!(
        "{GPUS} A100-40GB, arrivals and departures, {:.0} % of the memory slices asked for",
        LOAD * 100.0
    );
    println!(
        "{:<14} {:<22} {:>16} {:>24}",
        "mix", "policy", "slices refused", "slices idle at refusal"
    );
    for (mix_name, mix) in MIXES {
        let mut ours = None;
        for (policy_name, policy) in POLICIES {
            let mut sum = Outcome::default();
            for stream in 0..STREAMS {
                let one = run(&A100_40GB, mix, policy, seed * 1_000 + stream);
                sum.asked_slices += one.asked_slices;
                sum.refused_slices += one.refused_slices;
                sum.idle_at_refusal += one.idle_at_refusal;
                sum.refusals += one.refusals;
            }
            let refused = 100.0 * sum.refused_slices as f64 / sum.asked_slices as f64;
            let idle = 100.0 * sum.idle_at_refusal as f64
                / (sum.refusals.max(1) * (GPUS * 8) as u64) as f64;
            println!("{mix_name:<14} {policy_name:<22} {refused:>14.2} % {idle:>22.2} %");
            match ours {
                None => ours = Some(refused),
                Some(ours) if ours > refused => broken.push(format!(
                    "{mix_name}: the default refuses {ours:.2} % of the slices, {policy_name} \
                     {refused:.2} %"
                )),
                Some(_) => {}
            }
            rows.push(serde_json::json!({
                "mix": mix_name, "policy": policy_name, "refused_percent": refused,
                "idle_at_refusal_percent": idle,
            }));
        }
    }
    Printed { json: serde_json::json!({ "rows": rows, "broken": broken }), broken }
}
