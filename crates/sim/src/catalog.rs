//! Machines that the simulated clouds rent out.

/// An instance type with GPUs.
///
/// Names, GPU counts, processors and memory are those of AWS' instance type pages; memory per GPU
/// is what NVML reports for the model, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Instance type, as the cloud spells it; `None` for a machine of no cloud.
    pub instance_type: Option<&'static str>,
    /// Product name as the driver reports it.
    pub product: &'static str,
    /// GPUs.
    pub gpus: u32,
    /// Framebuffer of each GPU, in MiB.
    pub fb_mib: u64,
    /// What of it the driver reserves, in MiB.
    pub fb_reserved_mib: u64,
    /// Power of one idle GPU, in watts.
    pub idle_watts: f64,
    /// Power of one fully loaded GPU, in watts.
    pub full_watts: f64,
    /// Processors, in thousandths of a core.
    pub cpu_milli: u64,
    /// Host memory, in MiB.
    pub memory_mib: u64,
}

const fn shape(
    instance_type: &'static str,
    product: &'static str,
    (gpus, fb_mib, fb_reserved_mib): (u32, u64, u64),
    (idle_watts, full_watts): (f64, f64),
    (cpus, memory_gib): (u64, u64),
) -> Shape {
    Shape {
        instance_type: Some(instance_type),
        product,
        gpus,
        fb_mib,
        fb_reserved_mib,
        idle_watts,
        full_watts,
        cpu_milli: cpus * 1000,
        memory_mib: memory_gib * 1024,
    }
}

const H100: &str = "NVIDIA H100 80GB HBM3";
const A100: &str = "NVIDIA A100-SXM4-40GB";
const V100: &str = "Tesla V100-SXM2-16GB";

/// 8 x H100.
pub const P5_48XLARGE: Shape =
    shape("p5.48xlarge", H100, (8, 81_559, 583), (70.0, 700.0), (192, 2048));
/// 8 x H200. AWS rents it in capacity blocks only: there is no on-demand price to look up.
pub const P5E_48XLARGE: Shape =
    shape("p5e.48xlarge", "NVIDIA H200", (8, 143_771, 616), (75.0, 700.0), (192, 2048));
/// 8 x A100 40 GB.
pub const P4D_24XLARGE: Shape =
    shape("p4d.24xlarge", A100, (8, 40_960, 634), (52.0, 400.0), (96, 1152));
/// 4 x V100 16 GB.
pub const P3_8XLARGE: Shape = shape("p3.8xlarge", V100, (4, 16_384, 224), (42.0, 300.0), (32, 244));
/// 1 x V100 16 GB.
pub const P3_2XLARGE: Shape = shape("p3.2xlarge", V100, (1, 16_384, 224), (42.0, 300.0), (8, 61));
/// 8 x V100 16 GB.
pub const P3_16XLARGE: Shape =
    shape("p3.16xlarge", V100, (8, 16_384, 224), (42.0, 300.0), (64, 488));
/// 8 x V100 32 GB.
pub const P3DN_24XLARGE: Shape =
    shape("p3dn.24xlarge", "Tesla V100-SXM2-32GB", (8, 32_768, 258), (45.0, 300.0), (96, 768));
/// 4 x L4.
pub const G6_12XLARGE: Shape =
    shape("g6.12xlarge", "NVIDIA L4", (4, 23_034, 458), (16.0, 72.0), (48, 192));
/// 4 x A10G.
pub const G5_12XLARGE: Shape =
    shape("g5.12xlarge", "NVIDIA A10G", (4, 23_028, 298), (22.0, 300.0), (48, 192));
/// 1 x A10G.
pub const G5_XLARGE: Shape =
    shape("g5.xlarge", "NVIDIA A10G", (1, 23_028, 298), (22.0, 300.0), (4, 16));
/// 4 x T4.
pub const G4DN_12XLARGE: Shape =
    shape("g4dn.12xlarge", "Tesla T4", (4, 15_360, 424), (9.0, 70.0), (48, 192));
/// 1 x T4.
pub const G4DN_XLARGE: Shape =
    shape("g4dn.xlarge", "Tesla T4", (1, 15_360, 424), (9.0, 70.0), (4, 16));

/// One GPU instance of a MIG layout: profile, instance id, compute slices, framebuffer in MiB.
pub type Slice = (&'static str, u32, u32, u64);

/// NVIDIA's layout `all-balanced` of an A100 40 GB, with the instance ids that its driver gives
/// and the framebuffer that its exporter reports.
///
/// Source: mig-parted's `all-balanced`; NVML's placements for `1g.5gb` (ids 7 to 13), `2g.10gb`
/// (3 to 5) and `3g.20gb` (1 and 2).
pub const A100_BALANCED: [Slice; 4] = [
    ("3g.20gb", 1, 3, 19_968),
    ("2g.10gb", 5, 2, 9_856),
    ("1g.5gb", 12, 1, 4_864),
    ("1g.5gb", 13, 1, 4_864),
];
