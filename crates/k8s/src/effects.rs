//! Performs `model::Effect`s, each under its precondition.

mod rate;

use std::time::Duration;

use gpu_autoscaler_model::{
    Action, Announcement, Condition, Effect, ObjectKey, PolicyKind, Receipt, ReceiptResult,
    ResourceVersion, Timestamp, Uid,
};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::REPORTING_COMPONENT;
use crate::api::{Api, ApiError, Content, REQUEST_TIME_MAX};
use crate::decode::clip;
use crate::election::Leadership;
use crate::watch::collection_of;
pub use rate::WriteRate;

/// Longest message of an Event, in bytes; the API server refuses more.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Where an effect is on its way; a test may end the process at any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything is decided, nothing is sent.
    BeforeWrite,
    /// The server has answered, nobody has read it.
    AfterWrite,
    /// The answer is read, the receipt not yet handed over.
    BeforeReceipt,
}

/// An effect, performed.
#[derive(Clone, Debug, PartialEq)]
pub struct Performed {
    /// What became of it.
    pub receipt: Receipt,
    /// How long it waited for its turn.
    pub waited: Duration,
}

/// Performs effects one after another, as long as this replica leads.
pub struct Performer {
    api: Api,
    leadership: Leadership,
    /// This replica, as Events name it.
    instance: String,
    rate: WriteRate,
    on_step: fn(Step),
}

impl Performer {
    /// As `instance`, at most as fast as `rate`.
    pub fn new(api: Api, leadership: Leadership, instance: String, rate: WriteRate) -> Self {
        let instance = clip(&instance, 128);
        Self { api, leadership, instance, rate, on_step: |_| {} }
    }

    /// Calls `on_step` at each step of each effect.
    pub fn with_steps(mut self, on_step: fn(Step)) -> Self {
        self.on_step = on_step;
        self
    }

    /// Performs `effect`. `now` gives the time of the receipt when it is written.
    pub async fn perform(&mut self, effect: &Effect, now: impl Fn() -> Timestamp) -> Performed {
        // Who does not lead takes nobody's turn.
        let waited = match self.leadership.may_write() {
            Some(_) => self.rate.turn().await,
            None => Duration::ZERO,
        };
        let result = match &effect.action {
            Action::Announce(announcement) => self.announce(announcement).await,
            Action::SetConditions { kind, key, uid, if_version, conditions } => {
                let target = Target { kind: *kind, key, uid, if_version };
                self.set_conditions(target, conditions, now()).await
            }
        };
        let result = result.unwrap_or_else(|not_sent| not_sent);
        (self.on_step)(Step::BeforeReceipt);
        log(effect, &result);
        Performed { receipt: Receipt { effect: effect.id, at: now(), result }, waited }
    }

    async fn announce(
        &mut self,
        announcement: &Announcement,
    ) -> Result<ReceiptResult, ReceiptResult> {
        let namespace = &announcement.event.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let event = event(announcement, &self.instance);
        match self.write(Method::POST, &path, Content::Json(&event)).await? {
            Ok(_) => Ok(ReceiptResult::Applied),
            Err(ApiError::Status { status, .. }) if status.reason == "AlreadyExists" => {
                Ok(ReceiptResult::AlreadyApplied)
            }
            // The pod's namespace ends, and the pod with it.
            Err(ApiError::Status { status, .. }) if status.has_cause("NamespaceTerminating") => {
                Ok(ReceiptResult::Gone)
            }
            Err(error) => Ok(refused(&error)),
        }
    }

    async fn set_conditions(
        &mut self,
        target: Target<'_>,
        conditions: &[Condition],
        now: Timestamp,
    ) -> Result<ReceiptResult, ReceiptResult> {
        let path = format!("{}/{}", collection_of(target.kind), target.key.name);
        let object: Value = match self.api.get(&path).await {
            Ok(object) => object,
            Err(error) => return Ok(refused(&error)),
        };
        if object["metadata"]["uid"] != target.uid.as_str() {
            return Ok(ReceiptResult::Gone);
        }
        let status = merged(&object["status"], conditions, now);
        if status["conditions"] == object["status"]["conditions"] {
            return Ok(ReceiptResult::AlreadyApplied);
        }
        if object["metadata"]["resourceVersion"] != target.if_version.as_str() {
            return Ok(ReceiptResult::Conflict);
        }
        let patch = json!({
            "metadata": {
                "uid": target.uid.as_str(),
                "resourceVersion": target.if_version.as_str(),
            },
            "status": status,
        });
        let path = format!("{path}/status");
        match self.write(Method::PATCH, &path, Content::MergePatch(&patch)).await? {
            Ok(_) => Ok(ReceiptResult::Applied),
            Err(error) => Ok(refused(&error)),
        }
    }

    /// Sends one write, unless this replica leads no more.
    async fn write(
        &mut self,
        method: Method,
        path: &str,
        content: Content<'_>,
    ) -> Result<Result<bytes::Bytes, ApiError>, ReceiptResult> {
        (self.on_step)(Step::BeforeWrite);
        // Looked at last of all: this process may have been paused anywhere above.
        let Some(until) = self.leadership.may_write() else {
            return Err(ReceiptResult::NotSent);
        };
        let limit = until.saturating_duration_since(Instant::now()).min(REQUEST_TIME_MAX);
        let answer = self.api.request(method, path, content, limit).await;
        (self.on_step)(Step::AfterWrite);
        Ok(answer)
    }
}

/// The object whose status is written.
#[derive(Clone, Copy)]
struct Target<'a> {
    kind: PolicyKind,
    key: &'a ObjectKey,
    uid: &'a Uid,
    if_version: &'a ResourceVersion,
}

/// What an error of the server means for an effect.
fn refused(error: &ApiError) -> ReceiptResult {
    match error.code() {
        Some(404) => ReceiptResult::Gone,
        Some(409) => ReceiptResult::Conflict,
        // Credentials are renewed, overload passes, and so does whatever a 5xx stands for.
        Some(401 | 408 | 429 | 500..) | None => {
            ReceiptResult::Unanswered { why: error.chain().into() }
        }
        Some(_) => ReceiptResult::Refused { why: error.chain().into() },
    }
}

fn event(announcement: &Announcement, instance: &str) -> Value {
    let at = jiff::Timestamp::from_millisecond(announcement.at.as_millis()).unwrap_or_default();
    let seconds = format!("{at:.0}");
    let about = &announcement.about;
    let mut involved = json!({
        "apiVersion": "v1",
        "kind": about.kind.as_str(),
        "name": &*about.key.name,
        "uid": about.uid.as_str(),
    });
    if !about.key.namespace.is_empty() {
        involved["namespace"] = json!(&*about.key.namespace);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": &*announcement.event.name,
            "namespace": &*announcement.event.namespace,
        },
        "involvedObject": involved,
        "type": "Warning",
        "reason": announcement.reason.as_str(),
        "action": "Recommend",
        "message": clip(&announcement.message, MESSAGE_BYTES_MAX),
        "eventTime": format!("{at:.6}"),
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
        "reportingComponent": REPORTING_COMPONENT,
        "reportingInstance": instance,
        "source": {"component": REPORTING_COMPONENT},
    })
}

/// The status with `wanted` in it; every other condition and field stays as it is.
fn merged(status: &Value, wanted: &[Condition], now: Timestamp) -> Value {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut generation = status["observedGeneration"].as_i64();
    for condition in wanted {
        let holds = match condition.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let kind = condition.kind.as_str();
        let before = conditions.iter_mut().find(|before| before["type"] == kind);
        let since = before
            .as_ref()
            .filter(|before| before["status"] == holds)
            .and_then(|before| before["lastTransitionTime"].as_str())
            .map_or_else(|| seconds(now), str::to_owned);
        let written = json!({
            "type": kind,
            "status": holds,
            "reason": &*condition.reason,
            "message": clip(&condition.message, 32_768),
            "lastTransitionTime": since,
            "observedGeneration": condition.observed_generation,
        });
        match before {
            Some(before) => *before = written,
            None => conditions.push(written),
        }
        generation = generation.max(Some(condition.observed_generation));
    }
    json!({"conditions": conditions, "observedGeneration": generation})
}

fn seconds(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    format!("{at:.0}")
}

fn log(effect: &Effect, result: &ReceiptResult) {
    let (what, object) = match &effect.action {
        Action::Announce(announcement) => (announcement.reason.as_str(), &announcement.about.key),
        Action::SetConditions { kind, key, .. } => (kind.as_str(), key),
    };
    let id = effect.id;
    match result {
        ReceiptResult::Applied => info!(%id, what, %object, "apply effect"),
        ReceiptResult::AlreadyApplied
        | ReceiptResult::Conflict
        | ReceiptResult::Gone
        | ReceiptResult::NotSent => {
            info!(%id, what, %object, ?result, "effect not needed or out of date");
        }
        ReceiptResult::Refused { why } => warn!(%id, what, %object, %why, "effect refused"),
        ReceiptResult::Unanswered { why } => {
            warn!(%id, what, %object, %why, "effect not answered; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests;
