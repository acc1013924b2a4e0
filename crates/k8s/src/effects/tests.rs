use std::sync::atomic::{AtomicU32, Ordering};

use gpu_autoscaler_model::{ConditionKind, EffectId, Involved, InvolvedKind, Reason};

use super::*;
use crate::scripted::{Reply, Server};

fn performer(server: &Server, leadership: Leadership) -> Performer {
    Performer::new(server.api(), leadership, "replica-0".into(), WriteRate::new(1000.0, 1000))
}

fn effect(action: Action) -> Effect {
    Effect { id: EffectId::of(&["test"]), action, deadline: Timestamp::EPOCH }
}

fn announcement(message: &str) -> Effect {
    effect(Action::Announce(Announcement {
        event: ObjectKey::new("team", "train.idle"),
        about: Involved {
            kind: InvolvedKind::Pod,
            key: ObjectKey::new("team", "train"),
            uid: Uid::from("p-1"),
        },
        reason: Reason::GpuIdle,
        message: message.into(),
        at: "2026-11-22T05:00:00.25Z".parse().expect("valid"),
    }))
}

fn condition(holds: bool, reason: &str) -> Condition {
    Condition {
        kind: ConditionKind::Ready,
        holds: Some(holds),
        reason: reason.into(),
        message: "told".into(),
        observed_generation: 3,
    }
}

fn set(conditions: Vec<Condition>) -> Effect {
    effect(Action::SetConditions {
        kind: PolicyKind::AutoscalingPolicy,
        key: ObjectKey::new("", "prod"),
        uid: Uid::from("c-1"),
        if_version: ResourceVersion::from("7"),
        conditions,
    })
}

fn object(version: &str, conditions: Value) -> Reply {
    Reply::ok(json!({
        "metadata": {"uid": "c-1", "resourceVersion": version},
        "status": {"currentNodes": 4, "conditions": conditions},
    }))
}

async fn perform(server: &Server, effect: &Effect) -> ReceiptResult {
    let mut performer = performer(server, Leadership::alone("replica-0".into()));
    performer.perform(effect, || Timestamp::EPOCH).await.receipt.result
}

fn name_of(result: &ReceiptResult) -> &'static str {
    match result {
        ReceiptResult::Applied => "applied",
        ReceiptResult::AlreadyApplied => "already applied",
        ReceiptResult::Conflict => "conflict",
        ReceiptResult::Gone => "gone",
        ReceiptResult::Refused { .. } => "refused",
        ReceiptResult::Unanswered { .. } => "unanswered",
        ReceiptResult::NotSent => "not sent",
    }
}

#[tokio::test]
async fn an_event_says_everything_and_stays_within_the_servers_bounds() {
    let server = Server::new(vec![Reply::status(201, "{}")]);
    let result = perform(&server, &announcement(&"é".repeat(600))).await;
    assert_eq!(result, ReceiptResult::Applied);
    let (method, path, body) = &server.asked()[0];
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/api/v1/namespaces/team/events"));
    let body: Value = serde_json::from_str(body).expect("json");
    assert_eq!(body["message"].as_str().expect("text").len(), MESSAGE_BYTES_MAX);
    assert_eq!(body["eventTime"], "2026-11-22T05:00:00.250000Z");
    assert_eq!(body["lastTimestamp"], "2026-11-22T05:00:00Z");
    assert_eq!(body["involvedObject"]["uid"], "p-1");
    assert_eq!(body["reportingComponent"], REPORTING_COMPONENT);
}

#[tokio::test]
async fn every_answer_becomes_a_receipt() {
    for (status, reason, expected) in [
        (201, "", "applied"),
        (409, "AlreadyExists", "already applied"),
        (409, "Conflict", "conflict"),
        (404, "NotFound", "gone"),
        (403, "Forbidden", "refused"),
        (422, "Invalid", "refused"),
        (400, "BadRequest", "refused"),
        (401, "Unauthorized", "unanswered"),
        (429, "TooManyRequests", "unanswered"),
        (500, "InternalError", "unanswered"),
        (503, "ServiceUnavailable", "unanswered"),
    ] {
        let server = Server::new(vec![Reply::status(status, json!({"reason": reason}))]);
        let result = perform(&server, &announcement("idle")).await;
        assert_eq!(name_of(&result), expected, "{status} {reason}: {result:?}");
    }
    let ending = json!({"reason": "Forbidden", "details": {"causes": [
        {"reason": "NamespaceTerminating"},
    ]}});
    let server = Server::new(vec![Reply::status(403, ending)]);
    assert_eq!(perform(&server, &announcement("idle")).await, ReceiptResult::Gone);
}

#[tokio::test]
async fn conditions_are_merged_under_the_version_that_was_seen() {
    let before = json!([
        {"type": "Foreign", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t0"},
        {"type": "Ready", "status": "True", "reason": "Old", "message": "", "lastTransitionTime": "t1"},
    ]);
    let server = Server::new(vec![object("7", before), Reply::ok("{}")]);
    let result = perform(&server, &set(vec![condition(true, "New")])).await;
    assert_eq!(result, ReceiptResult::Applied);
    let (method, path, body) = &server.asked()[1];
    assert_eq!(method, "PATCH");
    assert!(path.ends_with("/autoscalingpolicies/prod/status"), "{path}");
    let body: Value = serde_json::from_str(body).expect("json");
    assert_eq!(body["metadata"], json!({"uid": "c-1", "resourceVersion": "7"}));
    assert_eq!(body["status"]["observedGeneration"], 3);
    assert_eq!(body["status"]["conditions"][0]["lastTransitionTime"], "t0");
    let ready = &body["status"]["conditions"][1];
    assert_eq!((&ready["reason"], &ready["lastTransitionTime"]), (&json!("New"), &json!("t1")));
    assert!(body["status"].get("currentNodes").is_none(), "fields of others are not written");
}

#[tokio::test]
async fn a_condition_that_flips_gets_a_new_transition_time() {
    let before = json!([
        {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t1"},
    ]);
    let server = Server::new(vec![object("7", before), Reply::ok("{}")]);
    perform(&server, &set(vec![condition(false, "R")])).await;
    let body: Value = serde_json::from_str(&server.asked()[1].2).expect("json");
    assert_eq!(body["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
}

#[tokio::test]
async fn what_stands_already_is_not_written_again_whatever_the_version() {
    let stands = json!([{
        "type": "Ready", "status": "True", "reason": "R", "message": "told",
        "lastTransitionTime": "t1", "observedGeneration": 3,
    }]);
    let server = Server::new(vec![object("9", stands)]);
    let result = perform(&server, &set(vec![condition(true, "R")])).await;
    assert_eq!(result, ReceiptResult::AlreadyApplied);
    assert_eq!(server.asked().len(), 1, "read, not written");
}

#[tokio::test]
async fn another_version_or_another_object_is_not_written() {
    let server = Server::new(vec![object("8", json!([]))]);
    assert_eq!(perform(&server, &set(vec![condition(true, "R")])).await, ReceiptResult::Conflict);
    let other = json!({"metadata": {"uid": "c-2", "resourceVersion": "7"}});
    let server = Server::new(vec![Reply::ok(other)]);
    assert_eq!(perform(&server, &set(vec![condition(true, "R")])).await, ReceiptResult::Gone);
    let server = Server::new(vec![
        object("7", json!([])),
        Reply::status(409, json!({"reason": "Conflict"})),
    ]);
    assert_eq!(perform(&server, &set(vec![condition(true, "R")])).await, ReceiptResult::Conflict);
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let (standing, seen) = tokio::sync::watch::channel(crate::election::Standing::default());
    let server = Server::new(vec![Reply::status(201, "{}")]);
    let mut performer = performer(&server, Leadership::new(seen));
    let past = Some(Instant::now());
    standing.send_modify(|standing| standing.valid_until = past);
    let result = performer.perform(&announcement("idle"), || Timestamp::EPOCH).await.receipt.result;
    assert_eq!(name_of(&result), "not sent");
    assert_eq!(server.asked(), [], "its right has run out");
    let future = Some(Instant::now() + Duration::from_secs(60));
    standing.send_modify(|standing| standing.valid_until = future);
    let result = performer.perform(&announcement("idle"), || Timestamp::EPOCH).await.receipt.result;
    assert_eq!(result, ReceiptResult::Applied);
}

#[tokio::test]
async fn every_step_is_passed_in_order() {
    static STEPS: AtomicU32 = AtomicU32::new(0);
    let server = Server::new(vec![Reply::status(201, "{}")]);
    let performer = performer(&server, Leadership::alone("replica-0".into()));
    let mut performer = performer.with_steps(|step| {
        let digit = match step {
            Step::BeforeWrite => 1,
            Step::AfterWrite => 2,
            Step::BeforeReceipt => 3,
        };
        STEPS.store(STEPS.load(Ordering::Relaxed) * 10 + digit, Ordering::Relaxed);
    });
    performer.perform(&announcement("idle"), || Timestamp::EPOCH).await;
    assert_eq!(STEPS.load(Ordering::Relaxed), 123);
}

#[test]
fn an_event_about_a_node_has_no_namespace_in_its_object() {
    let Effect { action: Action::Announce(mut told), .. } = announcement("hot") else {
        panic!("it announces")
    };
    told.event = ObjectKey::new("default", "node-1.sick");
    told.about = Involved {
        kind: InvolvedKind::Node,
        key: ObjectKey::new("", "node-1"),
        uid: Uid::from("n-1"),
    };
    let sent = event(&told, "replica-0");
    assert_eq!(sent["metadata"]["namespace"], "default");
    assert_eq!(
        sent["involvedObject"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "n-1"})
    );
}
