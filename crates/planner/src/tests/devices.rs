//! Which part of which GPU: shares, MIG, replicas, MPS clients, NVLink.

use super::*;

#[test]
fn shares_need_a_node_where_the_plan_picks_the_gpu() {
    let share = pod("p", GpuRequest::Share { compute_milli: 500, memory_mib: 10_000 });
    let gpus = vec![Gpu::new(Sharing::Fraction, 40_960)];
    let mut by_kubelet = node("kubelet", gpus.clone());
    by_kubelet.picker = GpuPicker::Kubelet;
    let fleet = fleet(vec![by_kubelet, node("plan", gpus)]);
    let pods = [share.clone(), share.clone(), share];
    for strategy in STRATEGIES {
        let placed = nodes_of(&pods, &fleet, strategy);
        assert_eq!(placed.iter().flatten().filter(|n| ***n == *"plan").count(), 2);
        assert_eq!(placed.iter().flatten().count(), 2);
    }
}

#[test]
fn mig_instances_fill_a_gpu_without_overlap() {
    let gpu = Gpu::new(Sharing::Mig(MigTable::Listed(&A100_40GB)), 40_960);
    let fleet = fleet(vec![node("mig", vec![gpu])]);
    let slice = |profile: &str| pod(profile, GpuRequest::Mig { profile: profile.into() });
    let pods = [slice("3g.20gb"), slice("2g.10gb"), slice("1g.5gb"), slice("1g.5gb")];
    let placed = nodes_of(&pods, &fleet, Strategy::BestFit);
    assert!(placed.iter().all(Option::is_some));
    let two = [slice("4g.20gb"), slice("4g.20gb")];
    assert_eq!(nodes_of(&two, &fleet, Strategy::BestFit).iter().flatten().count(), 1);
}

#[test]
fn a_time_slice_gives_no_isolation() {
    let gpu = |sharing| vec![Gpu::new(sharing, 40_960)];
    let fleet = fleet(vec![
        node("slices", gpu(Sharing::TimeSlicing { replicas: 4 })),
        node("mps", gpu(Sharing::Mps { replicas: 4 })),
    ]);
    let mut pod = pod("p", GpuRequest::Replicas { count: 1 });
    pod.kind.request.isolation = Isolation::Driver;
    assert_eq!(
        nodes_of(std::slice::from_ref(&pod), &fleet, Strategy::FirstFit)[0].as_deref(),
        Some("mps")
    );
    pod.kind.request.isolation = Isolation::Hardware;
    assert_eq!(nodes_of(&[pod], &fleet, Strategy::FirstFit)[0], None);
}

#[test]
fn a_server_of_mps_clients_counts_processes_and_serves_one_user() {
    let gpu = Gpu::new(Sharing::Mps { replicas: 16 }, 40_960);
    let clients = |name: &str, processes, user| pod(name, GpuRequest::Clients { processes, user });
    let one = fleet(vec![node("mps", vec![gpu.clone()])]);
    let pods = [clients("a", 10, 1000), clients("b", 6, 1000), clients("c", 1, 1000)];
    for strategy in STRATEGIES {
        let placed = nodes_of(&pods, &one, strategy);
        assert_eq!(placed.iter().flatten().count(), 2, "16 processes, not 3 pods: {strategy:?}");
        let mixed = [clients("a", 1, 1000), clients("b", 1, 2000)];
        assert_eq!(nodes_of(&mixed, &one, strategy).iter().flatten().count(), 1, "{strategy:?}");
    }
    let two = fleet(vec![node("mps", vec![gpu.clone(), gpu.clone()])]);
    let mixed = [clients("a", 1, 1000), clients("b", 1, 2000)];
    assert_eq!(nodes_of(&mixed, &two, Strategy::Default).iter().flatten().count(), 2);
    let mut by_kubelet = node("kubelet", vec![gpu.clone()]);
    by_kubelet.picker = GpuPicker::Kubelet;
    let none = place(&mixed, &fleet(vec![by_kubelet]), &Demand::default(), Strategy::Default);
    assert!(none.iter().all(Result::is_err), "the kubelet would mix users");
    let refused = place(&[clients("a", 49, 0)], &one, &Demand::default(), Strategy::Default);
    let text = refused[0].as_ref().expect_err("no server has as many").to_string();
    assert_eq!(text, "client processes is 49, but at most 48 can be asked of one node");
    // The check has its own opinion.
    let at = |user| {
        let devices = Devices::Clients { gpu: 0, processes: 1, user };
        Some(Assignment { node: NodeIndex(0), devices })
    };
    let faults = check(&mixed, &one, &[at(1000), at(2000)]);
    assert_eq!(faults[0].kind, FaultKind::MixedUsers);
}

#[test]
fn the_user_of_a_server_is_free_again_when_the_last_process_is_gone() {
    let gpu = Gpu::new(Sharing::Mps { replicas: 4 }, 0);
    let mut fleet = fleet(vec![node("mps", vec![gpu])]);
    let clients = |user| pod("p", GpuRequest::Clients { processes: 2, user }).kind;
    let at = |user| Assignment {
        node: NodeIndex(0),
        devices: Devices::Clients { gpu: 0, processes: 2, user },
    };
    fleet.bind(&clients(1), at(1));
    fleet.bind(&clients(1), at(1));
    fleet.unbind(&clients(1), at(1));
    assert_eq!(fleet.nodes[0].gpus[0].mps_user, Some(1));
    fleet.unbind(&clients(1), at(1));
    assert_eq!(fleet.nodes[0].gpus[0].mps_user, None);
    assert!(fleet.nodes[0].gpus[0].is_free());
}

#[test]
fn gpus_that_must_be_joined_are_of_one_clique_whatever_the_kubelet_picks() {
    let pairs = |picker| {
        let mut node = node("pairs", whole(4));
        for (position, gpu) in node.gpus.iter_mut().enumerate() {
            gpu.clique = Some(position as u8 / 2);
        }
        node.gpus[0].compute_free_milli = 0;
        node.picker = picker;
        fleet(vec![node])
    };
    let mut joined = pod("joined", gpus(2));
    joined.kind.request.links = Links::NvLink;
    let fleet = pairs(GpuPicker::Plan);
    for strategy in STRATEGIES {
        let results = place(std::slice::from_ref(&joined), &fleet, &Demand::default(), strategy);
        let place = results[0].as_ref().expect("the second pair is free");
        assert_eq!(place.devices, Devices::Whole { gpus: 0b1100 }, "{strategy:?}");
    }
    let apart = Assignment { node: NodeIndex(0), devices: Devices::Whole { gpus: 0b0110 } };
    let faults = check(std::slice::from_ref(&joined), &fleet, &[Some(apart)]);
    assert_eq!(faults[0].kind, FaultKind::Links);
    let by_kubelet = pairs(GpuPicker::Kubelet);
    assert_eq!(nodes_of(std::slice::from_ref(&joined), &by_kubelet, Strategy::Default), [None]);
    let unknown = self::fleet(vec![node("unknown", whole(4))]);
    assert_eq!(nodes_of(&[joined], &unknown, Strategy::Default), [None], "unknown is not joined");
}

#[test]
fn placements_that_a_node_reports_stand_above_the_table() {
    let mut reported = A100_40GB.clone();
    let profiles = reported.profiles.to_mut();
    let three = profiles.iter_mut().find(|p| p.name == "3g.20gb").expect("in the table");
    three.starts = vec![4].into();
    let table = MigTable::of("NVIDIA-A100-SXM4-40GB", Some(Arc::new(reported))).expect("a table");
    let listed = MigTable::of("NVIDIA-A100-SXM4-40GB", None).expect("a table");
    assert!(table != listed && MigTable::of("Tesla-T4", None).is_none());
    let slice = |name: &str| pod(name, GpuRequest::Mig { profile: "3g.20gb".into() });
    for (table, fit) in [(table, 1), (listed, 2)] {
        let fleet = fleet(vec![node("mig", vec![Gpu::new(Sharing::Mig(table), 40_960)])]);
        for strategy in STRATEGIES {
            let placed = nodes_of(&[slice("a"), slice("b")], &fleet, strategy);
            assert_eq!(placed.iter().flatten().count(), fit, "{strategy:?}");
        }
    }
}

#[test]
fn a_share_by_memory_alone_counts_as_what_it_takes_of_the_gpu() {
    let by_memory = |memory_mib| pod("p", GpuRequest::Share { compute_milli: 0, memory_mib });
    let request = by_memory(30_720).kind.request;
    assert_eq!((request.gpu_milli(), request.gpu_milli_of(40_960)), (0, 750));
    let gpus = vec![Gpu::new(Sharing::Fraction, 40_960); 2];
    let fleet = fleet(vec![node("a", gpus)]);
    // The largest come first, though none asks for compute.
    let pods = [10_240, 10_240, 30_720, 30_720].map(by_memory);
    for strategy in STRATEGIES {
        assert!(nodes_of(&pods, &fleet, strategy).iter().all(Option::is_some), "{strategy:?}");
    }
    let large = place(&[by_memory(50_000)], &fleet, &Demand::default(), Strategy::Default);
    assert!(large[0].is_err());
}
