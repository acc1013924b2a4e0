//! The world: virtual time, what happens in it, and what an observer is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{
    Change, Delta, Effect, FindingKind, GpuSample, GpuUuid, NodeName, ObjectKey, PodPhase,
    PolicyObject, Scrape, ScrapeCounts, ScrapeFailure, Timestamp, Uid,
};

use crate::api::{ApiServer, Chore, Sent, StoredEvent};
use crate::exporter::{self, Reading};
use crate::node::{SimNode, draw_uuid};
use crate::pod::{Binding, PodId, SimPod};
use crate::reading;
use crate::spec::{ExporterSpec, WorldSpec};
use crate::truth::{self, Rule, Truth};
use crate::workload::{Arrival, Job, Snag, Source};
use crate::{Chance, Faults};

/// A seeded cluster in virtual time.
///
/// It is driven from outside: [`World::advance`] lets time pass, [`World::observe`] hands over
/// what has arrived until then, [`World::perform`] takes the effects. Two worlds of equal
/// specification that are driven alike are alike.
pub struct World {
    seed: u64,
    start: Timestamp,
    now: Timestamp,
    faults: Faults,
    healed: Option<Timestamp>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) pods: BTreeMap<PodId, SimPod>,
    pods_created: u64,
    waiting: Vec<PodId>,
    source: Source,
    pub(crate) api: ApiServer,
    /// What will happen, by time and then in the order in which it was decided.
    queue: BTreeMap<(Timestamp, u64), Event>,
    decided: u64,
    chance: Streams,
}

/// One stream of chance for each part, so that a fault more in one leaves the others alone.
struct Streams {
    pods: Chance,
    scrapes: Chance,
    effects: Chance,
}

enum Event {
    /// The next pod of the workload is created.
    Arrive(Box<Arrival>),
    /// A pod's containers start.
    Start(PodId),
    /// A pod's containers end.
    Finish(PodId),
    /// A pod's object goes.
    Remove(PodId),
    /// An exporter reads its devices and is scraped.
    Collect(usize),
    /// An exporter dies.
    Die(usize),
    /// The API server does something of its own accord.
    Api(Chore),
    /// One of our effects reaches the API server.
    Receive(Box<Effect>),
}

impl World {
    /// A world at its start: all nodes and the pods that run already are there.
    pub fn new(spec: &WorldSpec) -> Self {
        let nodes: Vec<SimNode> =
            spec.nodes.iter().map(|node| SimNode::new(node, spec.seed, spec.start)).collect();
        let source = Source::new(&spec.workload, spec.seed, &nodes);
        let mut world = Self {
            seed: spec.seed,
            start: spec.start,
            now: spec.start,
            faults: spec.faults,
            healed: None,
            nodes,
            pods: BTreeMap::new(),
            pods_created: 0,
            waiting: Vec::new(),
            source,
            api: ApiServer::new(spec.seed, spec.start, spec.faults),
            queue: BTreeMap::new(),
            decided: 0,
            chance: Streams {
                pods: Chance::stream(spec.seed, "pods"),
                scrapes: Chance::stream(spec.seed, "scrapes"),
                effects: Chance::stream(spec.seed, "effects"),
            },
        };
        for node in &world.nodes {
            world.api.send(spec.start, Sent::Node(Change::Upsert(node.object.clone())));
        }
        world.begin();
        world
    }

    fn begin(&mut self) {
        let mut chance = Chance::stream(self.seed, "begin");
        let skew_max = i64::try_from(self.faults.clock_skew_max.as_millis()).unwrap_or(i64::MAX);
        for index in 0..self.nodes.len() {
            let skew = chance.within(-1.0, 1.0) * skew_max as f64;
            // At most `skew_max` in size.
            self.nodes[index].skew_ms = skew as i64;
            if let Some(exporter) = self.nodes[index].spec.exporter {
                let first = chance.span(Duration::ZERO, exporter.period);
                self.decide(self.start.after(first), Event::Collect(index));
            }
        }
        for _ in 0..self.faults.exporters_die {
            let index = chance.below(self.nodes.len());
            let after = chance.span(Duration::from_secs(600), Duration::from_secs(7_200));
            self.decide(self.start.after(after), Event::Die(index));
        }
        for (after, chore) in self.api.chores() {
            self.decide(self.start.after(after), Event::Api(chore));
        }
        self.expect_arrival();
        self.advance(self.start);
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The first instant.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The next instant at which something happens or is delivered; `None` when nothing ever will.
    pub fn next_change(&self) -> Option<Timestamp> {
        let happens = self.queue.first_key_value().map(|((at, _), _)| *at);
        happens.into_iter().chain(self.api.next_delivery()).min()
    }

    /// Lets time pass until `to`; time never goes back.
    pub fn advance(&mut self, to: Timestamp) {
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > to {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(to);
    }

    /// What has been delivered since the last call.
    pub fn observe(&mut self) -> Delta {
        self.api.deliver(self.now)
    }

    /// Sends effects off; receipts come back through [`World::observe`], or not.
    pub fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let way = self.chance.effects.span(Duration::from_millis(1), Duration::from_millis(20));
            self.decide(self.now.after(way), Event::Receive(Box::new(effect)));
        }
    }

    /// All objects that exist, as a fresh list of each kind would show them.
    pub fn snapshot(&self) -> Delta {
        let object = |pod: &SimPod| {
            let node = pod.bound.as_ref().map(|one| self.nodes[one.node].object.name.clone());
            Change::Upsert(pod.object(node))
        };
        Delta {
            nodes: self.nodes.iter().map(|node| Change::Upsert(node.object.clone())).collect(),
            pods: self.pods.values().map(object).collect(),
            policies: self.api.policies().iter().cloned().map(Change::Upsert).collect(),
            events: self.api.events().map(|e| Change::Upsert(e.object.clone())).collect(),
            ..Delta::default()
        }
    }

    /// The Events that the API server holds.
    pub fn events(&self) -> impl Iterator<Item = &StoredEvent> {
        self.api.events()
    }

    /// How often an Event of each name was created since the start.
    pub fn events_created(&self) -> &BTreeMap<ObjectKey, u32> {
        self.api.created()
    }

    /// Our own resources as the API server holds them.
    pub fn policies(&self) -> &[PolicyObject] {
        self.api.policies()
    }

    /// Ends all faults: exporters come back, nothing more is lost. What is wrong already stays
    /// wrong until it is set right.
    pub fn heal(&mut self) {
        self.faults = Faults::NONE;
        self.healed = Some(self.now);
        self.api.heal();
        for node in &mut self.nodes {
            node.dead_since = None;
        }
    }

    /// The exporter of `node` dies now, and stays dead until the world heals.
    pub fn kill_exporter(&mut self, node: &NodeName) {
        let found = self.nodes.iter_mut().find(|one| one.object.name == *node);
        if let Some(found) = found {
            found.dead_since.get_or_insert(self.now);
        }
    }

    /// Gives a pod the uid that a real API server gave its twin there, as exporters name it.
    pub fn give_uid(&mut self, pod: &ObjectKey, uid: Uid) {
        if let Some(found) = self.pods.values_mut().find(|one| one.key == *pod) {
            found.uid = uid;
        }
    }

    /// The exporter of each node, `None` where there is none.
    pub fn exporters(&self) -> impl Iterator<Item = (&NodeName, Option<&ExporterSpec>)> {
        self.nodes.iter().map(|node| (&node.object.name, node.spec.exporter.as_ref()))
    }

    /// What is so, judged by `rule`.
    pub fn truth(&self, rule: &Rule) -> Truth {
        let active = self
            .pods
            .values()
            .filter(|pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Running));
        let mut pods: Vec<truth::PodTruth> = active
            .map(|pod| {
                let node = pod.bound.as_ref().map(|binding| &self.nodes[binding.node]);
                let since = node.and_then(|node| self.observed_since(node));
                truth::judge(pod, node, since, rule, self.now)
            })
            .collect();
        pods.sort_by(|a, b| a.pod.cmp(&b.pod).then_with(|| a.uid.cmp(&b.uid)));
        let unmeasured = self.nodes.iter().filter(|node| node.spec.exporter.is_none());
        Truth {
            at: self.now,
            rule: *rule,
            pods,
            unmeasured: unmeasured
                .map(|node| (node.object.name.clone(), node.spec.shape.gpus))
                .collect(),
            ailing: self.ailing(),
        }
    }

    /// GPUs that are not well on nodes whose exporter delivers.
    fn ailing(&self) -> Vec<(NodeName, GpuUuid, FindingKind)> {
        let nodes = self.nodes.iter().filter(|node| self.observed_since(node).is_some());
        nodes
            .flat_map(|node| {
                node.spec.ailments.iter().filter_map(|(gpu, ailment)| {
                    let slot = node.slots.iter().find(|slot| slot.gpu == *gpu)?;
                    Some((node.object.name.clone(), slot.device.uuid.clone(), ailment.kind()))
                })
            })
            .collect()
    }

    /// Since when the node's exporter has been delivering without a break; `None` when it does
    /// not.
    fn observed_since(&self, node: &SimNode) -> Option<Timestamp> {
        if node.dead_since.is_some() || node.spec.exporter.is_none() {
            return None;
        }
        Some(self.healed.unwrap_or(self.start))
    }

    /// What the exporter of `node` serves now; `None` when there is no such node, no exporter, or
    /// it is dead.
    ///
    /// Reading changes nothing: the same instant gives the same text. Profiling counters cover the
    /// exporter's period before it.
    pub fn exposition(&self, node: &NodeName) -> Option<String> {
        let (node, exporter, readings) = self.read(node)?;
        let name = node.object.name.as_str();
        Some(exporter::exposition(&readings, name, &exporter, node.spec.shape.product))
    }

    /// The same reading as [`World::exposition`], as whoever reads the text must understand it.
    pub fn samples(&self, node: &NodeName) -> Option<Vec<GpuSample>> {
        let (node, exporter, readings) = self.read(node)?;
        let (name, model) = (&node.object.name, node.object.gpu_model.as_ref());
        Some(exporter::samples(&readings, name, &exporter, model, self.now))
    }

    fn read(&self, node: &NodeName) -> Option<(&SimNode, ExporterSpec, Vec<Reading>)> {
        let node = self.nodes.iter().find(|one| one.object.name == *node)?;
        let exporter = node.spec.exporter.filter(|_| node.dead_since.is_none())?;
        let since = self.now.before(exporter.period);
        let mut noise = node.noise.clone();
        let readings = reading::read(node, &exporter, &self.pods, since, self.now, &mut noise);
        Some((node, exporter, readings))
    }

    fn decide(&mut self, at: Timestamp, event: Event) {
        self.decided += 1;
        self.queue.insert((at.max(self.now), self.decided), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(arrival) => {
                self.create(arrival.job, arrival.age);
                self.expect_arrival();
            }
            Event::Start(pod) => self.start_containers(pod),
            Event::Finish(pod) => self.finish(pod),
            Event::Remove(pod) => self.remove(pod),
            Event::Collect(node) => self.collect(node),
            Event::Die(node) => {
                if self.faults.exporters_die > 0 {
                    self.nodes[node].dead_since.get_or_insert(self.now);
                }
            }
            Event::Receive(effect) => self.api.receive(&effect, self.now),
            Event::Api(chore) => {
                if let Some(next) = self.api.perform_chore(chore, self.now) {
                    self.decide(next.0, Event::Api(next.1));
                }
            }
        }
    }

    fn expect_arrival(&mut self) {
        if let Some(arrival) = self.source.next() {
            let at = self.start.after(arrival.at);
            self.decide(at, Event::Arrive(Box::new(arrival)));
        }
    }

    fn create(&mut self, job: Job, age: Duration) {
        let id = PodId(self.pods_created);
        self.pods_created += 1;
        let chance = &mut self.chance.pods;
        let pod = SimPod {
            key: ObjectKey::new(job.namespace.clone(), job.name.clone()),
            uid: Uid::new(draw_uuid(chance)),
            owner_uid: Uid::new(draw_uuid(chance)),
            created: self.now.before(age),
            bound: None,
            running: None,
            phase: PodPhase::Pending,
            deleting: false,
            version: self.api.next_version(),
            job,
        };
        self.pods.insert(id, pod);
        self.tell(id);
        if !self.place(id, age) {
            self.waiting.push(id);
        }
    }

    /// First fit: the first node, in the order of the cluster, with enough free slots. Processors
    /// and memory are taken for plentiful, as they are on GPU machines.
    fn place(&mut self, id: PodId, age: Duration) -> bool {
        let job = &self.pods[&id].job;
        // Counts are those of a trace or of a table: far below 2^32.
        let count = job.count as usize;
        let fitting = self.nodes.iter().enumerate().find_map(|(index, node)| {
            let model = node.object.gpu_model.as_ref();
            let allowed = job.models.is_empty() || model.is_some_and(|m| job.models.contains(m));
            let slots = allowed.then(|| node.free_slots(&job.resource, count)).flatten()?;
            Some((index, slots))
        });
        let Some((node, slots)) = fitting else { return false };
        for &slot in &slots {
            self.nodes[node].slots[slot].holder = Some(id);
        }
        let pull = self.chance.pods.span(Duration::from_secs(2), Duration::from_secs(40));
        let (at, version) = (self.now.before(age), self.api.next_version());
        let pod = self.pods.get_mut(&id).expect("the caller created it");
        pod.bound = Some(Binding { node, slots, at });
        pod.version = version;
        if let Some(snag) = pod.job.snag {
            // Its containers never compute anything.
            if snag == Snag::CrashLoop {
                pod.phase = PodPhase::Running;
            }
            self.tell(id);
        } else if age.is_zero() {
            self.tell(id);
            self.decide(self.now.after(pull), Event::Start(id));
        } else {
            pod.running = Some(at);
            pod.phase = PodPhase::Running;
            let left = pod.job.life.saturating_sub(age);
            self.tell(id);
            self.decide(self.now.after(left), Event::Finish(id));
        }
        true
    }

    fn start_containers(&mut self, id: PodId) {
        let (now, version) = (self.now, self.api.next_version());
        let Some(pod) = self.pods.get_mut(&id) else { return };
        pod.running = Some(now);
        pod.phase = PodPhase::Running;
        pod.version = version;
        let ends = now.after(pod.job.life);
        self.tell(id);
        self.decide(ends, Event::Finish(id));
    }

    fn finish(&mut self, id: PodId) {
        let deleted = self.chance.pods.happens(0.3);
        let failed = self.chance.pods.happens(0.1);
        let keeps = self.chance.pods.span(Duration::from_secs(20), Duration::from_secs(600));
        let version = self.api.next_version();
        let Some(pod) = self.pods.get_mut(&id) else { return };
        // A notebook or service is deleted, a job ends by itself.
        pod.deleting = deleted || pod.job.owner_kind != "Job";
        if pod.deleting {
            pod.version = version;
            self.tell(id);
            self.decide(self.now.after(keeps.min(Duration::from_secs(30))), Event::Remove(id));
            return;
        }
        pod.phase = if failed { PodPhase::Failed } else { PodPhase::Succeeded };
        pod.version = version;
        self.free(id);
        self.tell(id);
        self.decide(self.now.after(keeps), Event::Remove(id));
        self.place_waiting();
    }

    fn remove(&mut self, id: PodId) {
        self.free(id);
        let Some(pod) = self.pods.remove(&id) else { return };
        self.api.send(self.now, Sent::Pod(Change::Delete(pod.uid)));
        if pod.job.successors > 0 {
            let chance = &mut self.chance.pods;
            let loads =
                [crate::Load::Training, crate::Load::IdleNotebook, crate::Load::FivePercent];
            let load = loads[chance.below(loads.len())];
            let successor = Job {
                curve: crate::Curve::draw(load, pod.job.count, chance),
                life: crate::workload::draw_life(load, chance).max(Duration::from_secs(900)),
                successors: pod.job.successors - 1,
                ..pod.job
            };
            self.create(successor, Duration::ZERO);
        }
        self.place_waiting();
    }

    fn free(&mut self, id: PodId) {
        let binding = self.pods.get_mut(&id).and_then(|pod| pod.bound.as_ref());
        let Some(Binding { node, slots, .. }) = binding.cloned() else { return };
        for slot in slots {
            let holder = &mut self.nodes[node].slots[slot].holder;
            if *holder == Some(id) {
                *holder = None;
            }
        }
    }

    fn place_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for id in waiting {
            if !self.place(id, Duration::ZERO) {
                self.waiting.push(id);
            }
        }
    }

    fn tell(&mut self, id: PodId) {
        let pod = &self.pods[&id];
        let node = pod.bound.as_ref().map(|binding| self.nodes[binding.node].object.name.clone());
        self.api.send(self.now, Sent::Pod(Change::Upsert(pod.object(node))));
    }

    fn collect(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(exporter) = node.spec.exporter else { return };
        if node.dead_since.is_some() {
            let failed = failure(&node.target, self.now, "connection refused");
            self.api.deliver_scrape(self.now, Vec::new(), failed);
            return self.decide(self.now.after(exporter.period), Event::Collect(index));
        }
        // The last reading may be long ago when the exporter was dead.
        let period = self.now.before(exporter.period);
        let since = node.collected.map_or(period, |last| last.max(period));
        let mut noise = node.noise.clone();
        let readings = reading::read(node, &exporter, &self.pods, since, self.now, &mut noise);
        let at = skewed(self.now, node.skew_ms);
        let (name, model) = (&node.object.name, node.object.gpu_model.as_ref());
        let samples = exporter::samples(&readings, name, &exporter, model, at);
        let (target, now) = (Arc::clone(&node.target), self.now);
        self.nodes[index].noise = noise;
        self.nodes[index].collected = Some(now);
        self.decide(now.after(exporter.period), Event::Collect(index));

        let (faults, chance) = (self.faults, &mut self.chance.scrapes);
        let lost = chance.happens(faults.scrape_lost);
        let late = chance.happens(faults.scrape_late);
        let twice = chance.happens(faults.scrape_twice);
        let delay = chance.span(Duration::from_secs(5), Duration::from_secs(45));
        let usual = chance.span(Duration::from_millis(5), Duration::from_millis(80));
        if lost {
            let failed = failure(&target, now, "no answer within 10 s");
            return self.api.deliver_scrape(now.after(Duration::from_secs(10)), Vec::new(), failed);
        }
        let arrives = now.after(if late { delay } else { usual });
        // A node has fewer devices than 2^32.
        let counts = ScrapeCounts { samples: samples.len() as u32, dropped: 0 };
        let scrape = Scrape { at, target, result: Ok(counts) };
        if twice {
            let again = arrives.after(Duration::from_secs(1));
            self.api.deliver_scrape(again, samples.clone(), scrape.clone());
        }
        self.api.deliver_scrape(arrives, samples, scrape);
    }
}

fn failure(target: &Arc<str>, at: Timestamp, why: &str) -> Scrape {
    Scrape { at, target: Arc::clone(target), result: Err(ScrapeFailure { why: why.into() }) }
}

fn skewed(at: Timestamp, skew_ms: i64) -> Timestamp {
    let size = Duration::from_millis(skew_ms.unsigned_abs());
    if skew_ms < 0 { at.before(size) } else { at.after(size) }
}
