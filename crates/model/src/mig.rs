//! MIG profiles and the places where each may lie, for every model that has MIG.
//!
//! Sources: profile names from NVIDIA GPU Operator, `state-mig-manager/0400_configmap.yaml`
//! (commit a22dbf67); slices, counts, multiprocessors, usable MiB and placements from go-nvml
//! v0.13.3 and NVIDIA's MIG User Guide. go-nvml's mock lists other placements for 3g, 7g and the
//! double-memory 1g on Hopper and Blackwell than `nvidia-smi mig -lgipp` prints on the hardware;
//! the tables here are the hardware's. A list that a node reports
//! (`nvmlDeviceGetGpuInstancePossiblePlacements`) stands above these tables: see [`MigGeometry`].
//!
//! # Invariants
//! - A placement is a range of memory slices. Compute slices need no mask of their own: in every
//!   table, instances whose memory slices do not overlap never ask for more compute slices than
//!   the GPU has (a test walks all of them).
//! - Profiles are told apart by name, never by memory: `1g.10gb` is the double-memory profile on
//!   an A100-40GB and the plain one on an A100-80GB.

use std::borrow::Cow;

use crate::GpuShare;

/// A MIG profile of one GPU model, such as `1g.5gb` of the A100-40GB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigProfileSpec {
    /// NVIDIA's name, such as `1g.5gb+me`.
    pub name: Cow<'static, str>,
    /// Compute slices of the GPU instance: the number before `g`.
    pub compute_slices: u8,
    /// Memory slices of the GPU instance: how many bits of the mask it takes.
    pub memory_slices: u8,
    /// The memory slices at which an instance may start, ascending.
    pub starts: Cow<'static, [u8]>,
    /// Whether the instance takes all media engines (`+me`, `+me.all`), which one instance per
    /// GPU can have.
    #[doc(alias = "NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1")]
    pub takes_media_engines: bool,
    /// Usable framebuffer, in MiB; `None` where no table that we know gives it.
    pub memory_mib: Option<u32>,
    /// Streaming multiprocessors; `None` where no table that we know gives it.
    pub multiprocessors: Option<u16>,
}

impl MigProfileSpec {
    /// The memory slices that an instance at `start` takes, as bits of the occupancy mask.
    pub const fn mask_at(&self, start: u8) -> u8 {
        // `memory_slices` is 1 to 8, so the widened shift cannot overflow.
        ((((1_u16 << self.memory_slices) - 1) << start) & 0xff) as u8
    }

    /// The extended resource under which the device plugin's `mixed` strategy offers it.
    ///
    /// `+me` is written `.me`, since `+` is not legal in a resource name.
    pub fn resource_name(&self) -> String {
        format!("nvidia.com/mig-{}", self.name.replace('+', "."))
    }
}

/// The MIG profiles of one GPU model or, where a node reports its own, of one node's GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigGeometry {
    /// The model, such as `A100-40GB`.
    pub model: Cow<'static, str>,
    /// Memory slices: bits of the mask in use, 4 or 8.
    pub memory_slices: u8,
    /// Compute slices: 4 or 7.
    pub compute_slices: u8,
    /// The profiles, ascending by compute slices, then memory slices.
    pub profiles: Cow<'static, [MigProfileSpec]>,
}

/// Which memory slices of a GPU are taken, and whether its media engines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigOccupancy {
    /// One bit for each memory slice, lowest first.
    pub slices: u8,
    /// Whether an instance with all media engines exists.
    pub media_engines: bool,
}

impl MigGeometry {
    /// The geometry of the product that GPU feature discovery names in `nvidia.com/gpu.product`,
    /// with or without a `-SHARED` or `-MIG-...` suffix; `None` for a model without MIG or
    /// unknown to the tables.
    #[doc(alias = "nvidia.com/gpu.product")]
    pub fn for_product(product: &str) -> Option<&'static Self> {
        let words: Vec<String> = product.split(['-', ' ']).map(str::to_ascii_uppercase).collect();
        let has = |word: &str| words.iter().any(|w| w == word);
        PRODUCTS
            .iter()
            .find(|(all, _)| all.iter().all(|word| has(word)))
            .map(|&(_, geometry)| geometry)
    }

    /// The geometry of the table whose model has this name.
    pub fn for_model(model: &str) -> Option<&'static Self> {
        GEOMETRIES.into_iter().find(|geometry| geometry.model == model)
    }

    /// The position of the profile named `name` in [`MigGeometry::profiles`].
    pub fn profile_named(&self, name: &str) -> Option<usize> {
        self.profiles.iter().position(|profile| profile.name == name)
    }

    /// The part of the GPU that an instance of `profile` is, by memory slices.
    ///
    /// Not by compute slices: 4g and 3g fill a GPU with 7 of 7 of those and 8 of 8 memory slices,
    /// but two 3g fill it with 6 of 7, and 4/7 + 1/2 would be more than a GPU. A placement is a
    /// range of memory slices, so that parts of instances which fit together never add up to more
    /// than one; the eighth that seven 1g leave unusable is nobody's.
    pub fn share_of(&self, profile: &MigProfileSpec) -> GpuShare {
        GpuShare::new(profile.memory_slices.into(), self.memory_slices.into())
            .expect("no profile has more memory slices than its GPU")
    }

    /// Whether an instance of `profile` may be created at `start`.
    pub fn may_place(&self, occupied: MigOccupancy, profile: &MigProfileSpec, start: u8) -> bool {
        profile.starts.contains(&start)
            && profile.mask_at(start) & occupied.slices == 0
            && !(profile.takes_media_engines && occupied.media_engines)
    }

    /// The legal starts of `profile`, ascending.
    pub fn legal_starts<'a>(
        &'a self,
        occupied: MigOccupancy,
        profile: &'a MigProfileSpec,
    ) -> impl DoubleEndedIterator<Item = u8> + 'a {
        profile
            .starts
            .iter()
            .copied()
            .filter(move |&start| self.may_place(occupied, profile, start))
    }

    /// The start that keeps large profiles possible longest when nothing is known of the
    /// requests to come: profiles of an odd number of compute slices from the high end, even
    /// ones from the low end, so that 4g at 0 and 3g at 4 stay possible.
    ///
    /// Source: HAMi's `preferHighMigPlacement` (commit 4707fb02).
    pub fn fill_order_start(&self, occupied: MigOccupancy, profile: &MigProfileSpec) -> Option<u8> {
        let mut starts = self.legal_starts(occupied, profile);
        if profile.compute_slices % 2 == 1 { starts.next_back() } else { starts.next() }
    }
}

impl MigOccupancy {
    /// After an instance of `profile` was created at `start`.
    #[must_use]
    pub const fn with(self, profile: &MigProfileSpec, start: u8) -> Self {
        Self {
            slices: self.slices | profile.mask_at(start),
            media_engines: self.media_engines || profile.takes_media_engines,
        }
    }

    /// After the instance of `profile` at `start` was destroyed.
    #[must_use]
    pub const fn without(self, profile: &MigProfileSpec, start: u8) -> Self {
        Self {
            slices: self.slices & !profile.mask_at(start),
            media_engines: self.media_engines && !profile.takes_media_engines,
        }
    }
}

/// Figures of a profile that differ between models of one family.
struct Figures {
    /// Names in the order 1g, 1g+me, 1g double memory, 2g, 3g, 4g, 7g.
    names: [&'static str; 7],
    /// Usable MiB of 1g, of 2g and the double-memory 1g, of 3g and 4g, and of 7g.
    memory_mib: Option<[u32; 4]>,
    /// Multiprocessors of one compute slice.
    multiprocessors: Option<u16>,
}

const fn profile(
    name: &'static str,
    compute_slices: u8,
    memory_slices: u8,
    starts: &'static [u8],
) -> MigProfileSpec {
    MigProfileSpec {
        name: Cow::Borrowed(name),
        compute_slices,
        memory_slices,
        starts: Cow::Borrowed(starts),
        takes_media_engines: false,
        memory_mib: None,
        multiprocessors: None,
    }
}

const fn with_media_engines(mut profile: MigProfileSpec) -> MigProfileSpec {
    profile.takes_media_engines = true;
    profile
}

const fn with_figures(
    mut profile: MigProfileSpec,
    mib: Option<u32>,
    sm: Option<u16>,
) -> MigProfileSpec {
    profile.memory_mib = mib;
    profile.multiprocessors = match sm {
        Some(per_slice) => Some(per_slice * profile.compute_slices as u16),
        None => None,
    };
    profile
}

/// The seven profiles of the family with 7 compute and 8 memory slices (A100 and later).
const fn seven_slices(figures: &Figures) -> [MigProfileSpec; 7] {
    let [one, one_me, one_double, two, three, four, seven] = figures.names;
    let (m1, m2, m4, m8) = match figures.memory_mib {
        Some([m1, m2, m4, m8]) => (Some(m1), Some(m2), Some(m4), Some(m8)),
        None => (None, None, None, None),
    };
    let sm = figures.multiprocessors;
    [
        with_figures(profile(one, 1, 1, &[0, 1, 2, 3, 4, 5, 6]), m1, sm),
        with_figures(with_media_engines(profile(one_me, 1, 1, &[0, 1, 2, 3, 4, 5, 6])), m1, sm),
        with_figures(profile(one_double, 1, 2, &[0, 2, 4, 6]), m2, sm),
        with_figures(profile(two, 2, 2, &[0, 2, 4]), m2, sm),
        with_figures(profile(three, 3, 4, &[0, 4]), m4, sm),
        with_figures(profile(four, 4, 4, &[0]), m4, sm),
        with_figures(profile(seven, 7, 8, &[0]), m8, sm),
    ]
}

macro_rules! seven_slice_geometry {
    ($(#[$doc:meta])* $name:ident, $model:literal, $names:expr, $mib:expr, $sm:expr) => {
        $(#[$doc])*
        pub static $name: MigGeometry = {
            static PROFILES: [MigProfileSpec; 7] = seven_slices(&Figures {
                names: $names,
                memory_mib: $mib,
                multiprocessors: $sm,
            });
            MigGeometry {
                model: Cow::Borrowed($model),
                memory_slices: 8,
                compute_slices: 7,
                profiles: Cow::Borrowed(&PROFILES),
            }
        };
    };
}

seven_slice_geometry!(
    /// A100 and A800 with 40 GB.
    A100_40GB, "A100-40GB",
    ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"],
    Some([4864, 9856, 19968, 40192]), Some(14)
);
seven_slice_geometry!(
    /// A100 and A800 with 80 GB.
    A100_80GB, "A100-80GB",
    ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"],
    Some([9856, 19968, 40192, 80384]), Some(14)
);
seven_slice_geometry!(
    /// H100 and H800 with 80 GB.
    H100_80GB, "H100-80GB",
    ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"],
    Some([10240, 20480, 40960, 81920]), Some(16)
);
seven_slice_geometry!(
    /// H100 NVL and H800 NVL, 94 GB.
    H100_NVL, "H100-NVL",
    ["1g.12gb", "1g.12gb+me", "1g.24gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb"],
    None, Some(16)
);
seven_slice_geometry!(
    /// H100 and GH200 with 96 GB, and H20.
    H100_96GB, "H100-96GB",
    ["1g.12gb", "1g.12gb+me", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb"],
    None, None
);
seven_slice_geometry!(
    /// H200, 141 GB.
    H200, "H200",
    ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"],
    Some([18432, 35840, 72704, 144_384]), Some(16)
);
seven_slice_geometry!(
    /// GH200 with 144 GB of HBM3e.
    GH200_144GB, "GH200-144GB",
    ["1g.18gb", "1g.18gb+me", "1g.36gb", "2g.36gb", "3g.72gb", "4g.72gb", "7g.144gb"],
    None, Some(16)
);
seven_slice_geometry!(
    /// B200, 180 GB.
    B200, "B200",
    ["1g.23gb", "1g.23gb+me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"],
    Some([23552, 46080, 92160, 184_320]), Some(18)
);
seven_slice_geometry!(
    /// GB200, 186 GB.
    GB200, "GB200",
    ["1g.23gb", "1g.23gb+me", "1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"],
    None, Some(18)
);
seven_slice_geometry!(
    /// GB200 whose driver names the profiles after 189 GB.
    GB200_189GB, "GB200-189GB",
    ["1g.23gb", "1g.23gb+me", "1g.47gb", "2g.47gb", "3g.95gb", "4g.95gb", "7g.189gb"],
    None, Some(18)
);
seven_slice_geometry!(
    /// B300, 269 GB.
    B300, "B300",
    ["1g.34gb", "1g.34gb+me", "1g.67gb", "2g.67gb", "3g.135gb", "4g.135gb", "7g.269gb"],
    None, None
);
seven_slice_geometry!(
    /// GB300, 278 GB.
    GB300, "GB300",
    ["1g.35gb", "1g.35gb+me", "1g.70gb", "2g.70gb", "3g.139gb", "4g.139gb", "7g.278gb"],
    None, None
);

/// A30, 24 GB: 4 compute and 4 memory slices.
pub static A30: MigGeometry = {
    static PROFILES: [MigProfileSpec; 5] = [
        with_figures(profile("1g.6gb", 1, 1, &[0, 1, 2, 3]), Some(5836), Some(14)),
        with_figures(
            with_media_engines(profile("1g.6gb+me", 1, 1, &[0, 1, 2, 3])),
            Some(5836),
            Some(14),
        ),
        with_figures(profile("2g.12gb", 2, 2, &[0, 2]), Some(11672), Some(14)),
        with_figures(
            with_media_engines(profile("2g.12gb+me", 2, 2, &[0, 2])),
            Some(11672),
            Some(14),
        ),
        with_figures(profile("4g.24gb", 4, 4, &[0]), Some(23344), Some(14)),
    ];
    MigGeometry {
        model: Cow::Borrowed("A30"),
        memory_slices: 4,
        compute_slices: 4,
        profiles: Cow::Borrowed(&PROFILES),
    }
};

/// RTX PRO 6000 Blackwell, 96 GB: 4 compute and 4 memory slices, with graphics profiles.
pub static RTX_PRO_6000: MigGeometry = {
    static PROFILES: [MigProfileSpec; 11] = [
        profile("1g.24gb", 1, 1, &[0, 1, 2, 3]),
        profile("1g.24gb+gfx", 1, 1, &[0, 1, 2, 3]),
        profile("1g.24gb-me", 1, 1, &[0, 1, 2, 3]),
        with_media_engines(profile("1g.24gb+me", 1, 1, &[0, 1, 2, 3])),
        with_media_engines(profile("1g.24gb+me.all", 1, 1, &[0, 1, 2, 3])),
        profile("2g.48gb", 2, 2, &[0, 2]),
        profile("2g.48gb+gfx", 2, 2, &[0, 2]),
        profile("2g.48gb-me", 2, 2, &[0, 2]),
        with_media_engines(profile("2g.48gb+me.all", 2, 2, &[0, 2])),
        profile("4g.96gb", 4, 4, &[0]),
        profile("4g.96gb+gfx", 4, 4, &[0]),
    ];
    MigGeometry {
        model: Cow::Borrowed("RTX-PRO-6000"),
        memory_slices: 4,
        compute_slices: 4,
        profiles: Cow::Borrowed(&PROFILES),
    }
};

/// Every geometry of the tables.
///
/// The RTX PRO 5000 is absent: its placements are published nowhere that we know, so it is used
/// only with the list its node reports.
pub static GEOMETRIES: [&MigGeometry; 14] = [
    &A30,
    &A100_40GB,
    &A100_80GB,
    &H100_80GB,
    &H100_NVL,
    &H100_96GB,
    &H200,
    &GH200_144GB,
    &B200,
    &GB200,
    &GB200_189GB,
    &B300,
    &GB300,
    &RTX_PRO_6000,
];

/// Words of a product name, and the geometry of the product that has all of them; first wins.
static PRODUCTS: [(&[&str], &MigGeometry); 22] = [
    (&["A30"], &A30),
    (&["A100", "80GB"], &A100_80GB),
    (&["A800", "80GB"], &A100_80GB),
    (&["A100", "40GB"], &A100_40GB),
    (&["A800", "40GB"], &A100_40GB),
    (&["H100", "NVL"], &H100_NVL),
    (&["H800", "NVL"], &H100_NVL),
    (&["H100", "96GB"], &H100_96GB),
    (&["H20"], &H100_96GB),
    (&["H100", "80GB"], &H100_80GB),
    (&["H800", "80GB"], &H100_80GB),
    // The PCIe cards carry no size in their name; all have 80 GB.
    (&["H100", "PCIE"], &H100_80GB),
    (&["H800", "PCIE"], &H100_80GB),
    (&["GH200", "144G"], &GH200_144GB),
    // 480 GB is the processor's memory of the superchip with 96 GB of HBM3.
    (&["GH200", "480GB"], &H100_96GB),
    (&["H200"], &H200),
    (&["B200"], &B200),
    (&["GB200"], &GB200),
    (&["B300"], &B300),
    (&["GB300"], &GB300),
    (&["RTX", "PRO", "6000"], &RTX_PRO_6000),
    (&["A100X"], &A100_80GB),
];

#[cfg(test)]
mod tests;
