//! The API server of the world: versions, watches, the objects that we write, and what becomes of
//! our effects.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu_autoscaler_model::{
    Action, AnnouncedEvent, Announcement, Change, Condition, Delta, Effect, GpuSample, Node,
    NodeName, ObjectKey, Pod, PolicyKind, PolicyObject, Receipt, ReceiptResult, ResourceVersion,
    Scrape, Timestamp, Uid,
};

use crate::node::draw_uuid;
use crate::{Chance, Faults};

/// For how long an Event is kept.
///
/// Source: kube-apiserver's `--event-ttl`, one hour unless said otherwise.
pub const EVENT_TTL: Duration = Duration::from_secs(3_600);

/// A change that a watch will tell of.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Node(Change<Node, NodeName>),
    Pod(Change<Pod, Uid>),
    Policy(Change<PolicyObject, Uid>),
    Event(Change<AnnouncedEvent, Uid>),
}

#[expect(clippy::large_enum_variant, reason = "most messages are the largest kind: pods")]
enum Message {
    Watched(Sent),
    Scraped(Vec<GpuSample>, Scrape),
    Answered(Receipt),
}

/// What the server does of its own accord, or others do to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chore {
    /// All watches break off, to be resumed.
    BreakWatches,
    /// Somebody else writes to one of our resources.
    ForeignWrite,
    /// Old Events go.
    ExpireEvents,
}

/// An Event in the store of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The object.
    pub object: AnnouncedEvent,
    /// What it says.
    pub announcement: Announcement,
    /// When it was created.
    pub created: Timestamp,
}

pub(crate) struct ApiServer {
    faults: Faults,
    chance: Chance,
    version: u64,
    policies: Vec<PolicyObject>,
    events: BTreeMap<ObjectKey, StoredEvent>,
    /// How often an Event of each name was created.
    created: BTreeMap<ObjectKey, u32>,
    outbox: BTreeMap<(Timestamp, u64), Message>,
    sent: u64,
    /// Watches deliver nothing before, and never out of order.
    watches_from: Timestamp,
}

impl ApiServer {
    pub(crate) fn new(seed: u64, start: Timestamp, faults: Faults) -> Self {
        let mut server = Self {
            faults,
            chance: Chance::stream(seed, "api"),
            version: 1_000,
            policies: Vec::new(),
            events: BTreeMap::new(),
            created: BTreeMap::new(),
            outbox: BTreeMap::new(),
            sent: 0,
            watches_from: start,
        };
        let policy = PolicyObject {
            uid: Uid::new(draw_uuid(&mut server.chance)),
            kind: PolicyKind::AutoscalingPolicy,
            key: ObjectKey::new("", "default"),
            resource_version: ResourceVersion::new("1000"),
            generation: 1,
            enabled: false,
            dry_run: false,
            faults: Vec::new(),
            conditions: Vec::new(),
        };
        server.send(start, Sent::Policy(Change::Upsert(policy.clone())));
        server.policies.push(policy);
        server
    }

    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn heal(&mut self) {
        self.faults = Faults::NONE;
    }

    pub(crate) fn policies(&self) -> &[PolicyObject] {
        &self.policies
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &StoredEvent> {
        self.events.values()
    }

    pub(crate) fn created(&self) -> &BTreeMap<ObjectKey, u32> {
        &self.created
    }

    /// Chores and when each is due first.
    pub(crate) fn chores(&mut self) -> Vec<(Duration, Chore)> {
        let mut chores = vec![(Duration::from_secs(60), Chore::ExpireEvents)];
        if let Some(every) = self.faults.watch_outage_every {
            chores.push((self.chance.wait(every), Chore::BreakWatches));
        }
        if let Some(every) = self.faults.foreign_write_every {
            chores.push((self.chance.wait(every), Chore::ForeignWrite));
        }
        chores
    }

    /// Does a chore and says when it is due again; `None` for never.
    pub(crate) fn perform_chore(
        &mut self,
        chore: Chore,
        now: Timestamp,
    ) -> Option<(Timestamp, Chore)> {
        let every = match chore {
            Chore::ExpireEvents => {
                self.expire_events(now);
                return Some((now.after(Duration::from_secs(60)), chore));
            }
            Chore::BreakWatches => {
                let every = self.faults.watch_outage_every?;
                let lasts = self.chance.span(Duration::from_secs(1), Duration::from_secs(60));
                self.watches_from = self.watches_from.max(now.after(lasts));
                every
            }
            Chore::ForeignWrite => {
                let every = self.faults.foreign_write_every?;
                let index = self.chance.below(self.policies.len());
                let version = self.next_version();
                let policy = &mut self.policies[index];
                policy.resource_version = ResourceVersion::new(version.to_string());
                let told = Sent::Policy(Change::Upsert(policy.clone()));
                self.send(now, told);
                every
            }
        };
        Some((now.after(self.chance.wait(every)), chore))
    }

    fn expire_events(&mut self, now: Timestamp) {
        let old = self.events.values().filter(|event| now.since(event.created) >= EVENT_TTL);
        let old: Vec<AnnouncedEvent> = old.map(|event| event.object.clone()).collect();
        for event in old {
            self.events.remove(&event.key);
            self.send(now, Sent::Event(Change::Delete(event.uid)));
        }
    }

    /// Tells the watches, after the time that this takes.
    pub(crate) fn send(&mut self, now: Timestamp, change: Sent) {
        let delay = self.chance.span(Duration::from_millis(2), Duration::from_millis(30));
        self.watches_from = self.watches_from.max(now.after(delay));
        let at = self.watches_from;
        if self.chance.happens(self.faults.watch_repeats) {
            self.put(at, Message::Watched(change.clone()));
        }
        self.put(at, Message::Watched(change));
    }

    pub(crate) fn deliver_scrape(
        &mut self,
        at: Timestamp,
        samples: Vec<GpuSample>,
        scrape: Scrape,
    ) {
        self.put(at, Message::Scraped(samples, scrape));
    }

    fn put(&mut self, at: Timestamp, message: Message) {
        self.sent += 1;
        self.outbox.insert((at, self.sent), message);
    }

    pub(crate) fn next_delivery(&self) -> Option<Timestamp> {
        self.outbox.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn deliver(&mut self, now: Timestamp) -> Delta {
        let mut delta = Delta::default();
        while let Some(entry) = self.outbox.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                Message::Watched(Sent::Node(change)) => delta.nodes.push(change),
                Message::Watched(Sent::Pod(change)) => delta.pods.push(change),
                Message::Watched(Sent::Policy(change)) => delta.policies.push(change),
                Message::Watched(Sent::Event(change)) => delta.events.push(change),
                Message::Scraped(samples, scrape) => {
                    delta.samples.extend(samples);
                    delta.scrapes.push(scrape);
                }
                Message::Answered(receipt) => delta.receipts.push(receipt),
            }
        }
        delta
    }

    /// An effect arrives, or is lost on its way; its receipt is put in the post.
    pub(crate) fn receive(&mut self, effect: &Effect, now: Timestamp) {
        let lost = self.chance.happens(self.faults.request_lost);
        let silent = self.chance.happens(self.faults.answer_lost);
        let missing = self.chance.happens(self.faults.receipt_missing);
        let twice = self.chance.happens(self.faults.receipt_twice);
        let answers_in = self.chance.span(Duration::from_millis(2), Duration::from_millis(40));
        let timeout = Duration::from_secs(10);
        let done = if lost { None } else { Some(self.apply(&effect.action, now)) };
        let (after, result) = match done {
            Some(result) if !silent => (answers_in, result),
            _ => (timeout, ReceiptResult::Unanswered { why: "no answer within 10 s".into() }),
        };
        if missing {
            return;
        }
        let at = now.after(after);
        let receipt = Receipt { effect: effect.id, at, result };
        if twice {
            let again = at.after(Duration::from_secs(2));
            self.put(again, Message::Answered(receipt.clone()));
        }
        self.put(at, Message::Answered(receipt));
    }

    fn apply(&mut self, action: &Action, now: Timestamp) -> ReceiptResult {
        match action {
            Action::Announce(announcement) => self.create_event(announcement, now),
            Action::SetConditions { kind, key, uid, if_version, conditions } => {
                self.set_conditions((*kind, key, uid), if_version, conditions, now)
            }
        }
    }

    /// As the API server does it: the name decides, and nobody checks whether the pod exists.
    fn create_event(&mut self, announcement: &Announcement, now: Timestamp) -> ReceiptResult {
        let key = announcement.event.clone();
        if self.events.contains_key(&key) {
            return ReceiptResult::AlreadyApplied;
        }
        let object = AnnouncedEvent {
            uid: Uid::new(draw_uuid(&mut self.chance)),
            key: key.clone(),
            at: Some(announcement.at),
        };
        self.send(now, Sent::Event(Change::Upsert(object.clone())));
        *self.created.entry(key.clone()).or_insert(0) += 1;
        let announcement = announcement.clone();
        self.events.insert(key, StoredEvent { object, announcement, created: now });
        ReceiptResult::Applied
    }

    fn set_conditions(
        &mut self,
        (kind, key, uid): (PolicyKind, &ObjectKey, &Uid),
        if_version: &ResourceVersion,
        conditions: &[Condition],
        now: Timestamp,
    ) -> ReceiptResult {
        let version = ResourceVersion::new(self.next_version().to_string());
        let found =
            self.policies.iter_mut().find(|policy| policy.kind == kind && policy.key == *key);
        let Some(policy) = found.filter(|policy| policy.uid == *uid) else {
            return ReceiptResult::Gone;
        };
        if policy.resource_version != *if_version {
            return ReceiptResult::Conflict;
        }
        policy.resource_version = version;
        for condition in conditions {
            match policy.conditions.iter_mut().find(|one| one.kind == condition.kind) {
                Some(known) => *known = condition.clone(),
                None => policy.conditions.push(condition.clone()),
            }
        }
        let told = Sent::Policy(Change::Upsert(policy.clone()));
        self.send(now, told);
        ReceiptResult::Applied
    }
}
