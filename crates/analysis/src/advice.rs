//! What would do instead: stop, fewer, a smaller slice, or a share.

use gpu_autoscaler_model::{
    Advice, Bytes, FindingKind, GpuShare, MigExtra, MigGeometry, MigProfile, Need, PodUsage, Ratio,
    UsageProfile,
};

use crate::Thresholds;

/// What a pod holds.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    /// Devices, GPU instances or replicas.
    pub count: u32,
    /// What each of them is.
    pub each: Part<'a>,
    /// The MIG profiles that its GPUs can be cut into; `None` for a model without MIG, or one
    /// that the tables do not know.
    pub geometry: Option<&'a MigGeometry>,
    /// What may be recommended in place of it.
    pub ways: Ways,
}

/// In which ways something smaller may be recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// These of them.
    These {
        /// A smaller GPU instance.
        slices: bool,
        /// One of several replicas.
        replicas: bool,
    },
    /// None: what declares itself training is never shared.
    Training,
}

impl Ways {
    /// All.
    pub const ALL: Self = Self::These { slices: true, replicas: true };
}

/// What one of the things is that a pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A whole GPU.
    Whole,
    /// A GPU instance.
    Instance(&'a MigProfile),
    /// One of so many equal replicas of a GPU.
    Replica {
        /// How many.
        of: u32,
    },
}

/// Replicas that are proposed, most first: the numbers that the time-slicing and MPS
/// configurations of the field use. MPS gives each an equal part of memory and threads, so more
/// would leave a part too small for a CUDA context on a device of 16 GB.
const REPLICAS: [u32; 3] = [8, 4, 2];

/// What to do about waste of `kind`, what was needed, and what part of the holding that frees.
///
/// A smaller slice needs two witnesses: compute at the 99th percentile that fits, and memory at the
/// 99th percentile that fits with margin. Framebuffer that was allocated in advance counts in
/// full, and never justifies a smaller slice by itself.
pub fn advise(
    kind: FindingKind,
    usage: &PodUsage,
    history: Option<&UsageProfile>,
    holding: &Holding<'_>,
    limits: &Thresholds,
) -> (Advice, Need, GpuShare) {
    let need = need(usage, history, limits);
    let (advice, freed) = match kind {
        FindingKind::Idle | FindingKind::MemoryHeld | FindingKind::Stuck => {
            (Advice::Stop, GpuShare::ALL)
        }
        FindingKind::Throttled | FindingKind::Sick => (Advice::LookAtHardware, GpuShare::NONE),
        FindingKind::OverRequested => fewer(usage, history, holding.count),
        FindingKind::Underutilized => smaller(usage, &need, holding),
    };
    (advice, need, freed)
}

/// What was measured in the window and in the history of its like, whichever is more.
fn need(usage: &PodUsage, history: Option<&UsageProfile>, limits: &Thresholds) -> Need {
    let p99 = |sketch: &gpu_autoscaler_model::QuantileSketch| sketch.quantile(990);
    let past_ppm = history.and_then(|history| p99(&history.activity_ppm)).unwrap_or(0);
    // A bucket of the sketch may end beyond the whole.
    let past = Ratio::new(past_ppm.min(1_000_000) as f64 / 1e6).expect("at most the whole");
    let past_fb = history.and_then(|history| p99(&history.fb_mib)).and_then(Bytes::from_mib);
    // What is not measured now is not known, whatever was measured before.
    let memory = usage.fb_p99.map(|fb| past_fb.map_or(fb, |past| past.max(fb)));
    let margin_ppm = u128::from(limits.memory_margin.as_ppm());
    Need {
        activity: usage.activity_p99.max(past),
        memory,
        memory_with_margin: memory.and_then(|memory| {
            let margin = u128::from(memory.as_u64()) * margin_ppm / 1_000_000;
            memory.checked_add(Bytes::new(u64::try_from(margin).ok()?))
        }),
        preallocated: usage.preallocated,
        history_secs: history.map_or(0, |history| history.observed_secs),
    }
}

fn fewer(usage: &PodUsage, history: Option<&UsageProfile>, from: u32) -> (Advice, GpuShare) {
    let touched = usage.touched.max(history.map_or(0, |history| history.touched_max));
    let to = touched.clamp(1, from.max(1));
    let freed = GpuShare::new(from.saturating_sub(to), from).unwrap_or(GpuShare::NONE);
    (Advice::FewerGpus { from, to }, freed)
}

fn smaller(usage: &PodUsage, need: &Need, holding: &Holding<'_>) -> (Advice, GpuShare) {
    let Ways::These { slices, replicas } = holding.ways else {
        return (Advice::RaiseLoad, GpuShare::NONE);
    };
    let Some(memory) = need.memory_with_margin else {
        return (Advice::MeasureMemory, GpuShare::NONE);
    };
    let geometry = holding.geometry.filter(|_| slices);
    geometry
        .and_then(|geometry| smallest_slice(geometry, need, memory, holding.each))
        .or_else(|| replicas.then(|| share(usage, memory, holding.each)).flatten())
        .unwrap_or((Advice::NothingSmaller, GpuShare::NONE))
}

/// The profile of fewest memory slices, then fewest compute slices, that holds the need.
///
/// Profiles with media engines or graphics are left out: nothing measures whether they are needed.
/// So are those whose usable memory no table gives.
fn smallest_slice(
    geometry: &MigGeometry,
    need: &Need,
    memory: Bytes,
    held: Part<'_>,
) -> Option<(Advice, GpuShare)> {
    let (slices, compute) = match held {
        Part::Whole => (geometry.memory_slices, geometry.compute_slices),
        Part::Instance(profile) => {
            let spec = &geometry.profiles[geometry.profile_named(&profile.to_string())?];
            (spec.memory_slices, spec.compute_slices)
        }
        Part::Replica { .. } => return None,
    };
    let needed = u64::from(need.activity.as_ppm()) * u64::from(compute);
    let fitting = geometry.profiles.iter().filter_map(|spec| {
        let profile: MigProfile = spec.name.parse().ok()?;
        let usable = Bytes::from_mib(spec.memory_mib?.into())?;
        (profile.extra() == MigExtra::Plain
            && spec.memory_slices < slices
            && usable >= memory
            && u64::from(spec.compute_slices) * 1_000_000 >= needed)
            .then_some((spec, profile, usable))
    });
    let (spec, profile, memory) =
        fitting.min_by_key(|(spec, ..)| (spec.memory_slices, spec.compute_slices))?;
    let share = geometry.share_of(spec);
    let freed = GpuShare::new(u32::from(slices - spec.memory_slices), slices.into())?;
    Some((Advice::MigProfile { profile, memory, share }, freed))
}

/// The most replicas of which one still holds the need.
///
/// Compute counts at its 95th percentile: replicas take turns, and a rare burst waits for its turn.
fn share(usage: &PodUsage, memory: Bytes, held: Part<'_>) -> Option<(Advice, GpuShare)> {
    let now = match held {
        Part::Whole => 1,
        Part::Replica { of } => of,
        // A GPU instance is not shared further by what is proposed here.
        Part::Instance(_) => return None,
    };
    let total = usage.fb_total?;
    // What was measured is of the part that is held.
    let fits = |replicas: u32| {
        u64::from(usage.activity_p95.as_ppm()) * u64::from(replicas) <= 1_000_000 * u64::from(now)
            && u128::from(memory.as_u64()) * u128::from(replicas) <= u128::from(total.as_u64())
    };
    let replicas = REPLICAS.into_iter().find(|replicas| *replicas > now && fits(*replicas))?;
    Some((Advice::Share { replicas }, GpuShare::new(replicas - now, replicas)?))
}

#[cfg(test)]
mod tests;
