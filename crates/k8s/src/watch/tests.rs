use gpu_autoscaler_model::{Change, Delta};
use serde_json::{Value, json};

use super::*;
use crate::scripted::{Reply, Server};

const FAST: WatchSettings = WatchSettings {
    page_objects: 2,
    watch_time: Duration::from_secs(5),
    silence_max: Duration::from_secs(5),
    request_time_max: Duration::from_secs(5),
    backoff_first: Duration::from_millis(1),
    backoff_longest: Duration::from_millis(2),
    absent_pause: Duration::from_millis(1),
};

fn pod(uid: &str, version: u32) -> Value {
    json!({"metadata": {
        "name": format!("pod-{uid}"), "namespace": "team", "uid": uid,
        "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-22T05:00:00Z",
    }})
}

fn malformed(uid: &str, version: u32) -> Value {
    let mut pod = pod(uid, version);
    pod["status"] = json!({"phase": "Sleeping"});
    pod
}

fn page(version: u32, next: &str, items: &[Value]) -> Reply {
    Reply::ok(json!({
        "metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items,
    }))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u32, annotations: Value) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", json!({"metadata": metadata}))
}

fn no_streaming() -> Reply {
    Reply::status(422, json!({"kind": "Status", "reason": "Invalid", "message": "forbidden"}))
}

fn gone() -> Value {
    event("ERROR", json!({"kind": "Status", "code": 410, "reason": "Expired"}))
}

/// What was reported, `+` for an upsert and `-` for a deletion, until the server hangs.
async fn reported(resource: Resource, server: &Server) -> (String, WatchHealth) {
    let (out, mut parts) = mpsc::channel(16);
    let (watcher, health) = Watcher::new(server.api(), resource, FAST, out);
    let task = tokio::spawn(watcher.run());
    let mut log = String::new();
    // Nothing more comes once the script is used up: the last answer hangs.
    while let Ok(Some(part)) = tokio::time::timeout(Duration::from_millis(300), parts.recv()).await
    {
        log.push_str(&told(&part.delta));
    }
    let health = health.borrow().clone();
    task.abort();
    (log, health)
}

fn told(delta: &Delta) -> String {
    let pods = delta.pods.iter().map(|change| match change {
        Change::Upsert(pod) => format!("+{}@{} ", pod.uid, pod.resource_version),
        Change::Delete(uid) => format!("-{uid} "),
    });
    let nodes = delta.nodes.iter().map(|change| match change {
        Change::Upsert(node) => format!("+{}/{} ", node.name, node.uid),
        Change::Delete(name) => format!("-{name} "),
    });
    pods.chain(nodes).collect()
}

fn paths(server: &Server) -> Vec<String> {
    server.asked().into_iter().map(|(_, path, _)| path).collect()
}

#[tokio::test]
async fn a_streamed_list_is_followed_by_a_watch_from_its_bookmark() {
    let end = json!({"k8s.io/initial-events-end": "true"});
    let server = Server::new(vec![
        Reply::lines(&[event("ADDED", pod("a", 1)), event("ADDED", pod("b", 2)), bookmark(7, end)])
            .then_hang(),
        Reply::lines(&[event("DELETED", pod("a", 8)), event("MODIFIED", pod("b", 9))]).then_hang(),
    ]);
    let (log, health) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+a@1 +b@2 -a +b@9 ");
    assert!(health.synced && health.objects == 1 && health.lists == 1, "{health:?}");
    let paths = paths(&server);
    assert!(paths[0].contains("sendInitialEvents=true"), "{}", paths[0]);
    assert!(paths[1].contains("resourceVersion=7&"), "{}", paths[1]);
    assert!(paths[1].contains("status.phase%21%3DSucceeded"), "{}", paths[1]);
}

#[tokio::test]
async fn where_streaming_is_refused_the_list_is_paged() {
    let server = Server::new(vec![
        no_streaming(),
        page(5, "token=", &[pod("a", 1), pod("b", 2)]),
        page(5, "", &[pod("c", 3)]),
        Reply::lines(&[]).then_hang(),
    ]);
    let (log, health) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+a@1 +b@2 +c@3 ");
    assert!(health.synced && health.error.is_none(), "{health:?}");
    assert!(paths(&server)[2].ends_with("&limit=2&continue=token%3D"), "{:?}", paths(&server));
}

#[tokio::test]
async fn after_410_gone_a_new_list_reports_exactly_what_disappeared() {
    let server = Server::new(vec![
        no_streaming(),
        page(5, "", &[pod("a", 1), pod("b", 2), pod("c", 3)]),
        Reply::lines(&[event("MODIFIED", pod("a", 6)), gone()]),
        page(9, "", &[pod("a", 6), pod("c", 8)]),
        Reply::status(410, json!({"code": 410, "reason": "Expired"})),
        page(12, "", &[pod("c", 8)]),
        Reply::lines(&[]).then_hang(),
    ]);
    let (log, health) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+a@1 +b@2 +c@3 +a@6 +c@8 -b -a ");
    assert_eq!((health.lists, health.objects), (3, 1));
}

#[tokio::test]
async fn an_expired_continuation_begins_the_list_again() {
    let expired = || Reply::status(410, json!({"code": 410, "reason": "Expired"}));
    let server = Server::new(vec![
        no_streaming(),
        page(5, "t", &[pod("a", 1), pod("b", 2)]),
        expired(),
        page(6, "t", &[pod("b", 2)]),
        expired(),
        expired(),
        page(7, "", &[pod("b", 2), pod("c", 3)]),
        Reply::lines(&[]).then_hang(),
    ]);
    let (log, _) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+a@1 +b@2 +c@3 -a ");
    let asked = paths(&server);
    assert!(!asked[6].contains("limit"), "in one piece at last: {}", asked[6]);
}

#[tokio::test]
async fn a_malformed_object_stops_nothing_and_is_not_taken_for_gone() {
    let server = Server::new(vec![
        no_streaming(),
        page(5, "", &[malformed("a", 1), pod("b", 2), json!({"metadata": 5}), json!("text")]),
        Reply::lines(&[
            event("MODIFIED", malformed("b", 6)),
            event("ADDED", pod("c", 7)),
            event("MODIFIED", pod("a", 8)),
            event("DELETED", malformed("b", 9)),
            json!({"type": "NOVEL", "object": {}}),
            event("ADDED", malformed("d", 10)),
            event("DELETED", malformed("d", 11)),
        ])
        .then_hang(),
    ]);
    let (log, health) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+b@2 +c@7 +a@8 -b ", "what was never reported is not reported as gone");
    assert_eq!((health.objects, health.malformed), (2, 1), "{health:?}");
}

#[tokio::test]
async fn a_broken_watch_resumes_after_the_last_whole_line() {
    let cut = Reply::lines(&[event("ADDED", pod("b", 6)), bookmark(8, json!({}))]);
    let server = Server::new(vec![
        no_streaming(),
        page(5, "", &[pod("a", 1)]),
        cut.then_break(),
        Reply::status(503, "going down"),
        Reply::lines(&[event("ADDED", pod("c", 9))]).then_hang(),
    ]);
    let (log, health) = reported(Resource::ActivePods, &server).await;
    assert_eq!(log, "+a@1 +b@6 +c@9 ");
    assert!(paths(&server)[4].contains("resourceVersion=8&"), "{:?}", paths(&server));
    assert!(health.breaks == 2 && health.error.is_none(), "{health:?}");
}

#[tokio::test]
async fn a_node_that_came_back_under_its_name_is_not_deleted() {
    let node = |uid: &str, version: u32| {
        let mut node = pod(uid, version);
        node["metadata"]["name"] = "gpu-0".into();
        node
    };
    let server = Server::new(vec![
        no_streaming(),
        page(5, "", &[node("old", 1)]),
        Reply::lines(&[gone()]),
        page(9, "", &[node("new", 8)]),
        Reply::lines(&[event("DELETED", node("new", 10))]).then_hang(),
    ]);
    let (log, _) = reported(Resource::Nodes, &server).await;
    assert_eq!(log, "+gpu-0/old +gpu-0/new -gpu-0 ");
}

#[tokio::test]
async fn a_kind_that_the_server_does_not_know_is_an_empty_one() {
    let absent = || Reply::status(404, "404 page not found");
    let server = Server::new(vec![absent(), absent(), absent()]);
    let kind = Resource::Policies(gpu_autoscaler_model::PolicyKind::CostBudget);
    let (log, health) = reported(kind, &server).await;
    assert_eq!(log, "");
    assert!(health.synced && health.absent && health.error.is_none(), "{health:?}");
}

#[tokio::test]
async fn a_silent_connection_is_replaced_without_being_called_broken() {
    let server = Server::new(vec![
        no_streaming(),
        page(5, "", &[pod("a", 1)]),
        Reply::lines(&[event("ADDED", pod("b", 6))]).then_hang(),
        Reply::lines(&[event("ADDED", pod("c", 7))]).then_hang(),
    ]);
    let quick = WatchSettings { silence_max: Duration::from_millis(20), ..FAST };
    let (out, mut parts) = mpsc::channel(16);
    let (watcher, health) = Watcher::new(server.api(), Resource::ActivePods, quick, out);
    let task = tokio::spawn(watcher.run());
    let mut log = String::new();
    while !log.contains("+c@7") {
        log.push_str(&told(&parts.recv().await.expect("the watcher goes on").delta));
    }
    assert!(paths(&server)[3].contains("resourceVersion=6&"), "{:?}", paths(&server));
    assert_eq!(health.borrow().breaks, 0);
    task.abort();
}
