//! The command line against a real API server and a real Prometheus, before anything is installed;
//! and every command line that users were told of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::command_line::{Printed, run};
use tests::control_plane::{ControlPlane, Options, User};
use tests::controller::Controller;
use tests::exporter::{Exporter, Gpu};
use tests::manifests::{SHAPES, gpu_node, gpu_pod, list};
use tests::prometheus::{self, Extras, Prometheus};
use tests::scratch::ScratchDir;
use tests::skip_or_fail;
use tests::wait::until;

/// For what takes seconds on an idle machine.
const SOON: Duration = Duration::from_secs(120);

/// From one sample to the next.
const STEP_SECS: u64 = 30;

/// A node with 8 GPUs, of which a busy pod holds 2 and an idle one 1, both for an hour, and the
/// last 20 minutes of their exporter in a Prometheus.
struct World {
    cluster: ControlPlane,
    prometheus: Prometheus,
}

impl World {
    fn start() -> Option<Self> {
        let viewer = User { name: "viewer".into(), groups: vec!["viewers".into()] };
        let options = Options { users: vec![viewer], ..Options::default() };
        let cluster = ControlPlane::start_or_skip(&options)?;
        let options = prometheus::Options {
            scrape_interval: Duration::from_secs(10),
            honor_labels: true,
            targets: Vec::new(),
        };
        let extras = Extras { history: Some(history()), ..Extras::default() };
        let prometheus = Prometheus::start_with_or_skip(&options, &extras)?;
        cluster.create_nodes(&[gpu_node("gpu-0", &SHAPES[0])]).expect("kwok makes it Ready");
        cluster.create(&list([namespace("ml-team")])).expect("create the namespace");
        let pods = [gpu_pod("default", "train-0", 2), gpu_pod("ml-team", "notebook-0", 1)];
        cluster.create(&list(pods)).expect("create the pods");
        for (namespace, pod) in [("default", "train-0"), ("ml-team", "notebook-0")] {
            age(&cluster, namespace, pod);
        }
        Some(Self { cluster, prometheus })
    }

    /// Runs `arguments` as a person who has set up both.
    fn run(&self, arguments: &[&str]) -> Printed {
        self.run_as(self.cluster.kubeconfig(), arguments)
    }

    fn run_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Printed {
        let (kubeconfig, url) = (kubeconfig.display().to_string(), self.prometheus.url());
        run(arguments, &[("KUBECONFIG", &kubeconfig), ("PROMETHEUS_URL", &url), ("COLUMNS", "80")])
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let printed = self.run(&all);
        serde_json::from_str(&printed.stdout).unwrap_or_else(|error| panic!("{error}: {printed:?}"))
    }
}

fn namespace(name: &str) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// Waits until the pod runs, and makes it an hour old: young ones are left alone.
fn age(cluster: &ControlPlane, namespace: &str, pod: &str) {
    until("the pod runs", SOON, || {
        let pod = cluster.kubectl_json(&["get", "pod", pod, "-n", namespace])?;
        Ok::<_, tests::control_plane::KubectlError>(
            (pod["status"]["phase"] == "Running").then_some(()),
        )
    });
    let started = now_secs() - 3_600;
    let started = cluster_time(started);
    let patch = format!(r#"{{"status":{{"startTime":"{started}"}}}}"#);
    cluster
        .kubectl(&[
            "patch",
            "pod",
            pod,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .expect("the administrator may");
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// RFC 3339 of a time in seconds since 1970.
fn cluster_time(secs: u64) -> String {
    let millis = i64::try_from(secs).expect("within the calendar") * 1_000;
    gpu_autoscaler_model::Timestamp::from_millis(millis).expect("within the calendar").to_string()
}

/// What the exporter of `gpu-0` said in the last 20 minutes, as OpenMetrics.
fn history() -> String {
    let end = now_secs() / STEP_SECS * STEP_SECS;
    let holders = |gpu: u32| match gpu {
        0 | 1 => (",namespace=\"default\",pod=\"train-0\",container=\"main\"", 95, 30_000),
        2 => (",namespace=\"ml-team\",pod=\"notebook-0\",container=\"main\"", 0, 1_500),
        _ => ("", 0, 0),
    };
    let mut text = String::new();
    for metric in ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"] {
        writeln!(text, "# TYPE {metric} gauge").expect("a string takes every text");
        for gpu in 0..8 {
            let (holder, utilization, used) = holders(gpu);
            for step in (0..40).rev() {
                let at = end - step * STEP_SECS;
                // Memory that moves is no memory that was allocated in advance.
                let used = used + u64::from(used > 0) * (step % 3) * 16;
                let value = match metric {
                    "DCGM_FI_DEV_GPU_UTIL" => utilization,
                    "DCGM_FI_DEV_FB_USED" => used,
                    _ => 40_960 - used,
                };
                writeln!(
                    text,
                    "{metric}{{gpu=\"{gpu}\",UUID=\"GPU-{gpu}\",Hostname=\"gpu-0\",\
                     modelName=\"NVIDIA A100-SXM4-40GB\",instance=\"gpu-0:9400\"{holder}}} {value} {at}"
                )
                .expect("a string takes every text");
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

/// A published line: what it prints, or why it belongs to a later phase and what it says now.
enum Line {
    /// It works: exit status, and what standard output holds.
    Works(i32, &'static [&'static str]),
    /// It answers in part, and says why not in whole: what output and standard error hold.
    Partly(&'static [&'static str], &'static str),
    /// It refuses, and says why.
    Refuses(&'static str),
}

/// Every line of `gpu-autoscaler` in the published documents.
const PUBLISHED: [(&str, Line); 8] = [
    (
        "gpu-autoscaler status",
        Line::Works(0, &["=== GPU Cluster Status ===", "Total GPUs with workloads: 3", "train-0"]),
    ),
    (
        "gpu-autoscaler optimize",
        Line::Works(0, &["ml-team", "notebook-0", "Potential savings:", "Nothing was changed"]),
    ),
    (
        "gpu-autoscaler report",
        Line::Works(0, &["1 Executive Summary", "2 Utilization", "3 Cost", "4 Opportunities"]),
    ),
    // Spending and return on investment need the ledger of the cost phase.
    ("gpu-autoscaler cost", Line::Partly(&["Current rate: $"], "keeps no ledger")),
    (
        "gpu-autoscaler cost --namespace ml-team --last 7d",
        Line::Partly(&["namespace ml-team", "ml-team"], "last 168.0 h is not known"),
    ),
    (
        "gpu-autoscaler cost report --format table",
        Line::Partly(&["COST BREAKDOWN", "default"], "keeps no ledger"),
    ),
    (
        "gpu-autoscaler cost report --format json",
        Line::Partly(&["\"spent\": null", "\"costPerHour\""], "keeps no ledger"),
    ),
    ("gpu-autoscaler cost roi --last 30d", Line::Refuses("keeps no ledger")),
];

/// Command lines of the published documents: of code blocks, and between backticks.
fn published_lines(folder: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in fs::read_dir(folder).expect("readable").flatten() {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let in_backticks = text.split('`').skip(1).step_by(2);
        for line in text.lines().chain(in_backticks) {
            let line = line.trim().trim_start_matches("$ ");
            let Some(rest) = line.strip_prefix("gpu-autoscaler ") else { continue };
            // A word of another command line, or of prose.
            if line.contains('\n') || rest.starts_with("gpu-autoscaler") {
                continue;
            }
            let line = line.split(" > ").next().unwrap_or(line).trim_end_matches('\\').trim();
            if rest.starts_with(|letter: char| letter.is_ascii_lowercase()) {
                lines.insert(line.to_owned());
            }
        }
    }
    lines
}

#[test]
fn every_published_line_says_what_it_can() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/published");
    if folder.is_dir() {
        let known: BTreeSet<String> =
            PUBLISHED.iter().map(|(line, _)| (*line).to_owned()).collect();
        let found = published_lines(&folder);
        assert_eq!(found, known, "published lines, and those that are run here");
    } else {
        skip_or_fail("no ../shared/published: whether a line is missing here is not known");
    }
    let Some(world) = World::start() else { return };
    for (line, expected) in &PUBLISHED {
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let printed = world.run(&arguments);
        let (code, output, error): (i32, &[&str], &str) = match expected {
            Line::Works(code, output) => (*code, output, ""),
            Line::Partly(output, error) => (3, output, error),
            Line::Refuses(error) => (1, &[], error),
        };
        assert_eq!(printed.code, code, "{line}: {printed:?}");
        for part in output {
            assert!(printed.stdout.contains(part), "{line}: no `{part}`: {printed:?}");
        }
        assert!(printed.stderr.contains(error), "{line}: no `{error}`: {printed:?}");
        println!("{line}: exit status {code}");
    }
    the_numbers_agree(&world);
    doctor_tells_what_works(&world);
    what_may_not_be_read_is_named(&world);
}

/// One finding, one saving, in every command.
fn the_numbers_agree(world: &World) {
    let (status, optimize, report) =
        (world.json(&["status"]), world.json(&["optimize"]), world.json(&["report"]));
    let found = &optimize["recommendations"][0];
    assert_eq!((&found["pod"], &found["kind"]), (&"notebook-0".into(), &"Idle".into()), "{found}");
    let saving = &status["totals"]["savingPerHour"];
    assert_eq!(saving["currency"], "USD", "{saving}");
    for same in [
        &found["savingPerHour"],
        &optimize["totals"]["savingPerHour"],
        &report["executiveSummary"]["totals"]["savingPerHour"],
        &report["opportunities"]["byAdvice"][0]["savingPerHour"],
    ] {
        assert_eq!(same, saving);
    }
    let explained = world.run(&["explain", "ml-team/notebook-0"]);
    assert_eq!(explained.code, 0, "{explained:?}");
    for part in ["DCGM_FI_DEV_GPU_UTIL", "Rules, the first that holds decides", "Outcome: Idle"] {
        assert!(explained.stdout.contains(part), "no `{part}`: {explained:?}");
    }
}

fn doctor_tells_what_works(world: &World) {
    let checks = world.run(&["doctor", "-o", "json"]);
    let read: Value = serde_json::from_str(&checks.stdout).expect("JSON");
    let result: BTreeMap<&str, &str> = read
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|check| Some((check["check"].as_str()?, check["result"].as_str()?)))
        .collect();
    for works in [
        "kubeconfig",
        "API server",
        "server version",
        "clock",
        "rights",
        "objects",
        "GPU nodes",
        "prices",
        "metrics",
        "nodes measured",
        "pods named",
        "sample clocks",
        "age",
    ] {
        assert_eq!(result.get(works), Some(&"ok"), "{works}: {checks:?}");
    }
    // Nothing is installed, and GPU_UTIL is a weak counter: both are said, neither is a failure.
    assert_eq!(result["definitions"], "warning", "{checks:?}");
    assert_eq!(result["counters"], "warning", "{checks:?}");
    assert_eq!(checks.code, 0);
}

/// Somebody who may read nodes and pods, and nothing else.
fn what_may_not_be_read_is_named(world: &World) {
    let viewer = world.cluster.kubeconfig_of_user("viewer").expect("a user of the options");
    let refused = world.run_as(viewer, &["status"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("forbidden") && refused.stderr.contains("doctor"),
        "{refused:?}"
    );
    let doctor = world.run_as(viewer, &["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.stdout.contains("may not list nodes, pods"), "{doctor:?}");
    world
        .cluster
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: nodes-and-pods }
rules: [{ apiGroups: [''], resources: [nodes, pods], verbs: [get, list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: nodes-and-pods }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nodes-and-pods }
subjects: [{ kind: Group, apiGroup: rbac.authorization.k8s.io, name: viewers }]
",
        )
        .expect("grant");
    let partial = until("the grant is in force", SOON, || {
        let printed = world.run_as(viewer, &["optimize"]);
        Ok::<_, std::convert::Infallible>((printed.code == 3).then_some(printed))
    });
    assert!(partial.stdout.contains("notebook-0"), "{partial:?}");
    assert!(partial.stderr.contains("no PodDisruptionBudget was read"), "{partial:?}");
    let silent = world.run(&["status", "--prometheus-url", "http://127.0.0.1:1"]);
    assert_eq!(silent.code, 3, "{silent:?}");
    assert!(silent.stderr.contains("no metrics: http://127.0.0.1:1"), "{silent:?}");
    assert!(silent.stdout.contains("no exporter reports it"), "unknown is not idle: {silent:?}");
}

#[test]
fn a_running_controller_answers_the_same_commands() {
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let exporter = Exporter::start().expect("a port of loopback");
    cluster.create_nodes(&[gpu_node("gpu-0", &SHAPES[0])]).expect("kwok makes it Ready");
    cluster.create(&list([gpu_pod("default", "idle-0", 1)])).expect("create the pod");
    age(&cluster, "default", "idle-0");
    exporter.set(vec![Gpu {
        node: "gpu-0".into(),
        index: 0,
        pod: Some(("default".into(), "idle-0".into())),
        utilization: 0,
        fb_used_mib: 100,
    }]);
    let scratch = ScratchDir::create("cli").expect("a folder for logs");
    let flags = [format!("--exporter=gpu-0={}", exporter.url())];
    let controller =
        Controller::start(&cluster, scratch.path(), "controller-0", &flags).expect("it starts");
    controller.wait_until_it_serves();
    let server = format!("http://{}", controller.address());
    let found = until("the controller finds it", SOON, || {
        let printed = run(&["optimize", "--server", &server], &[("COLUMNS", "80")]);
        let found = printed.code == 0 && printed.stdout.contains("1. default/idle-0");
        Ok::<_, std::convert::Infallible>(found.then_some(printed))
    });
    assert!(found.stdout.contains("kubectl -n default delete pod idle-0"), "{found:?}");
    let explained = run(&["explain", "idle-0"], &[("GPU_AUTOSCALER_SERVER", &server)]);
    assert_eq!(explained.code, 0, "{explained:?}");
    assert!(explained.stdout.contains("of a window of 60 s"), "its own window: {explained:?}");
    // The same GPUs by one look at the exporter, without the controller.
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let alone = run(
        &["report", "--kubeconfig", &kubeconfig, "--exporter", &flags[0]["--exporter=".len()..]],
        &[],
    );
    assert_eq!(alone.code, 0, "{alone:?}");
    assert!(alone.stdout.contains("one reading, taken to have lasted"), "{alone:?}");
    assert!(alone.stdout.contains("default/idle-0: stop it"), "{alone:?}");
}
