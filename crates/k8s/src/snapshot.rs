//! Everything that a cluster holds now, once: what a person asks who watches nothing.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::Delta;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::watch::{Resource, WatchSettings, Watcher};

/// Failures after which a kind is given up: one may be chance.
const BREAKS_MAX: u64 = 2;

/// Parts of lists that wait to be taken in.
const PARTS_MAX: usize = 1024;

/// What a cluster holds.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every object that could be read.
    pub delta: Delta,
    /// Kinds of which nothing, or not all, could be read, and why.
    pub missing: Vec<(Resource, Arc<str>)>,
    /// Kinds that the server does not know.
    pub absent: Vec<Resource>,
    /// Objects that could not be read: their kind, how many, and one of them in words.
    pub malformed: Vec<(Resource, usize, Arc<str>)>,
}

/// How the listing of one kind ended.
struct Listed {
    resource: Resource,
    missing: Option<Arc<str>>,
    absent: bool,
    malformed: Option<(usize, Arc<str>)>,
}

/// Lists everything that the loop wants to know, within `limit`.
pub async fn snapshot(api: &Api, limit: Duration) -> Snapshot {
    let (out, mut parts) = mpsc::channel(PARTS_MAX);
    // Both end with this function: whoever asked once watches no longer.
    let (mut watchers, mut waiting) = (JoinSet::new(), JoinSet::new());
    for resource in Resource::ALL {
        let settings = WatchSettings { request_time_max: limit, ..WatchSettings::DEFAULT };
        let (watcher, mut health) = Watcher::new(api.clone(), resource, settings, out.clone());
        watchers.spawn(watcher.run());
        waiting.spawn(async move {
            let done = health.wait_for(|h| h.synced || h.breaks >= BREAKS_MAX);
            let timed_out = tokio::time::timeout(limit, done).await.is_err();
            let health = health.borrow();
            let late = || format!("not listed within {} s", limit.as_secs()).into();
            Listed {
                resource,
                missing: (!health.synced).then(|| match &health.error {
                    Some(why) if !timed_out => Arc::clone(why),
                    _ => late(),
                }),
                absent: health.absent,
                malformed: health.malformed_first.clone().map(|one| (health.malformed, one)),
            }
        });
    }
    drop(out);
    let mut found = Snapshot::default();
    loop {
        tokio::select! {
            Some(part) = parts.recv() => found.delta.append(part.delta),
            listed = waiting.join_next() => match listed {
                // Nobody ends these tasks, and they do not panic.
                Some(listed) => found.note(listed.expect("it ends by itself")),
                None => break,
            },
        }
    }
    // A kind is synced when the last of it was sent, not when it was taken.
    while let Ok(part) = parts.try_recv() {
        found.delta.append(part.delta);
    }
    if found.missing.iter().any(|(resource, _)| matches!(resource, Resource::Storage(_))) {
        // A part of what says where volumes are would make the rest mean something else.
        found.delta.storage.clear();
    }
    if found.missing.iter().any(|(resource, _)| matches!(resource, Resource::Devices(_))) {
        found.delta.devices.clear();
    }
    found.missing.sort_by_key(|(resource, _)| *resource);
    found.absent.sort();
    found.malformed.sort_by_key(|(resource, ..)| *resource);
    found
}

impl Snapshot {
    fn note(&mut self, listed: Listed) {
        let resource = listed.resource;
        self.missing.extend(listed.missing.map(|why| (resource, why)));
        self.absent.extend(listed.absent.then_some(resource));
        self.malformed.extend(listed.malformed.map(|(count, one)| (resource, count, one)));
    }
}
