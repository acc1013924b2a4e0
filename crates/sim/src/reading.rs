//! What the devices of a node show at an instant.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu_autoscaler_model::{Device, SampleScope, Timestamp};

use crate::Chance;
use crate::exporter::{PodName, Reading, sensors};
use crate::node::{SimNode, Slot};
use crate::pod::{PodId, SimPod};
use crate::spec::{Ailment, Counter, ExporterSpec, Layout};

/// Reads every device of `node` at `at`, with profiling counters averaged since `since`.
///
/// What a pod did on a device before it handed the device on within the same interval is not
/// counted: an exporter names the holder at the time of the reading.
pub(crate) fn read(
    node: &SimNode,
    exporter: &ExporterSpec,
    pods: &BTreeMap<PodId, SimPod>,
    since: Timestamp,
    at: Timestamp,
    noise: &mut Chance,
) -> Vec<Reading> {
    let from = match exporter.counter {
        Counter::SmActive | Counter::GrEngineActive => since,
        Counter::GpuUtil => at.before(Duration::from_secs(1)),
    };
    let window = (from, at);
    let mut readings = Vec::with_capacity(node.slots.len());
    for group in node.slots.chunk_by(|a, b| a.gpu == b.gpu) {
        let held: Vec<Use<'_>> =
            group.iter().map(|slot| Use::of(slot, node, pods, window)).collect();
        // Power and temperature are those of the whole GPU, however it is cut.
        let whole: f64 = held.iter().map(|one| one.activity * one.share).sum();
        let gpu = Gpu { node, exporter, sensors: sensors(&node.spec.shape, whole.min(1.0)) };
        match node.spec.layout {
            Layout::TimeSliced { .. } => gpu.shared(&held, &mut readings, noise),
            Layout::Whole | Layout::Mig(_) => {
                readings.extend(held.iter().map(|one| gpu.exclusive(one, noise)));
            }
        }
    }
    readings
}

/// A slot and what its holder makes of it.
struct Use<'a> {
    slot: &'a Slot,
    holder: Option<PodName>,
    activity: f64,
    fb_used_mib: u64,
    /// Share of the GPU that full use of the slot is.
    share: f64,
}

impl<'a> Use<'a> {
    fn of(
        slot: &'a Slot,
        node: &SimNode,
        pods: &BTreeMap<PodId, SimPod>,
        (from, at): (Timestamp, Timestamp),
    ) -> Self {
        let share = f64::from(slot.slices) / 7.0;
        let Some(pod) = slot.holder.and_then(|id| pods.get(&id)) else {
            return Self { slot, holder: None, activity: 0.0, fb_used_mib: 0, share };
        };
        let nth = nth_device(pod, slot, node);
        // Replicas of a GPU share its memory, so that each may fill its part.
        let fb_mib = match node.spec.layout {
            Layout::TimeSliced { replicas } => slot.fb_mib / u64::from(replicas.max(1)),
            Layout::Whole | Layout::Mig(_) => slot.fb_mib,
        };
        Self {
            slot,
            holder: Some(PodName { key: pod.key.clone(), uid: pod.uid.clone() }),
            activity: slice_of_time(node, pod.mean_activity(nth, from, at)),
            fb_used_mib: pod.framebuffer_mib(fb_mib, at),
            share,
        }
    }
}

/// What a pod gets of a shared GPU: the driver gives every client an equal slice of time.
pub(crate) fn slice_of_time(node: &SimNode, activity: f64) -> f64 {
    match node.spec.layout {
        Layout::TimeSliced { replicas } => activity / f64::from(replicas.max(1)),
        Layout::Whole | Layout::Mig(_) => activity,
    }
}

/// Which of its pod's devices a slot is, counted from zero.
pub(crate) fn nth_device(pod: &SimPod, slot: &Slot, node: &SimNode) -> u32 {
    let held = pod.bound.iter().flat_map(|binding| &binding.slots);
    let at = held.take_while(|&&index| !std::ptr::eq(&node.slots[index], slot)).count();
    // No node has as many slots as 2^32.
    at as u32
}

struct Gpu<'a> {
    node: &'a SimNode,
    exporter: &'a ExporterSpec,
    sensors: (f64, i16),
}

impl Gpu<'_> {
    fn exclusive(&self, one: &Use<'_>, noise: &mut Chance) -> Reading {
        let shown = self.exporter.counter.show(one.activity, noise);
        let absent =
            one.slot.device.instance.is_some() && self.exporter.counter == Counter::GpuUtil;
        let reserved = self.node.spec.shape.fb_reserved_mib * u64::from(one.slot.slices) / 7;
        Reading {
            holder: one.holder.clone(),
            ..self.reading(one, shown, absent, reserved, one.slot.fb_mib)
        }
    }

    /// A GPU whose replicas several pods hold. Without a line per pod the exporter names one of
    /// them, the last that it came across, as if it were alone.
    fn shared(&self, held: &[Use<'_>], readings: &mut Vec<Reading>, noise: &mut Chance) {
        let Some(first) = held.first() else { return };
        let activity: f64 = held.iter().map(|one| one.activity).sum();
        let fb_used_mib = held.iter().map(|one| one.fb_used_mib).sum();
        let whole = Use { activity: activity.min(1.0), fb_used_mib, holder: None, ..*first };
        let shown = self.exporter.counter.show(whole.activity, noise);
        let (fb, reserved) = (first.slot.fb_mib, self.node.spec.shape.fb_reserved_mib);
        let device = self.reading(&whole, shown, false, reserved, fb);
        let parts: Vec<&Use<'_>> = held.iter().filter(|one| one.holder.is_some()).collect();
        if !self.exporter.virtual_gpus {
            let named = parts.last().and_then(|one| one.holder.clone());
            readings.push(Reading { holder: named, ..device });
            return;
        }
        let scope =
            if parts.is_empty() { SampleScope::Exclusive } else { SampleScope::SharedDevice };
        for one in parts {
            let shown = Counter::GpuUtil.show(one.activity, noise);
            readings.push(Reading {
                scope: SampleScope::SharedPart,
                holder: one.holder.clone(),
                replica: one.slot.replica,
                activity: Some(shown),
                fb_used_mib: one.fb_used_mib,
                ..device.clone()
            });
        }
        readings.push(Reading { scope, ..device });
    }

    fn ailment(&self, gpu: u32) -> Option<Ailment> {
        self.node.spec.ailments.iter().find(|(index, _)| *index == gpu).map(|(_, ailment)| *ailment)
    }

    fn reading(
        &self,
        one: &Use<'_>,
        shown: f64,
        absent: bool,
        fb_reserved_mib: u64,
        fb_mib: u64,
    ) -> Reading {
        let usable = fb_mib.saturating_sub(fb_reserved_mib);
        let fb_used_mib = one.fb_used_mib.min(usable);
        Reading {
            gpu: one.slot.gpu,
            device: Device {
                uuid: one.slot.device.uuid.clone(),
                instance: one.slot.device.instance.clone(),
            },
            scope: SampleScope::Exclusive,
            holder: None,
            replica: one.slot.replica,
            activity: (!absent).then_some(shown),
            device_activity: (!absent).then_some(shown),
            fb_used_mib,
            // Nothing can be used beyond what is usable, by the line above.
            fb_free_mib: usable - fb_used_mib,
            fb_reserved_mib,
            watts: self.sensors.0,
            celsius: self.sensors.1,
            ailment: self.ailment(one.slot.gpu),
        }
    }
}
