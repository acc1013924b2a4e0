//! What is kept over a restart.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::control_plane::{ControlPlane, Options};
use tests::controller::Controller;
use tests::exporter::{Exporter, Gpu};
use tests::manifests::{SHAPES, gpu_node, gpu_pod, list};
use tests::prometheus::{Options as PrometheusOptions, Prometheus, Target};
use tests::scratch::ScratchDir;
use tests::wait::until;

const SOON: Duration = Duration::from_secs(180);

/// What a controller makes of the one pod, while its memory goes up and down around `fb_mib`.
fn recommendation(
    controller: &Controller,
    exporter: &Exporter,
    fb_mib: u32,
    what: &str,
    good: impl Fn(&Value) -> bool,
) -> Value {
    let mut round = 0;
    until(what, SOON, || {
        round += 1;
        // Memory that never moves is taken to be allocated in advance.
        exporter.set(vec![Gpu {
            node: "gpu-0".to_owned(),
            index: 0,
            pod: Some(("default".to_owned(), "train".to_owned())),
            utilization: 5,
            fb_used_mib: fb_mib + round % 2 * 200,
        }]);
        let found = controller.get("/api/v1/findings").ok().filter(|(code, _)| *code == 200);
        let found: Option<Value> =
            found.map(|(_, body)| serde_json::from_str(&body).expect("JSON"));
        let finding = found.and_then(|found| found["items"].get(0).cloned());
        Ok::<_, Infallible>(finding.filter(&good))
    })
}

fn advice(finding: &Value) -> (&Value, &Value) {
    (&finding["recommendation"]["advice"], &finding["recommendation"]["text"])
}

/// An empty Prometheus that scrapes the exporter from now on.
fn prometheus(exporter: &Exporter) -> Option<Prometheus> {
    Prometheus::start_or_skip(&PrometheusOptions {
        scrape_interval: Duration::from_secs(1),
        honor_labels: false,
        targets: vec![Target { address: exporter.address(), labels: BTreeMap::new() }],
    })
}

#[test]
fn restarted_with_an_emptied_prometheus_it_recommends_the_same() {
    let exporter = Exporter::start().expect("a port");
    let Some(first) = prometheus(&exporter) else { return };
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    cluster.create(&list([gpu_node("gpu-0", &SHAPES[0])])).expect("create the node");
    cluster.create(&list([gpu_pod("default", "train", 1)])).expect("create the pod");
    let scratch = ScratchDir::create("history").expect("a folder");
    let kept = format!("--history-dir={}", scratch.join("kept").display());
    let start = |name: &str, prometheus: &Prometheus, further: &[&str]| {
        let mut flags = vec![
            format!("--prometheus-url={}", prometheus.url()),
            "--waste-lookback=20s".to_owned(),
            "--waste-sample-gap-max=5s".to_owned(),
        ];
        flags.extend(further.iter().map(|flag| (*flag).to_owned()));
        Controller::start(&cluster, scratch.path(), name, &flags).expect("it starts")
    };

    // Once it needed 15 GiB; of late it needs 2.
    let mut before = start("before", &first, &[&kept]);
    let seen_secs = |finding: &Value| finding["recommendation"]["historySecs"].as_u64();
    recommendation(&before, &exporter, 15_000, "it is known what the pod needs", |finding| {
        seen_secs(finding).is_some_and(|secs| secs >= 20)
    });
    let late = recommendation(&before, &exporter, 2_000, "the window holds the late need", |it| {
        it["usage"]["fbMaxBytes"].as_u64().is_some_and(|bytes| bytes < 3 << 30)
    });
    assert!(before.process().terminate(SOON), "SIGTERM is enough");

    let empty = format!("--history-dir={}", scratch.join("empty").display());
    let fresh = start("fresh", &first, &[&empty]);
    let same = |finding: &Value| advice(finding) == advice(&late);
    let what = "one that knows nothing reads the past back and recommends the same";
    let learned = recommendation(&fresh, &exporter, 2_000, what, same);
    assert!(seen_secs(&learned) >= seen_secs(&late).map(|secs| secs / 2), "{learned}");
    let samples = fresh.metric("gpu_autoscaler_history_backfill_samples_total");
    assert!(samples.is_some_and(|samples| samples >= 20.0), "{samples:?}");
    assert_eq!(fresh.metric("gpu_autoscaler_history_backfill_failing"), Some(0.0));
    drop(fresh);
    drop(first);

    let Some(second) = prometheus(&exporter) else { return };
    let after = start("after", &second, &[&kept]);
    let any = |_: &Value| true;
    let again = recommendation(&after, &exporter, 2_000, "it is judged after the restart", any);
    assert_eq!(advice(&again), advice(&late));
    assert!(seen_secs(&again) >= seen_secs(&late), "{again} after {late}");
    drop(after);

    let without = start("without", &second, &[]);
    let forgetful = recommendation(&without, &exporter, 2_000, "it is judged anew", any);
    assert_ne!(advice(&forgetful), advice(&late), "who knows no past recommends something else");
}

#[test]
fn a_past_that_cannot_be_read_back_is_named_and_stops_nothing() {
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let scratch = ScratchDir::create("backfill").expect("a folder");
    let exporter = Exporter::start().expect("a port");
    // Nobody listens on a port of 1.
    let flags =
        [format!("--exporter={}", exporter.url()), "--prometheus-url=http://127.0.0.1:1".into()];
    let controller = Controller::start(&cluster, scratch.path(), "alone", &flags);
    let controller = controller.expect("it starts");
    let body = until("the fault is named", SOON, || {
        let probed = controller.probe("/readyz").ok().map(|(_, body)| body);
        Ok::<_, Infallible>(probed.filter(|body| body.contains("[!] backfill: ")))
    });
    assert!(body.contains("the past is not read back: http://127.0.0.1:1/"), "{body}");
    assert!(body.contains("[+] loop ok"), "{body}");
    assert_eq!(controller.metric("gpu_autoscaler_history_backfill_failing"), Some(1.0));
}

#[test]
fn a_history_that_cannot_be_kept_is_named_and_stops_nothing() {
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let scratch = ScratchDir::create("history").expect("a folder");
    let file = scratch.write("history.db", &"no database, and none of ours\n".repeat(99));
    let file = file.expect("writable");
    let exporter = Exporter::start().expect("a port");
    let flags = [
        format!("--exporter={}", exporter.url()),
        format!("--history-dir={}", scratch.path().display()),
    ];
    let controller = Controller::start(&cluster, scratch.path(), "damaged", &flags);
    let controller = controller.expect("it starts");
    let readyz = |what: &str, good: &dyn Fn(&str) -> bool| {
        until(what, SOON, || {
            let probed = controller.probe("/readyz").ok();
            Ok::<_, Infallible>(probed.filter(|(_, body)| good(body)))
        })
    };
    let (_, body) = readyz("the fault is named", &|body| body.contains("[!] history: "));
    assert!(body.contains(&format!("history `{}` is damaged", file.display())), "{body}");
    readyz("the loop runs on", &|body| body.contains("[+] loop ok"));
    fs::remove_file(&file).expect("moved away");
    readyz("it is kept from now on", &|body| !body.contains("[!] history"));
    assert!(fs::read(&file).expect("made anew").starts_with(b"SQLite format 3\0"));
}
