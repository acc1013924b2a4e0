//! DCGM exporter's series turned into samples.
//!
//! Which counters exist, their units and their traps: NVIDIA/dcgm-exporter
//! `etc/default-counters.csv` and its transformation code; DCGM's `dcgm_fields.h` for the blank
//! values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::{
    Activity, ActivitySource, Bytes, Device, GpuInstance, GpuModel, GpuSample, GpuUuid,
    HardwareReading, Holder, Megahertz, Milliwatts, NodeName, ObjectKey, Ratio, SampleScope,
    ThrottleReasons, Timestamp, Uid,
};

use crate::exposition::Series;

/// The counters that are read; a query may ask for just these. The first four, compute and
/// framebuffer in use, are what the history is made of.
pub const METRICS: [&str; 18] = [
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_FB_TOTAL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
    // The same bits under the name since DCGM 3.3 and the one before.
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
];

/// What the reader knows beside the text.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When it was read; a timestamp in the text wins.
    pub at: Timestamp,
    /// The node whose exporter it is, where the reader knows; else the labels tell.
    pub node: Option<NodeName>,
    /// The exporter's host and port; empty where the reader does not know.
    pub exporter: Arc<str>,
}

/// Something that was not used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// The metric.
    pub metric: String,
    /// The device, where the series names one.
    pub device: Option<String>,
    /// Why.
    pub why: DropReason,
}

/// Why something was not used.
#[derive(Clone, Debug, PartialEq)]
pub enum DropReason {
    /// No `UUID` label.
    NoDevice,
    /// Neither the reader nor a label names the node.
    NoNode,
    /// `GPU_I_ID` or `GPU_I_PROFILE` cannot be read, or one stands without the other.
    Instance,
    /// The value cannot be: negative, not finite, or beyond the unit's range.
    Value {
        /// What it is.
        value: f64,
    },
    /// The same series came twice with different values.
    Twice {
        /// The first value.
        first: f64,
        /// The other.
        second: f64,
    },
    /// The time in the text is outside the calendar.
    Time {
        /// Milliseconds since 1970.
        millis: i64,
    },
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.metric)?;
        if let Some(device) = &self.device {
            write!(f, " of {device}")?;
        }
        match &self.why {
            DropReason::NoDevice => f.write_str(": no `UUID` label"),
            DropReason::NoNode => f.write_str(": no label names the node"),
            DropReason::Instance => f.write_str(": `GPU_I_ID` and `GPU_I_PROFILE` do not match"),
            DropReason::Value { value } => write!(f, ": {value} cannot be"),
            DropReason::Twice { first, second } => write!(f, ": both {first} and {second}"),
            DropReason::Time { millis } => write!(f, ": no such time as {millis} ms"),
        }
    }
}

/// One copy of each text that samples repeat: a device's is on all its series, at every time.
#[derive(Debug, Default)]
pub struct Texts {
    texts: BTreeSet<Arc<str>>,
    /// By the text that they were read from.
    models: BTreeMap<Arc<str>, Option<GpuModel>>,
}

impl Texts {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.texts.get(text) {
            return Arc::clone(kept);
        }
        let new = Arc::<str>::from(text);
        self.texts.insert(Arc::clone(&new));
        new
    }

    fn model(&mut self, text: &str) -> Option<GpuModel> {
        if let Some(known) = self.models.get(text) {
            return known.clone();
        }
        let model = GpuModel::parse(text);
        self.models.insert(text.into(), model.clone());
        model
    }
}

/// Samples, and what was not used. Series that are none of [`METRICS`] are passed over silently.
///
/// Series of one device, instance and pod become one sample.
pub fn samples<'a>(
    series: impl IntoIterator<Item = Series<'a>>,
    origin: &Origin,
) -> (Vec<GpuSample>, Vec<Dropped>) {
    samples_sharing(series, origin, &mut Texts::default())
}

/// The same, with `texts` in common with other scrapes.
pub fn samples_sharing<'a>(
    series: impl IntoIterator<Item = Series<'a>>,
    origin: &Origin,
    texts: &mut Texts,
) -> (Vec<GpuSample>, Vec<Dropped>) {
    let series: Vec<Series<'a>> = series.into_iter().collect();
    // Prometheus gives all series of a target the target's labels, and keeps what the exporter
    // says of a holder under `exported_…` only where it says something: the plain label on the
    // line of a free or shared device is then the exporter's own pod.
    let exported =
        series.iter().any(|one| one.labels.iter().any(|(key, _)| *key == "exported_pod"));
    let labels = if exported { PodLabels::Exported } else { PodLabels::Plain };
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    let mut dropped = Vec::new();
    for series in series {
        let Some(metric) = METRICS.iter().position(|name| *name == series.name) else { continue };
        let read = Read { series: &series, origin, labels };
        if let Err(why) = sort_in(&read, metric, texts, &mut groups) {
            let device = series.label("UUID").map(str::to_owned);
            dropped.push(Dropped { metric: series.name.to_owned(), device, why });
        }
    }
    let samples = finish(groups, &origin.exporter, &mut dropped);
    (samples, dropped)
}

/// Series of one key become one sample. The order puts the lines of a device beside each other,
/// the one without a pod first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    node: NodeName,
    device: Device,
    pod: Option<ObjectKey>,
}

#[derive(Clone, Debug)]
struct Group {
    at: Timestamp,
    values: [Option<f64>; METRICS.len()],
    model: Option<GpuModel>,
    uid: Option<Uid>,
    container: Arc<str>,
    /// The exporter marks one pod's part of a shared device with a replica number.
    replica: bool,
}

/// A series as it came.
struct Read<'r> {
    series: &'r Series<'r>,
    origin: &'r Origin,
    labels: PodLabels,
}

fn sort_in(
    read: &Read<'_>,
    metric: usize,
    texts: &mut Texts,
    groups: &mut BTreeMap<GroupKey, Group>,
) -> Result<(), DropReason> {
    let &Read { series, origin, labels } = read;
    if is_blank(series.value) {
        return Ok(());
    }
    if !series.value.is_finite() || series.value < 0.0 {
        return Err(DropReason::Value { value: series.value });
    }
    let at = match series.timestamp_millis {
        Some(millis) => Timestamp::from_millis(millis).ok_or(DropReason::Time { millis })?,
        None => origin.at,
    };
    let uuid = series.label("UUID").or_else(|| series.label("uuid")).ok_or(DropReason::NoDevice)?;
    let device = Device { uuid: GpuUuid::new(texts.get(uuid)), instance: instance(series)? };
    let node = node(series, origin, texts).ok_or(DropReason::NoNode)?;
    let label = |name| pod_label(series, labels, name);
    let pod = label("pod").map(|name| {
        let namespace = texts.get(label("namespace").unwrap_or_default());
        ObjectKey { namespace, name: texts.get(name) }
    });
    let key = GroupKey { node, device, pod };
    let group = groups.entry(key).or_insert_with(|| Group {
        at,
        values: [None; METRICS.len()],
        model: series.label("modelName").and_then(|name| texts.model(name)),
        uid: series.label("pod_uid").map(|uid| Uid::new(texts.get(uid))),
        container: texts.get(label("container").unwrap_or_default()),
        replica: series.label("vgpu").is_some(),
    });
    // Prometheus may hold an older last value of a counter than of its neighbors.
    group.at = group.at.max(at);
    match group.values[metric] {
        Some(first) if first.is_nan() => Ok(()),
        Some(first) if first != series.value => {
            // Neither is believed over the other; NaN keeps a third one from being believed.
            group.values[metric] = Some(f64::NAN);
            Err(DropReason::Twice { first, second: series.value })
        }
        _ => {
            group.values[metric] = Some(series.value);
            Ok(())
        }
    }
}

/// DCGM's blank values, which stand for "not supported" and "not permitted": the last sixteen of
/// 64-bit and 32-bit integers, and those of its floating-point type.
///
/// Source: DCGM `dcgm_structs.h`: `DCGM_INT32_BLANK` 0x7ffffff0, `DCGM_INT64_BLANK`
/// 0x7ffffffffffffff0, `DCGM_FP64_BLANK` 140737488355328.0, each with 15 reasons above it.
fn is_blank(value: f64) -> bool {
    // As a double, 0x7ffffffffffffff0 rounds to 2^63.
    value >= 9_223_372_036_854_775_792.0 && value.is_finite()
        || (140_737_488_355_328.0..140_737_488_355_344.0).contains(&value)
        || (2_147_483_632.0..=2_147_483_647.0).contains(&value)
}

fn instance(series: &Series<'_>) -> Result<Option<GpuInstance>, DropReason> {
    match (series.label("GPU_I_ID"), series.label("GPU_I_PROFILE")) {
        (None, None) => Ok(None),
        (Some(id), Some(profile)) => {
            let id = id.parse().map_err(|_| DropReason::Instance)?;
            let profile = profile.parse().map_err(|_| DropReason::Instance)?;
            Ok(Some(GpuInstance { id, profile }))
        }
        _ => Err(DropReason::Instance),
    }
}

/// The exporter's own idea of the host is its pod's name unless it was told better, so what the
/// reader or Prometheus' relabeling knows comes first.
fn node(series: &Series<'_>, origin: &Origin, texts: &mut Texts) -> Option<NodeName> {
    if origin.node.is_some() {
        return origin.node.clone();
    }
    ["node", "kubernetes_node", "Hostname", "hostname"]
        .iter()
        .find_map(|label| series.label(label))
        .map(|name| NodeName::new(texts.get(name)))
}

/// Under which names the labels about the pod that holds a device arrive.
#[derive(Clone, Copy, Debug)]
enum PodLabels {
    /// As the exporter writes them.
    Plain,
    /// With the prefix `exported_`.
    Exported,
}

/// A label about the pod that holds the device; `None` when absent or empty.
fn pod_label<'s>(series: &'s Series<'_>, labels: PodLabels, name: &str) -> Option<&'s str> {
    match labels {
        PodLabels::Plain => series.label(name),
        PodLabels::Exported => series.labels.iter().find_map(|(key, value)| {
            let stem = key.strip_prefix("exported_")?;
            (stem == name && !value.is_empty()).then_some(value.as_ref())
        }),
    }
}

fn finish(
    groups: BTreeMap<GroupKey, Group>,
    exporter: &Arc<str>,
    dropped: &mut Vec<Dropped>,
) -> Vec<GpuSample> {
    let mut samples = Vec::with_capacity(groups.len());
    let mut groups: Vec<(GroupKey, Group)> = groups.into_iter().collect();
    for lines in groups.chunk_by_mut(|a, b| a.0.node == b.0.node && a.0.device == b.0.device) {
        let pods = lines.iter().filter(|(key, _)| key.pod.is_some()).count();
        let shared = pods > 1 || lines.iter().any(|(_, group)| group.replica);
        if shared {
            forget_repeated(lines);
        }
        for (key, group) in lines.iter() {
            let scope = match (shared, key.pod.is_some()) {
                (false, _) => SampleScope::Exclusive,
                (true, false) => SampleScope::SharedDevice,
                (true, true) => SampleScope::SharedPart,
            };
            let sample = sample(key, group, scope, dropped);
            samples.push(GpuSample { exporter: Arc::clone(exporter), ..sample });
        }
    }
    samples
}

/// Forgets what the exporter says of a pod on a shared device by repeating the whole device.
///
/// A counter is per process only where the device has a line of its own beside those of the pods
/// and the pods' values differ from it; all of them zero is zero for each.
fn forget_repeated(lines: &mut [(GroupKey, Group)]) {
    for metric in 0..METRICS.len() {
        let device = lines.iter().find(|(key, _)| key.pod.is_none());
        let device = device.and_then(|(_, group)| group.values[metric]);
        let own = device.is_some_and(|whole| {
            let mut parts = lines
                .iter()
                .filter(|(key, _)| key.pod.is_some())
                .filter_map(|(_, group)| group.values[metric]);
            whole == 0.0 || parts.any(|part| part != whole)
        });
        if !own {
            for (_, group) in lines.iter_mut().filter(|(key, _)| key.pod.is_some()) {
                group.values[metric] = None;
            }
        }
    }
}

fn sample(
    key: &GroupKey,
    group: &Group,
    scope: SampleScope,
    dropped: &mut Vec<Dropped>,
) -> GpuSample {
    let mut read = Reader { key, group, dropped };
    let activity = [
        (0, ActivitySource::SmActive),
        (1, ActivitySource::GrEngineActive),
        (2, ActivitySource::GpuUtil),
    ]
    .into_iter()
    .find_map(|(metric, source)| {
        let ratio = match source {
            ActivitySource::GpuUtil => read.value(metric, Ratio::from_percent),
            _ => read.value(metric, profiling_ratio),
        };
        ratio.map(|ratio| Activity { ratio, source })
    });
    let fb_used = read.value(3, mib);
    let fb_free = read.value(4, mib);
    let fb_reserved = read.value(5, mib);
    // The total is not among the exporter's default counters.
    let fb_total = read.value(6, mib).or_else(|| {
        let sum = fb_used?.checked_add(fb_free?)?;
        fb_reserved.map_or(Some(sum), |reserved| sum.checked_add(reserved))
    });
    GpuSample {
        at: group.at,
        exporter: Arc::default(),
        node: key.node.clone(),
        device: key.device.clone(),
        model: group.model.clone(),
        holder: key.pod.clone().map(|pod| Holder {
            pod,
            uid: group.uid.clone(),
            container: group.container.clone(),
        }),
        scope,
        activity,
        fb_used,
        fb_free,
        fb_reserved,
        fb_total,
        hardware: hardware(&mut read),
    }
}

fn hardware(read: &mut Reader<'_>) -> HardwareReading {
    // Far above any that a sensor means, and exact in both types.
    let celsius = |v: f64| (v <= 1000.0).then_some(v as i16);
    let count = |v: f64| (v <= 9e15).then_some(v as u64);
    let megahertz = |v: f64| (v <= 1e6).then(|| Megahertz::new(v as u32));
    HardwareReading {
        power: read.value(7, Milliwatts::from_watts),
        temperature_celsius: read.value(8, celsius),
        xid: read.value(9, |v| (v <= f64::from(u32::MAX)).then_some(v as u32)),
        memory_temperature_celsius: read.value(10, celsius),
        sm_clock: read.value(11, megahertz),
        memory_clock: read.value(12, megahertz),
        throttle: read
            .value(13, count)
            .or_else(|| read.value(14, count))
            .map(ThrottleReasons::from_bits),
        ecc_corrected: read.value(15, count),
        ecc_uncorrected: read.value(16, count),
        row_remap_failed: read.value(17, count).map(|failed| failed > 0),
    }
}

/// Reads one group's values, noting those that cannot be.
struct Reader<'a> {
    key: &'a GroupKey,
    group: &'a Group,
    dropped: &'a mut Vec<Dropped>,
}

impl Reader<'_> {
    fn value<T>(&mut self, metric: usize, convert: impl Fn(f64) -> Option<T>) -> Option<T> {
        // NaN marks a value that came twice and was noted then.
        let value = self.group.values[metric].filter(|value| !value.is_nan())?;
        let converted = convert(value);
        if converted.is_none() {
            self.dropped.push(Dropped {
                metric: METRICS[metric].to_owned(),
                device: Some(self.key.device.uuid.to_string()),
                why: DropReason::Value { value },
            });
        }
        converted
    }
}

/// Profiling counters are quotients of two samples and exceed 1 by rounding.
fn profiling_ratio(value: f64) -> Option<Ratio> {
    if value > 1.0 && value <= 1.01 { Some(Ratio::ONE) } else { Ratio::new(value) }
}

/// At most 2^24 MiB (16 TiB), which no device comes near.
fn mib(value: f64) -> Option<Bytes> {
    (value <= f64::from(1 << 24)).then(|| Bytes::from_mib(value as u64)).flatten()
}

#[cfg(test)]
mod tests;
