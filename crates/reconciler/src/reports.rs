//! Several exporters that report one device: which of them counts, and whether they agree.

use std::sync::Arc;

use gpu_autoscaler_analysis::{self as analysis, Reading, Window};
use gpu_autoscaler_model::{GpuSample, SampleScope, Timestamp, Uid};

use crate::Policy;
use crate::state::{DeviceEntry, DeviceReading};

/// Exporters of one device that are compared; further ones are passed over.
const EXPORTERS_MAX: usize = 4;

/// After so many readings of another exporter the one that counted is taken to be gone: sooner than
/// after a gap, so that an exporter that restarts under another address leaves none.
const READINGS_TO_LEAD: u32 = 3;

/// What each of several exporters reported of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Vec<Report>);

#[derive(Clone, Debug)]
struct Report {
    exporter: Arc<str>,
    window: Window,
    /// Its readings since the last of the exporter that counts.
    since_leader: u32,
}

/// What a sample is to the device that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of the exporter that counts.
    Leads,
    /// Of one that counts from now on; the readings so far agree with its own.
    TakesOver,
    /// Of one that counts from now on, in place of one that said something else.
    Replaces,
    /// Of another one: compared, but not counted.
    Seconds,
}

/// Notes which exporter a sample is of. The first one counts, until it falls silent, or where it
/// names no pod and another one does.
pub(crate) fn note(
    entry: &mut DeviceEntry,
    sample: &GpuSample,
    holder: Option<&Uid>,
    policy: &Policy,
) -> Part {
    let leads = sample.exporter == entry.last.exporter;
    if leads && entry.reports.is_none() {
        return Part::Leads;
    }
    let gap_max = policy.waste.gap_max;
    let named = || entry.holders.values().any(|at| sample.at.since(*at) <= gap_max);
    let names = holder.is_some() && !named();
    let silent = sample.at.since(entry.last.at) > gap_max;
    let leader = Arc::clone(&entry.last.exporter);
    let reports = entry.reports.get_or_insert_with(|| Box::new(Reports::of(&entry.last, policy)));
    reports.take(&DeviceReading::of(sample), &leader, policy);
    if leads {
        if reports.0.len() < 2 {
            entry.reports = None;
        }
        return Part::Leads;
    }
    let since = reports.0.iter().find(|report| report.exporter == sample.exporter);
    let overdue = since.is_some_and(|report| report.since_leader >= READINGS_TO_LEAD);
    if !(names || silent || overdue) {
        return Part::Seconds;
    }
    let contradicted = reports.contradictors(&leader).any(|name| *name == sample.exporter);
    if silent {
        entry.reports = None;
    }
    entry.last.renew(sample);
    if contradicted { Part::Replaces } else { Part::TakesOver }
}

/// The exporters that contradict each other about a device, the one that counts first; empty where
/// all that are not silent agree.
pub(crate) fn disagreement(entry: &DeviceEntry, now: Timestamp, policy: &Policy) -> Vec<Arc<str>> {
    let Some(reports) = &entry.reports else { return Vec::new() };
    let leader = &entry.last.exporter;
    let fresh = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) <= policy.waste.gap_max);
    if !fresh(reports.window(leader).and_then(Window::last)) {
        return Vec::new();
    }
    let others = reports.contradictors(leader);
    let mut between: Vec<Arc<str>> = others
        .filter(|other| fresh(reports.window(other).and_then(Window::last)))
        .cloned()
        .collect();
    if !between.is_empty() {
        between.insert(0, Arc::clone(leader));
    }
    between
}

impl Reports {
    /// Of the one exporter that reported so far.
    fn of(last: &DeviceReading, policy: &Policy) -> Self {
        let mut this = Self::default();
        this.take(last, &last.exporter, policy);
        this
    }

    fn take(&mut self, sample: &DeviceReading, leader: &Arc<str>, policy: &Policy) {
        // A pod's part of a shared device says nothing about the device.
        if sample.scope == SampleScope::SharedPart {
            return;
        }
        let Some(activity) = sample.activity else { return };
        let (at, fb_used, fb_total) = (sample.at, sample.fb_used, sample.fb_total);
        let known = self.0.iter().position(|report| report.exporter == sample.exporter);
        let place = match known {
            Some(place) => place,
            None if self.0.len() < EXPORTERS_MAX => {
                self.0.push(Report {
                    exporter: Arc::clone(&sample.exporter),
                    window: Window::default(),
                    since_leader: 0,
                });
                self.0.len() - 1
            }
            None => return,
        };
        self.0[place].window.push(Reading { at, activity, fb_used, fb_total }, &policy.waste);
        self.0[place].since_leader += 1;
        if sample.exporter == *leader {
            self.0.iter_mut().for_each(|report| report.since_leader = 0);
        }
        let gap_max = policy.waste.gap_max;
        let speaks = |report: &Report| report.window.last().is_some_and(|l| at.since(l) <= gap_max);
        self.0.retain(|report| report.exporter == *leader || speaks(report));
    }

    fn window(&self, exporter: &Arc<str>) -> Option<&Window> {
        self.0.iter().find(|report| report.exporter == *exporter).map(|report| &report.window)
    }

    /// The exporters that say something else than `leader`.
    fn contradictors<'r>(&'r self, leader: &Arc<str>) -> impl Iterator<Item = &'r Arc<str>> {
        let own = self.window(leader);
        let others = self
            .0
            .iter()
            .filter(move |report| own.is_some_and(|own| analysis::contradict(own, &report.window)));
        others.map(|report| &report.exporter)
    }
}
