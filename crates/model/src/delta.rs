//! What changed since the last tick.

use std::sync::Arc;

use crate::{
    AnnouncedEvent, DeviceObject, DisruptionBudget, GpuSample, HistoryRecord, Node, NodeName, Pod,
    PolicyObject, Receipt, Scrape, StorageObject, Uid,
};

/// What an edge saw since the last tick, in the order in which it saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Nodes, by name: a node that is deleted and created anew within one tick is an upsert with
    /// another uid.
    pub nodes: Vec<Change<Node, NodeName>>,
    /// Pods, by uid.
    pub pods: Vec<Change<Pod, Uid>>,
    /// Disruption budgets, by uid.
    pub budgets: Vec<Change<DisruptionBudget, Uid>>,
    /// Claims, volumes and what provides them, by uid.
    pub storage: Vec<Change<StorageObject, Uid>>,
    /// Claims on devices, and what offers them, by uid.
    pub devices: Vec<Change<DeviceObject, Uid>>,
    /// Our own resources, by uid.
    pub policies: Vec<Change<PolicyObject, Uid>>,
    /// Our own Events, by uid.
    pub events: Vec<Change<AnnouncedEvent, Uid>>,
    /// Measurements.
    pub samples: Vec<GpuSample>,
    /// How reading them went.
    pub scrapes: Vec<Scrape>,
    /// What became of earlier effects.
    pub receipts: Vec<Receipt>,
    /// What was kept of the past: all records of the store, once, at start; or what was computed
    /// from older measurements. Of two records of one key the fuller one counts.
    pub history: Vec<HistoryRecord>,
    /// Everything that an edge cannot do now, when that changed.
    pub faults: Option<Vec<Fault>>,
    /// Whether older measurements are being read back, when that changed.
    pub backfill: Option<Backfill>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.pods.is_empty()
            && self.budgets.is_empty()
            && self.storage.is_empty()
            && self.devices.is_empty()
            && self.policies.is_empty()
            && self.events.is_empty()
            && self.samples.is_empty()
            && self.scrapes.is_empty()
            && self.receipts.is_empty()
            && self.history.is_empty()
            && self.faults.is_none()
            && self.backfill.is_none()
    }

    /// Adds what was seen after this.
    pub fn append(&mut self, more: Self) {
        // Named one by one: a new field that is not added here does not compile.
        let Self {
            nodes,
            pods,
            budgets,
            storage,
            devices,
            policies,
            events,
            samples,
            scrapes,
            receipts,
            faults,
            history,
            backfill,
        } = more;
        self.nodes.extend(nodes);
        self.pods.extend(pods);
        self.budgets.extend(budgets);
        self.storage.extend(storage);
        self.devices.extend(devices);
        self.policies.extend(policies);
        self.events.extend(events);
        self.samples.extend(samples);
        self.scrapes.extend(scrapes);
        self.receipts.extend(receipts);
        self.history.extend(history);
        if faults.is_some() {
            self.faults = faults;
        }
        if backfill.is_some() {
            self.backfill = backfill;
        }
    }
}

/// Who adds measurements to what is kept of the past. Only one does at any time, so that nothing is
/// counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backfill {
    /// Whoever reads older measurements back: the loop counts nothing meanwhile.
    UnderWay,
    /// The loop, from where what is kept ends.
    #[default]
    Ended,
}

/// Something that an edge cannot do: read a kind of object, telemetry, write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Which part of the controller, as its readiness probe names it.
    pub part: Arc<str>,
    /// In words.
    pub why: Arc<str>,
}

/// One object that came, changed, or went.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T, K> {
    /// It exists and looks like this.
    Upsert(T),
    /// It is gone.
    Delete(K),
}
