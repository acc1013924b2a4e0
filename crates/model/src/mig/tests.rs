use std::collections::BTreeSet;

use super::*;

/// All occupancies that a sequence of creations reaches, by walking the placement lists.
fn reachable(geometry: &MigGeometry) -> BTreeSet<MigOccupancy> {
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

/// The same by brute force: every subset of the list of all (profile, start) pairs, kept when no
/// memory slice is taken twice, the media engines at most once, and the compute slices suffice.
fn brute_force(geometry: &MigGeometry) -> (BTreeSet<MigOccupancy>, u8) {
    struct Placed {
        slices: Vec<u8>,
        compute: u8,
        media: bool,
    }
    fn extend(
        all: &[Placed],
        taken: &mut Vec<u8>,
        media: bool,
        compute: u8,
        found: &mut (BTreeSet<MigOccupancy>, u8),
    ) {
        let slices = taken.iter().fold(0, |mask, &slice| mask | 1 << slice);
        found.0.insert(MigOccupancy { slices, media_engines: media });
        found.1 = found.1.max(compute);
        for (index, placed) in all.iter().enumerate() {
            if placed.slices.iter().any(|s| taken.contains(s)) || (placed.media && media) {
                continue;
            }
            let before = taken.len();
            taken.extend(&placed.slices);
            let rest = &all[index + 1..];
            extend(rest, taken, media || placed.media, compute + placed.compute, found);
            taken.truncate(before);
        }
    }
    let mut all = Vec::new();
    for profile in geometry.profiles.iter() {
        for &start in profile.starts.iter() {
            all.push(Placed {
                slices: (start..start + profile.memory_slices).collect(),
                compute: profile.compute_slices,
                media: profile.takes_media_engines,
            });
        }
    }
    let mut found = (BTreeSet::new(), 0);
    extend(&all, &mut Vec::new(), false, 0, &mut found);
    found
}

#[test]
fn every_reachable_occupancy_equals_brute_force_over_the_placement_list() {
    for geometry in GEOMETRIES {
        let (expected, compute_max) = brute_force(geometry);
        assert_eq!(reachable(geometry), expected, "{}", geometry.model);
        assert_eq!(compute_max, geometry.compute_slices, "{}", geometry.model);
    }
}

#[test]
fn each_profile_fits_exactly_as_often_as_nvidia_says() {
    for geometry in GEOMETRIES {
        for profile in geometry.profiles.iter() {
            let mut occupied = MigOccupancy::default();
            let mut count = 0;
            while let Some(start) = geometry.legal_starts(occupied, profile).next() {
                occupied = occupied.with(profile, start);
                count += 1;
            }
            let expected = match (profile.takes_media_engines, geometry.memory_slices) {
                (true, _) => 1,
                (false, 4) => 4 / profile.memory_slices,
                (false, _) => match (profile.compute_slices, profile.memory_slices) {
                    (1, 1) => 7,
                    (1, 2) => 4,
                    (2, _) => 3,
                    (3, _) => 2,
                    _ => 1,
                },
            };
            assert_eq!(count, expected, "{} {}", geometry.model, profile.name);
        }
    }
}

#[test]
fn two_3g_leave_a_compute_slice_that_nothing_can_use() {
    let three = &A100_40GB.profiles[4];
    let full = MigOccupancy::default().with(three, 0).with(three, 4);
    let fits = |p: &MigProfileSpec| A100_40GB.legal_starts(full, p).next().is_some();
    assert!(!A100_40GB.profiles.iter().any(fits));
    let four = &A100_40GB.profiles[5];
    let half = MigOccupancy::default().with(four, 0);
    assert_eq!(A100_40GB.legal_starts(half, four).next(), None);
    assert_eq!(A100_40GB.legal_starts(half, three).next(), Some(4));
}

#[test]
fn fill_order_keeps_4g_possible() {
    let mut occupied = MigOccupancy::default();
    for name in ["1g.5gb", "1g.5gb", "1g.5gb"] {
        let profile = &A100_40GB.profiles[A100_40GB.profile_named(name).expect("in the table")];
        let start = A100_40GB.fill_order_start(occupied, profile).expect("room");
        occupied = occupied.with(profile, start);
    }
    assert_eq!(occupied.slices, 0b0111_0000);
    assert!(A100_40GB.may_place(occupied, &A100_40GB.profiles[5], 0));
}

#[test]
fn the_same_name_is_another_profile_on_another_model() {
    let on_40 = &A100_40GB.profiles[A100_40GB.profile_named("1g.10gb").expect("in the table")];
    let on_80 = &A100_80GB.profiles[A100_80GB.profile_named("1g.10gb").expect("in the table")];
    assert_eq!((on_40.memory_slices, on_80.memory_slices), (2, 1));
}

#[test]
fn products_are_matched_by_whole_words() {
    let model = |product| MigGeometry::for_product(product).map(|g| g.model.as_ref());
    assert_eq!(model("NVIDIA-A100-SXM4-40GB"), Some("A100-40GB"));
    assert_eq!(model("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"), Some("A100-40GB"));
    assert_eq!(model("NVIDIA-A100-80GB-PCIe-SHARED"), Some("A100-80GB"));
    assert_eq!(model("NVIDIA-H100-80GB-HBM3"), Some("H100-80GB"));
    assert_eq!(model("NVIDIA-H100-NVL"), Some("H100-NVL"));
    assert_eq!(model("NVIDIA-GH200-480GB"), Some("H100-96GB"));
    assert_eq!(model("NVIDIA-H200"), Some("H200"));
    assert_eq!(model("NVIDIA-B200"), Some("B200"));
    assert_eq!(model("Tesla-T4"), None);
    assert_eq!(model("NVIDIA-A10"), None);
}

#[test]
fn media_engine_profiles_are_offered_with_a_dot() {
    assert_eq!(A30.profiles[1].resource_name(), "nvidia.com/mig-1g.6gb.me");
}
