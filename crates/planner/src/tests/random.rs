//! Every plan for random pods on random nodes, in the opinion of the check.

use super::*;

fn random_fleet(draws: &mut Draws) -> Fleet {
    let node_of = |index: u64, draws: &mut Draws| {
        let sharing = match draws.below(5) {
            0 => Sharing::Exclusive,
            1 => Sharing::TimeSlicing { replicas: 3 },
            2 => Sharing::Mps { replicas: 2 },
            3 => Sharing::Mig(MigTable::Listed(&A100_40GB)),
            _ => Sharing::Fraction,
        };
        let gpus = vec![Gpu::new(sharing, 40_960); draws.below(4) as usize];
        let mut node = node(&format!("n{index}"), gpus);
        node.free.cpu_milli = draws.below(12) * 1_000;
        node.free.pods = draws.below(6) as u32;
        node.gpu_model = ["A100", "T4"][draws.below(2) as usize].into();
        node.schedulable = draws.below(6) > 0;
        node.labels = [("zone", ["a", "b"][draws.below(2) as usize])].into_iter().collect();
        node
    };
    let nodes = draws.below(6);
    fleet((0..nodes).map(|index| node_of(index, draws)).collect())
}

fn random_pod(index: u64, draws: &mut Draws) -> Pod {
    let profiles = ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "7g.40gb", "9g.1gb"];
    let gpu = match draws.below(7) {
        0 => GpuRequest::None,
        1 => GpuRequest::Whole { count: draws.below(5) as u16 },
        2 => GpuRequest::Replicas { count: draws.below(4) as u16 },
        3 => GpuRequest::Mig { profile: profiles[draws.below(6) as usize].into() },
        4 => GpuRequest::MigAtLeast {
            compute_slices: draws.below(9) as u8,
            memory_mib: draws.below(50_000) as u32,
        },
        _ => GpuRequest::Share {
            compute_milli: draws.below(1_100) as u16,
            memory_mib: draws.below(50_000) as u32,
        },
    };
    let mut pod = Pod { priority: draws.below(2) as i32, ..of_app(&format!("p{index}"), "web") };
    pod.kind.request.gpu = gpu;
    pod.kind.request.cpu_milli = draws.below(5) * 700;
    if draws.below(4) == 0 {
        pod.kind.request.models = vec![["A100", "H100", "T4"][draws.below(3) as usize].into()];
    }
    pod.kind.request.isolation = [Isolation::None, Isolation::Driver][draws.below(2) as usize];
    match draws.below(8) {
        0 => demands(&mut pod).pod_anti_affinity.push(app_in_zone("web")),
        1 => demands(&mut pod).pod_affinity.push(app_in_zone("web")),
        _ => {}
    }
    if draws.below(4) == 0 {
        pod.gang = Some(["g", "h"][draws.below(2) as usize].into());
    }
    pod
}

#[test]
fn every_plan_of_every_strategy_passes_the_check() {
    // Read when the test is compiled: the environment is closed to a pure room.
    let seeds = match std::option_env!("SEED") {
        Some(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        None => 0..200,
    };
    let mut placed = 0;
    for seed in seeds {
        let mut draws = Draws(seed);
        let fleet = random_fleet(&mut draws);
        let count = draws.below(16);
        let pods: Vec<Pod> = (0..count).map(|index| random_pod(index, &mut draws)).collect();
        for strategy in STRATEGIES {
            let results = place(&pods, &fleet, &Demand::default(), strategy);
            let plan: Vec<Option<Assignment>> =
                results.iter().map(|result| result.as_ref().ok().copied()).collect();
            assert_eq!(check(&pods, &fleet, &plan), [], "seed={seed} {strategy:?}");
            placed += plan.iter().flatten().count();
            for refusal in results.iter().filter_map(|result| result.as_ref().err()) {
                assert!(!refusal.to_string().is_empty());
            }
            assert_eq!(results, place(&pods, &fleet, &Demand::default(), strategy), "seed={seed}");
        }
    }
    assert!(placed > 0);
}
