//! What an exporter reads off its devices, as samples and as the text that it serves.

use std::fmt::Write as _;
use std::sync::Arc;

use gpu_autoscaler_model::{
    Activity, ActivitySource, Device, GpuModel, GpuSample, HardwareReading, Holder, Megahertz,
    Milliwatts, NodeName, ObjectKey, Ratio, SampleScope, ThrottleReasons, Timestamp, Uid,
};

use crate::Chance;
use crate::catalog::Shape;
use crate::node::mib;
use crate::spec::{Ailment, Counter, ExporterSpec};

/// One device, GPU instance or pod's part, as read at one instant. Numbers are rounded as the
/// exporter prints them.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub gpu: u32,
    pub device: Device,
    pub scope: SampleScope,
    pub holder: Option<PodName>,
    pub replica: u32,
    /// Share of compute; `None` where the configured counter does not exist.
    pub activity: Option<f64>,
    /// The same of the whole GPU or GPU instance, of which this may be one pod's part.
    pub device_activity: Option<f64>,
    pub fb_used_mib: u64,
    pub fb_free_mib: u64,
    pub fb_reserved_mib: u64,
    pub watts: f64,
    pub celsius: i16,
    /// What is wrong with the GPU.
    pub ailment: Option<Ailment>,
}

impl Reading {
    /// NVML's bits.
    fn throttle_reasons(&self) -> u64 {
        let hot = ThrottleReasons::HW_SLOWDOWN.union(ThrottleReasons::HW_THERMAL);
        if self.ailment == Some(Ailment::Hot) { hot.bits() } else { 0 }
    }

    fn xid(&self) -> u32 {
        if let Some(Ailment::Xid(xid)) = self.ailment { xid } else { 0 }
    }

    fn ecc_uncorrected(&self) -> u64 {
        if let Some(Ailment::UncorrectedEcc(count)) = self.ailment { count } else { 0 }
    }
}

/// A pod as the exporter names it.
#[derive(Clone, Debug)]
pub(crate) struct PodName {
    pub key: ObjectKey,
    pub uid: Uid,
}

/// The only container of every simulated pod.
const CONTAINER: &str = "main";

/// Clock of every simulated device: that of an A100 under load.
const SM_CLOCK: Megahertz = Megahertz::new(1410);

impl Counter {
    const fn source(self) -> ActivitySource {
        match self {
            Self::SmActive => ActivitySource::SmActive,
            Self::GrEngineActive => ActivitySource::GrEngineActive,
            Self::GpuUtil => ActivitySource::GpuUtil,
        }
    }

    const fn metric(self) -> &'static str {
        match self {
            Self::SmActive => "DCGM_FI_PROF_SM_ACTIVE",
            Self::GrEngineActive => "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
            Self::GpuUtil => "DCGM_FI_DEV_GPU_UTIL",
        }
    }

    /// What the counter shows of a true share of compute: profiling counters to a millionth,
    /// `GPU_UTIL` in whole percent; both with a little noise, but zero is zero.
    pub(crate) fn show(self, activity: f64, noise: &mut Chance) -> f64 {
        let seen = if activity > 0.0 {
            (activity * noise.within(0.995, 1.005)).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let steps = match self {
            Self::SmActive | Self::GrEngineActive => 1e6,
            Self::GpuUtil => 1e2,
        };
        (seen * steps).round() / steps
    }
}

/// Power and temperature of a GPU that computes this much of the time.
pub(crate) fn sensors(shape: &Shape, activity: f64) -> (f64, i16) {
    let watts = shape.idle_watts + (shape.full_watts - shape.idle_watts) * activity;
    // Within -32768..32768 by far.
    let celsius = (32.0 + 48.0 * activity).round() as i16;
    ((watts * 1e6).round() / 1e6, celsius)
}

/// The readings as the telemetry room hands them on.
///
/// Of a shared GPU, a pod's line says something about the pod only where it cannot be a copy of
/// the line of the whole GPU: some pod's value differs from it, or it is zero.
pub(crate) fn samples(
    readings: &[Reading],
    node: &NodeName,
    exporter: &ExporterSpec,
    model: Option<&GpuModel>,
    at: Timestamp,
) -> Vec<GpuSample> {
    let container: Arc<str> = CONTAINER.into();
    let sample = |reading: &Reading| {
        let part = reading.scope == SampleScope::SharedPart;
        let own = |value: &dyn Fn(&Reading) -> u64| !part || is_own(readings, reading, value);
        let own_activity = own(&|r| (r.activity.unwrap_or(0.0) * 100.0).round() as u64);
        let total = reading.fb_used_mib + reading.fb_free_mib + reading.fb_reserved_mib;
        let activity = reading.activity.filter(|_| own_activity).and_then(Ratio::new);
        GpuSample {
            at,
            exporter: Default::default(),
            node: node.clone(),
            device: reading.device.clone(),
            model: model.cloned(),
            holder: reading.holder.as_ref().map(|holder| Holder {
                pod: holder.key.clone(),
                uid: exporter.virtual_gpus.then(|| holder.uid.clone()),
                container: container.clone(),
            }),
            scope: reading.scope,
            activity: activity.map(|ratio| {
                // Processes are told apart by NVML's accounting alone.
                let by_process = part && reading.device_activity != Some(0.0);
                let counter = if by_process { Counter::GpuUtil } else { exporter.counter };
                Activity { ratio, source: counter.source() }
            }),
            fb_used: own(&|r| r.fb_used_mib).then(|| mib(reading.fb_used_mib)),
            fb_total: (!part).then(|| mib(total)),
            fb_free: (!part).then(|| mib(reading.fb_free_mib)),
            fb_reserved: (!part).then(|| mib(reading.fb_reserved_mib)),
            hardware: HardwareReading {
                power: Milliwatts::from_watts(reading.watts).filter(|_| !part),
                temperature_celsius: (!part).then_some(reading.celsius),
                sm_clock: (!part).then_some(SM_CLOCK),
                // The exporter repeats these on the lines of parts; only zero is believed there.
                throttle: Some(ThrottleReasons::from_bits(reading.throttle_reasons()))
                    .filter(|reasons| !part || reasons.is_empty()),
                xid: Some(reading.xid()).filter(|xid| !part || *xid == 0),
                ecc_uncorrected: Some(reading.ecc_uncorrected()).filter(|n| !part || *n == 0),
                ..HardwareReading::default()
            },
        }
    };
    readings.iter().map(sample).collect()
}

/// Whether the pods' values on the GPU of `part` cannot all be copies of the GPU's own.
fn is_own(readings: &[Reading], part: &Reading, value: &dyn Fn(&Reading) -> u64) -> bool {
    let same = || readings.iter().filter(|one| one.device == part.device);
    let whole = same().find(|one| one.scope == SampleScope::SharedDevice).map(value);
    let mut parts = same().filter(|one| one.scope == SampleScope::SharedPart).map(value);
    whole.is_some_and(|whole| whole == 0 || parts.any(|part| part != whole))
}

/// What DCGM prints for an integer that the device does not support.
///
/// Source: `DCGM_INT64_NOT_SUPPORTED` of `dcgm_structs.h`.
const UNSUPPORTED: &str = "9223372036854775794";

/// The readings as dcgm-exporter serves them.
///
/// Source: dcgm-exporter's render template: labels in its fixed order, then the static ones, then
/// those of the pod, sorted by name.
pub(crate) fn exposition(
    readings: &[Reading],
    node: &str,
    exporter: &ExporterSpec,
    product: &str,
) -> String {
    let mut text = String::with_capacity(readings.len() * 3_000);
    let mut metric =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&Reading) -> Option<String>| {
            let mut lines = String::new();
            for reading in readings {
                if let Some(value) = value(reading) {
                    line(&mut lines, name, reading, node, exporter, product);
                    let _ = writeln!(lines, " {value}");
                }
            }
            if !lines.is_empty() {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
                text.push_str(&lines);
            }
        };
    metric("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", &|_| {
        Some(SM_CLOCK.as_u32().to_string())
    });
    metric("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", &|_| {
        Some(UNSUPPORTED.into())
    });
    metric("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", &|r| {
        Some(r.celsius.to_string())
    });
    metric("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", &|r| {
        Some(format!("{:.6}", r.watts))
    });
    // Not supported under MIG; of a shared GPU, NVML's accounting has a part for each pod.
    metric("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", &|r| {
        let shown = r.activity.filter(|_| r.device.instance.is_none())?;
        Some(format!("{:.0}", shown * 100.0))
    });
    metric("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", &|r| {
        Some(r.xid().to_string())
    });
    metric("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "gauge", "Reasons of throttling (bits).", &|r| {
        Some(r.throttle_reasons().to_string())
    });
    metric("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "Double-bit volatile ECC errors.", &|r| {
        Some(r.ecc_uncorrected().to_string())
    });
    metric("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", &|r| {
        Some(r.fb_free_mib.to_string())
    });
    metric("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", &|r| {
        Some(r.fb_used_mib.to_string())
    });
    metric("DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).", &|r| {
        Some(r.fb_reserved_mib.to_string())
    });
    if exporter.counter != Counter::GpuUtil {
        // The line of each pod on a shared GPU repeats the value of the whole GPU.
        metric(exporter.counter.metric(), "gauge", "Ratio of time of activity.", &|r| {
            r.device_activity.map(|shown| format!("{shown:.6}"))
        });
    }
    text
}

fn line(
    out: &mut String,
    metric: &str,
    reading: &Reading,
    node: &str,
    exporter: &ExporterSpec,
    product: &str,
) {
    let (gpu, host) = (reading.gpu, exporter.host_label.as_str());
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "{metric}{{gpu=\"{gpu}\",UUID=\"{uuid}\",pci_bus_id=\"00000000:{bus:02X}:00.0\",\
         device=\"nvidia{gpu}\",modelName=\"{product}\"",
        uuid = reading.device.uuid,
        bus = 0x10 + gpu * 8,
    );
    if let Some(instance) = &reading.device.instance {
        let _ = write!(out, ",GPU_I_PROFILE=\"{}\",GPU_I_ID=\"{}\"", instance.profile, instance.id);
    }
    let _ = write!(out, ",{host}=\"{node}\",DCGM_FI_DRIVER_VERSION=\"570.133.20\"");
    if let Some(holder) = &reading.holder {
        let _ = write!(
            out,
            ",container=\"{CONTAINER}\",namespace=\"{}\",pod=\"{}\"",
            holder.key.namespace, holder.key.name
        );
        if exporter.virtual_gpus {
            let _ = write!(out, ",pod_uid=\"{}\"", holder.uid);
            if reading.scope == SampleScope::SharedPart {
                let _ = write!(out, ",vgpu=\"{}\"", reading.replica);
            }
        }
    }
    out.push('}');
}
