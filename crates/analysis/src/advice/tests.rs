use gpu_autoscaler_model::{ActivitySource, ProfileKey, Timestamp};

use super::*;

fn share(value: f64) -> Ratio {
    Ratio::new(value).expect("a share")
}

fn mib(mib: u64) -> Bytes {
    Bytes::from_mib(mib).expect("fits")
}

/// On a device of 80 GB.
fn usage(p95: f64, p99: f64, fb_mib: Option<u64>) -> PodUsage {
    PodUsage {
        observed_secs: 600,
        samples: 60,
        activity_mean: share(p95 / 2.0),
        activity_p95: share(p95),
        activity_p99: share(p99),
        activity_max: share(p99),
        activity_source: ActivitySource::SmActive,
        fb_mean: fb_mib.and_then(|fb| mib(fb).of(mib(81_920))),
        fb_p95: fb_mib.and_then(|fb| mib(fb).of(mib(81_920))),
        fb_p99: fb_mib.map(mib),
        fb_max: fb_mib.map(mib),
        fb_total: fb_mib.map(|_| mib(81_920)),
        fb_untouched_mean: None,
        preallocated: false,
        touched: 1,
    }
}

fn whole(product: &str) -> Holding<'static> {
    let geometry = MigGeometry::for_product(product);
    Holding { count: 1, each: Part::Whole, geometry, ways: Ways::ALL }
}

const H100: &str = "NVIDIA-H100-80GB-HBM3";

fn advised(usage: &PodUsage, holding: &Holding<'_>) -> String {
    let limits = Thresholds::published();
    let (advice, _, freed) = advise(FindingKind::Underutilized, usage, None, holding, &limits);
    format!("{advice}; frees {freed}")
}

#[test]
fn the_smallest_slice_that_holds_memory_with_margin_and_compute() {
    let h100 = whole(H100);
    for (p99, fb, expected) in [
        (0.10, 9_000, "request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU); frees 7/8"),
        // 9,310 MiB and a tenth are more than 10 GiB.
        (0.10, 9_310, "request MIG profile 1g.20gb (20 GiB, 2/8 of a GPU); frees 6/8"),
        // One of seven compute slices is 14.3 %.
        (0.15, 9_000, "request MIG profile 2g.20gb (20 GiB, 2/8 of a GPU); frees 6/8"),
        (0.30, 9_000, "request MIG profile 3g.40gb (40 GiB, 4/8 of a GPU); frees 4/8"),
        (0.50, 9_000, "request MIG profile 4g.40gb (40 GiB, 4/8 of a GPU); frees 4/8"),
        (0.10, 37_000, "request MIG profile 3g.40gb (40 GiB, 4/8 of a GPU); frees 4/8"),
        (0.10, 38_000, "nothing smaller fits: raise its load; frees 0/1"),
    ] {
        assert_eq!(advised(&usage(p99, p99, Some(fb)), &h100), expected, "{p99} {fb}");
    }
}

#[test]
fn a_model_without_mig_is_shared_by_the_most_replicas_that_hold_it() {
    let l4 = whole("NVIDIA-L4");
    assert_eq!(
        advised(&usage(0.10, 1.0, Some(8_000)), &l4),
        "share the GPU: 1 of 8 replicas; frees 7/8"
    );
    assert_eq!(
        advised(&usage(0.20, 1.0, Some(8_000)), &l4),
        "share the GPU: 1 of 4 replicas; frees 3/4"
    );
    assert_eq!(
        advised(&usage(0.20, 1.0, Some(37_000)), &l4),
        "share the GPU: 1 of 2 replicas; frees 1/2"
    );
    assert_eq!(
        advised(&usage(0.60, 1.0, Some(8_000)), &l4),
        "nothing smaller fits: raise its load; frees 0/1"
    );
}

#[test]
fn memory_allocated_in_advance_justifies_no_slice_by_itself() {
    let mut burst = usage(0.10, 1.0, Some(5_000));
    burst.preallocated = true;
    let limits = Thresholds::published();
    let (advice, need, _) = advise(FindingKind::Underutilized, &burst, None, &whole(H100), &limits);
    // 5 GB would fit in the smallest slice; compute at its 99th percentile fits in none.
    assert!(!matches!(advice, Advice::MigProfile { .. }), "{advice}");
    assert!(need.preallocated);
    // What it holds counts in full, although it may need less.
    let mut full = usage(0.10, 0.10, Some(72_000));
    full.preallocated = true;
    assert_eq!(advised(&full, &whole(H100)), "nothing smaller fits: raise its load; frees 0/1");
}

#[test]
fn memory_that_is_not_measured_is_not_sized() {
    assert_eq!(
        advised(&usage(0.05, 0.05, None), &whole(H100)),
        "have the exporter report framebuffer; frees 0/1"
    );
}

#[test]
fn a_slice_is_made_smaller_within_its_own_geometry() {
    let three: MigProfile = "3g.20gb".parse().expect("a profile");
    let held = Holding {
        count: 1,
        each: Part::Instance(&three),
        geometry: MigGeometry::for_product("NVIDIA-A100-SXM4-40GB"),
        ways: Ways::ALL,
    };
    let mut seen = usage(0.30, 0.30, Some(4_000));
    // 30 % of three slices is nine tenths of one.
    assert_eq!(
        advised(&seen, &held),
        "request MIG profile 1g.5gb (4.7 GiB, 1/8 of a GPU); frees 3/4"
    );
    seen.activity_p99 = share(0.60);
    assert_eq!(
        advised(&seen, &held),
        "request MIG profile 2g.10gb (9.6 GiB, 2/8 of a GPU); frees 2/4"
    );
}

#[test]
fn a_replica_gives_back_what_more_replicas_leave() {
    let each = Part::Replica { of: 4 };
    let quarter = Holding { count: 1, each, geometry: None, ways: Ways::ALL };
    // Half of its quarter: an eighth of the device.
    assert_eq!(
        advised(&usage(0.50, 0.50, Some(5_000)), &quarter),
        "share the GPU: 1 of 8 replicas; frees 4/8"
    );
    assert_eq!(
        advised(&usage(0.55, 0.55, Some(5_000)), &quarter),
        "nothing smaller fits: raise its load; frees 0/1"
    );
}

#[test]
fn spare_gpus_are_given_back_unless_its_like_touched_them() {
    let mut seen = usage(0.9, 0.9, Some(70_000));
    seen.touched = 2;
    let eight = Holding { count: 8, ..whole(H100) };
    let limits = Thresholds::published();
    let of = |seen: &PodUsage, history: Option<&UsageProfile>| {
        let (advice, _, freed) = advise(FindingKind::OverRequested, seen, history, &eight, &limits);
        format!("{advice}; frees {freed}")
    };
    assert_eq!(of(&seen, None), "request 2 GPUs instead of 8; frees 6/8");
    let mut history = profile();
    history.touched_max = 4;
    assert_eq!(of(&seen, Some(&history)), "request 4 GPUs instead of 8; frees 4/8");
    seen.touched = 1;
    assert_eq!(of(&seen, None), "request 1 GPUs instead of 8; frees 7/8");
}

fn profile() -> UsageProfile {
    let key = ProfileKey { namespace: "ml".into(), owner: "Job/a".into(), image: "i".into() };
    UsageProfile::empty(key, Timestamp::EPOCH)
}

#[test]
fn what_its_like_needed_before_counts_too() {
    let mut history = profile();
    history.activity_ppm.add(100_000, 3_600);
    history.fb_mib.add(30_000, 3_600);
    history.observed_secs = 3_600;
    let limits = Thresholds::published();
    let quiet = usage(0.05, 0.05, Some(1_000));
    let (advice, need, _) =
        advise(FindingKind::Underutilized, &quiet, Some(&history), &whole(H100), &limits);
    assert_eq!(advice.to_string(), "request MIG profile 3g.40gb (40 GiB, 4/8 of a GPU)");
    assert_eq!(need.history_secs, 3_600);
    assert!(need.memory >= Some(mib(30_000)) && need.activity >= share(0.1));
}

#[test]
fn whoever_computes_nothing_is_to_stop() {
    let limits = Thresholds::published();
    for kind in [FindingKind::Idle, FindingKind::MemoryHeld] {
        let idle = usage(0.0, 0.0, Some(70_000));
        let (advice, _, freed) = advise(kind, &idle, None, &whole(H100), &limits);
        assert_eq!((advice, freed), (Advice::Stop, GpuShare::ALL));
    }
}

#[test]
fn what_fits_to_the_last_byte_and_slice_fits() {
    let limits = Thresholds { memory_margin: Ratio::ZERO, ..Thresholds::published() };
    let advised = |usage: &PodUsage, holding: &Holding<'_>| {
        advise(FindingKind::Underutilized, usage, None, holding, &limits).0.to_string()
    };
    let slice = advised(&usage(0.10, 0.10, Some(10_240)), &whole(H100));
    assert_eq!(slice, "request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU)");
    let slice = advised(&usage(0.10, 0.10, Some(10_241)), &whole(H100));
    assert_eq!(slice, "request MIG profile 1g.20gb (20 GiB, 2/8 of a GPU)");
    // One of four compute slices is 25 %.
    let slice = advised(&usage(0.25, 0.25, Some(5_000)), &whole("NVIDIA-A30"));
    assert_eq!(slice, "request MIG profile 1g.6gb (5.6 GiB, 1/4 of a GPU)");
    let eighth = advised(&usage(0.10, 1.0, Some(10_240)), &whole("NVIDIA-L4"));
    assert_eq!(eighth, "share the GPU: 1 of 8 replicas");
}

#[test]
fn a_rare_need_of_its_like_counts() {
    // Two in a hundred hours: above the 95th percentile, within the 99th.
    let mut history = profile();
    history.activity_ppm.add(100_000, 98 * 3_600);
    history.activity_ppm.add(800_000, 2 * 3_600);
    history.fb_mib.add(1_000, 98 * 3_600);
    history.fb_mib.add(60_000, 2 * 3_600);
    let limits = Thresholds::published();
    let quiet = usage(0.05, 0.05, Some(1_000));
    let (_, need, _) =
        advise(FindingKind::Underutilized, &quiet, Some(&history), &whole(H100), &limits);
    assert!(need.activity >= share(0.8) && need.memory >= Some(mib(60_000)), "{need:?}");
}

#[test]
fn only_ways_that_are_open_are_recommended() {
    let seen = usage(0.10, 0.10, Some(9_000));
    let with = |ways| advised(&seen, &Holding { ways, ..whole(H100) });
    let these = |slices, replicas| Ways::These { slices, replicas };
    let slice = "request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU); frees 7/8";
    assert_eq!([with(Ways::ALL), with(these(true, false))], [slice; 2]);
    assert_eq!(with(these(false, true)), "share the GPU: 1 of 8 replicas; frees 7/8");
    assert_eq!(with(these(false, false)), "nothing smaller fits: raise its load; frees 0/1");
    assert_eq!(with(Ways::Training), "raise its load: training is not shared; frees 0/1");
}
