use expect_test::expect;
use gpu_autoscaler_model::PolicyKind;

use super::*;

struct Parts {
    nodes: watch::Sender<WatchHealth>,
    budgets: watch::Sender<WatchHealth>,
    telemetry: watch::Sender<TelemetryHealth>,
    writes: watch::Sender<WriteHealth>,
}

fn health() -> (Parts, Health) {
    let (nodes, node_health) = watch::channel(WatchHealth::default());
    let (budgets, budget_health) = watch::channel(WatchHealth::default());
    let (telemetry, telemetry_health) = watch::channel(TelemetryHealth::default());
    let (writes, write_health) = watch::channel(WriteHealth::default());
    let watches = vec![
        (Resource::Nodes, node_health),
        (Resource::Policies(PolicyKind::CostBudget), budget_health),
    ];
    let leadership = Leadership::alone("me".into());
    let health = Health::new(watches, telemetry_health, write_health, leadership);
    (Parts { nodes, budgets, telemetry, writes }, health)
}

#[tokio::test(start_paused = true)]
async fn readiness_names_what_is_missing() {
    let (parts, health) = health();
    expect![[r#"
        [-] watch of Node: not listed yet
        [-] watch of CostBudget: not listed yet
        [-] telemetry: no source: set --prometheus-url or --exporter
        [-] loop: no tick yet
        [+] lease ok
        [+] writes ok
    "#]]
    .assert_eq(&health.ready().1);

    parts.nodes.send_modify(|health| health.synced = true);
    parts.budgets.send_modify(|health| (health.synced, health.absent) = (true, true));
    let failing = vec![("http://p:9090".into(), "refused".into())];
    let partial = vec![("http://p:9090".into(), "1 of 2 exporters are silent".into())];
    parts.telemetry.send_replace(TelemetryHealth { asked: true, failing, partial, sources: 2 });
    let failed = (Instant::now() + FAILED_TOLD, "403\nno".into());
    parts.writes.send_modify(|health| drop(health.failed.insert("announce", failed)));
    health.ticked();
    expect![[r#"
        [+] watch of Node ok
        [-] watch of CostBudget: the API server does not know this kind; apply the CustomResourceDefinitions of the chart: charts/gpu-autoscaler/crds
        [-] telemetry: 1 of 2 sources cannot be read, http://p:9090 first: refused
        [+] loop ok
        [+] lease ok
        [-] writes: the last `announce` failed: 403 no
        [!] telemetry of http://p:9090: 1 of 2 exporters are silent
    "#]]
    .assert_eq(&health.ready().1);
    assert!(!health.ready().0 && health.alive().0);

    parts.telemetry.send_modify(|health| health.failing.clear());
    parts.budgets.send_modify(|health| health.absent = false);
    tokio::time::advance(FAILED_TOLD).await;
    assert!(health.ready().0, "a write that failed long ago and was not repeated is not wanted");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_beat_for_a_minute_is_dead_until_it_beats() {
    let (_parts, health) = health();
    tokio::time::advance(STALL_MAX).await;
    assert!(health.alive().0);
    tokio::time::advance(Duration::from_secs(1)).await;
    let (alive, said) = health.alive();
    assert_eq!((alive, &*said), (false, "the loop has not moved for 61 s\n"));
    health.beat();
    assert!(health.alive().0);
}
