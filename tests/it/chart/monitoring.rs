//! Dashboards and rules: every expression returns data, every alert fires and has a runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use gpu_autoscaler_sim::{Faults, Workload, World, WorldSpec, mixed_cluster};
use serde_json::Value;
use tests::control_plane::{ControlPlane, Options};
use tests::controller::Controller;
use tests::exporter::{Exporter, Gpu};
use tests::manifests::{SHAPES, gpu_node, gpu_pod};
use tests::process::CommandLine;
use tests::prometheus::{self, Prometheus, PrometheusError, Target};
use tests::scratch::ScratchDir;
use tests::skip_or_fail;
use tests::wait::until;

use super::helm::{Helm, named};
use super::{files, read, root, yaml};

/// Until rules that build on rules that build on scrapes have been evaluated.
const SOON: Duration = Duration::from_secs(120);
/// The GPUs of the simulated cluster; enough for whole, MIG and time-sliced nodes.
const GPUS: u32 = 60;

/// An expression, and where it stands.
struct Expression {
    place: String,
    /// Whether the second data source answers it, which keeps hourly aggregates alone.
    of_aggregates: bool,
    text: String,
}

/// The expressions of all panels of all dashboards.
fn panels() -> Vec<Expression> {
    let mut all = Vec::new();
    for path in files("charts/gpu-autoscaler/dashboards", ".json") {
        let board: Value = serde_json::from_str(&read(&path)).expect("JSON");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for panel in list(&board["panels"]) {
            let title = panel["title"].as_str().expect("a title");
            let targets = list(&panel["targets"]);
            assert!(panel["type"] == "row" || !targets.is_empty(), "{name}/{title} asks nothing");
            for target in targets {
                let text = target["expr"].as_str().expect("an expression").to_owned();
                let of_aggregates = target["datasource"]["uid"] == "${aggregates}";
                all.push(Expression { place: format!("{name}/{title}"), of_aggregates, text });
            }
        }
    }
    all
}

/// A rule of the rule files.
struct Rule {
    /// Name of the recorded series, or of the alert.
    name: String,
    alert: bool,
    expression: String,
    annotations: Value,
    severity: Value,
}

fn rules() -> Vec<Rule> {
    let documents = files("charts/gpu-autoscaler/rules", ".yaml");
    let documents = documents.iter().map(|path| yaml(&read(path)).remove(0));
    let groups = documents.flat_map(|document| list(&document["groups"]).to_vec());
    let rules = groups.flat_map(|group| list(&group["rules"]).to_vec());
    rules
        .map(|rule| {
            let name = rule["alert"].as_str().or(rule["record"].as_str()).expect("a name");
            Rule {
                name: name.to_owned(),
                alert: !rule["alert"].is_null(),
                expression: rule["expr"].as_str().expect("an expression").to_owned(),
                annotations: rule["annotations"].clone(),
                severity: rule["labels"]["severity"].clone(),
            }
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_panel_and_rule_returns_data() {
    let Some(fleet) = Fleet::start() else { return };
    let first = |query: &str| {
        until(query, SOON, || fleet.prometheus.query(query).map(|found| found.into_iter().next()))
    };
    // The controller watches a cluster of its own, of which the simulated exporters know nothing.
    let (measured, judged) =
        (first("namespace_pod_gpu:gpu_activity:ratio"), first("gpu_autoscaler_pod_waste_score"));
    let fill = |text: &str| {
        let of = if text.contains("gpu_autoscaler_pod") { &judged } else { &measured };
        let label = |name: &str| of["metric"][name].as_str().expect("a label");
        text.replace("$__rate_interval", "20s")
            .replace("$namespace", label("namespace"))
            .replace("$pod", label("pod"))
            // A month of hours is a minute of seconds here.
            .replace("[30d:1h]", "[1m:1s]")
    };
    let mut silent = Vec::new();
    let mut expressions = panels();
    // What an alert compares must be there, though the comparison does not hold.
    for rule in rules() {
        for selector in selectors(&rule.expression) {
            let place = rule.name.clone();
            expressions.push(Expression { place, of_aggregates: false, text: selector });
        }
        if !rule.alert {
            let text = rule.name.clone();
            expressions.push(Expression { place: rule.name, of_aggregates: false, text });
        }
    }
    let panels = panels().len();
    assert!(panels > 50 && expressions.len() > panels, "{} of {panels}", expressions.len());
    for Expression { place, text, .. } in &expressions {
        let found = until(place, SOON, || {
            let found = fleet.prometheus.query(&fill(text))?;
            // A rate needs two scrapes: what has data in the end may have none yet.
            let known = found.iter().any(is_known);
            Ok::<_, PrometheusError>(
                (known || fleet.began.elapsed() > Duration::from_secs(60)).then_some(known),
            )
        });
        if !found {
            silent.push(format!("{place}: {}", fill(text)));
        }
    }
    assert!(silent.is_empty(), "no data:\n{}", silent.join("\n"));
    fleet.check_traps();
    println!("{panels} panels' and {} rules' expressions return data", rules().len());

    // Alerts that wait for minutes cannot fire here; those that fire at once have no reason to.
    let firing = fleet.prometheus.query("ALERTS{alertstate=\"firing\"}").expect("an answer");
    assert!(firing.is_empty(), "{firing:?}");
}

/// Whether a sample holds a number.
fn is_known(sample: &Value) -> bool {
    sample["value"][1].as_str().is_some_and(|value| value != "NaN")
}

/// The names of series that an expression selects, each as an expression.
fn selectors(expression: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| is_name(c) && !c.is_ascii_digit()) {
        let tail = &rest[start..];
        let end = tail.find(|c: char| !is_name(c)).unwrap_or(tail.len());
        let name = &tail[..end];
        rest = &tail[end..];
        if let Some(matchers) = rest.strip_prefix('{') {
            rest = matchers.split_once('}').expect("a closing brace").1;
        }
        if let Some(range) = rest.strip_prefix('[') {
            rest = range.split_once(']').expect("a closing bracket").1;
        }
        // Ours have an underscore or a colon; functions with one are followed by a parenthesis.
        let series = name.contains(['_', ':']) && !rest.starts_with('(');
        if series || name == "up" {
            names.insert(name.to_owned());
        }
    }
    names.retain(|name| !["GPU_I_ID", "GPU_I_PROFILE", "capacity_type"].contains(&&**name));
    names.into_iter().collect()
}

#[test]
fn selectors_of_an_expression_are_found() {
    let expression = "histogram_quantile(0.9, sum by (le) (rate(a_bucket{b=\"c_d\"}[5d:1m]))) \
                      > 9e18 or absent(up{job=\"x\"} == 1) and l:m:avg";
    assert_eq!(selectors(expression), ["a_bucket", "l:m:avg", "up"]);
}

#[test]
fn months_are_asked_of_aggregates_alone_and_all_aggregates_are_kept() {
    let recorded = yaml(&read("charts/gpu-autoscaler/rules/aggregates.yaml")).remove(0);
    for rule in list(&recorded["groups"][0]["rules"]) {
        let name = rule["record"].as_str().expect("a name");
        // The second Prometheus fetches what ends so.
        assert!(name.ends_with(":avg1h"), "{name} is not kept");
    }
    for Expression { place, of_aggregates, text } in panels() {
        let kept = selectors(&text).iter().all(|name| name.ends_with(":avg1h"));
        assert_eq!(of_aggregates, kept, "{place}: {text}");
        assert!(of_aggregates || !text.contains("30d"), "{place} asks for what is not kept");
    }
}

#[test]
fn dcgm_fields_that_are_read_are_configured() {
    let counters = read("charts/gpu-autoscaler/files/dcgm-counters.csv");
    let fields = counters.lines().filter(|line| !line.starts_with('#'));
    let fields: BTreeSet<&str> = fields.filter_map(|line| line.split(',').next()).collect();
    let panels = panels().into_iter().map(|panel| panel.text);
    for text in panels.chain(rules().into_iter().map(|rule| rule.expression)) {
        for name in selectors(&text).iter().filter(|name| name.starts_with("DCGM_")) {
            assert!(fields.contains(name.as_str()), "`{name}` is not in dcgm-counters.csv");
        }
    }
}

#[test]
fn every_alert_has_a_severity_and_a_runbook_and_every_runbook_an_alert() {
    let mut named = BTreeSet::new();
    for rule in rules().iter().filter(|rule| rule.alert) {
        let known = ["info", "warning", "critical"].map(Value::from);
        assert!(known.contains(&rule.severity), "{}: {}", rule.name, rule.severity);
        let url = rule.annotations["runbook_url"].as_str().expect("a runbook");
        let file = format!("docs/runbooks/{}.md", rule.name);
        assert_eq!(url, format!("{}/blob/main/{file}", env!("CARGO_PKG_REPOSITORY")));
        let text = read(&file);
        assert!(text.starts_with(&format!("# {}\n", rule.name)), "{file}");
        for part in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
            assert!(text.contains(&format!("\n{part}\n")), "{file} has no {part}");
        }
        named.insert(root().join(file));
    }
    assert_eq!(files("docs/runbooks", ".md").into_iter().collect::<BTreeSet<_>>(), named);
}

#[test]
fn rules_and_configurations_pass_promtool() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let folder = ScratchDir::create("promtool").expect("a folder");
    for arguments in [&[][..], &["--set", "dcgmExporter.enabled=false,controller.enabled=false"]] {
        let objects = helm.objects(arguments);
        let config = &named(&objects, "ConfigMap", "gpu-autoscaler-prometheus")["data"];
        for (name, text) in config.as_object().expect("files") {
            let mut text = text.as_str().expect("text").to_owned();
            if name == "prometheus.yml" {
                // Debian's build has no discovery by Kubernetes; all the rest is checked.
                let mut document = yaml(&text).remove(0);
                for job in document["scrape_configs"].as_array_mut().into_iter().flatten() {
                    job.as_object_mut().expect("a job").remove("kubernetes_sd_configs");
                }
                text = document.to_string();
            }
            folder.write(name, &text).expect("written");
        }
        for file in ["prometheus.yml", "aggregates.yml"] {
            let file = folder.join(file);
            promtool(&["check", "config", &file.to_string_lossy()]);
        }
    }
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let tests = root().join("tests/it/chart/alerts.test.yaml");
    let tested = read("tests/it/chart/alerts.test.yaml");
    for rule in rules().iter().filter(|rule| rule.alert) {
        let name = format!("alertname=\"{}\",", rule.name);
        assert!(tested.matches(&name).count() >= 2, "{} is not tested both ways", rule.name);
    }
    promtool(&["test", "rules", &tests.to_string_lossy()]);
}

/// Runs promtool, which comes with Debian's Prometheus.
fn promtool(arguments: &[&str]) {
    let Ok(prometheus) = tests::program::Program::Prometheus.find() else {
        return skip_or_fail("promtool is not here; hint: tests/cluster/install-deps.sh");
    };
    let command = CommandLine::new(prometheus.with_file_name("promtool"), arguments);
    let output = command.output_within("", SOON).expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

/// A Prometheus that scrapes a running controller, and the exporters of a simulated cluster, as the
/// chart's own does; with the chart's rules.
struct Fleet {
    prometheus: Prometheus,
    began: Instant,
    _judged: Judged,
    // Prometheus reads the rules from here.
    _rules: ScratchDir,
}

impl Fleet {
    fn start() -> Option<Self> {
        let judged = Judged::start()?;
        let folder = ScratchDir::create("rules").expect("a folder");
        let rules = hasty_rules(&folder);
        let options = prometheus::Options {
            scrape_interval: Duration::from_secs(1),
            honor_labels: true,
            targets: exporters().into_iter().chain([judged.target()]).collect(),
        };
        let prometheus = Prometheus::start_with_rules_or_skip(&options, &rules)?;
        Some(Self { prometheus, began: Instant::now(), _judged: judged, _rules: folder })
    }
}

impl Fleet {
    /// GPU instances, lines per pod and missing counters distort no number.
    fn check_traps(&self) {
        let number = |query: &str| {
            let found = self.prometheus.query(query).expect("an answer");
            let value = found.first().and_then(|sample| sample["value"][1].as_str());
            value.unwrap_or_else(|| panic!("no data: {query}")).parse::<f64>().expect("a number")
        };
        let measured = mixed_cluster(7, GPUS).into_iter().filter(|node| node.exporter.is_some());
        // Each physical GPU once, however it is shared.
        let gpus: u32 = measured.map(|node| node.shape.gpus).sum();
        // The rule may have been evaluated before the last exporter was scraped.
        until("cluster:gpus:count counts each GPU once", SOON, || {
            let counted = number("cluster:gpus:count");
            Ok::<_, Infallible>((counted == f64::from(gpus)).then_some(()))
        });
        assert!(number("count(gpu_instance:gpu_activity:ratio{GPU_I_ID!=\"\"})") > 8.0);
        for ratio in ["gpu:gpu_activity:ratio", "namespace_pod_gpu:gpu_activity:ratio"] {
            assert!(number(&format!("max({ratio})")) <= 1.0, "{ratio}");
            assert!(number(&format!("min({ratio})")) >= 0.0, "{ratio}");
        }
        // From an instance of 5 GB to an H200 of 143,771 MiB; an integer that DCGM does not support
        // would be 9.2e18 MiB.
        let total = |of: &str| number(&format!("{of}(gpu_instance:fb_total:bytes)"));
        let (least, most) = (total("min"), total("max"));
        assert!(least > 4e9 && most < 152e9, "{least} to {most} bytes");
        // Parts of a shared GPU are in no pod's number.
        let parts = "count(DCGM_FI_DEV_FB_USED{vgpu!=\"\"})";
        assert!(number(parts) > 0.0, "the cluster has no shared GPU to test with");
        let of_parts = "namespace_pod_gpu:gpu_activity:ratio and on (namespace, pod) \
                        DCGM_FI_DEV_FB_USED{vgpu!=\"\"}";
        assert!(self.prometheus.query(of_parts).expect("an answer").is_empty());
    }
}

/// The chart's rule files, evaluated each second.
fn hasty_rules(folder: &ScratchDir) -> Vec<PathBuf> {
    let paths = files("charts/gpu-autoscaler/rules", ".yaml");
    paths
        .iter()
        .map(|path| {
            let text = read(path).replace("interval: 30s", "interval: 1s");
            let text = text.replace("interval: 1m", "interval: 1s");
            let name = path.file_name().expect("a name").to_string_lossy();
            folder.write(&name, &text).expect("written")
        })
        .collect()
}

/// An exporter for each node of a simulated cluster that has been running for hours.
fn exporters() -> Vec<Target> {
    let start = "2026-01-05T08:00:00Z".parse().expect("a time");
    let mut world = World::new(&WorldSpec {
        seed: 7,
        start,
        nodes: mixed_cluster(7, GPUS),
        workload: Workload::Generated { occupancy: 0.85 },
        faults: Faults::NONE,
    });
    // Until pods share a GPU whose exporter tells them apart; then time stands still.
    let texts = (1..=200).find_map(|hours| {
        world.advance(start.after(Duration::from_hours(hours)));
        let nodes = mixed_cluster(7, GPUS).into_iter().map(|node| node.name);
        let texts = nodes.filter_map(|name| {
            let text = world.exposition(&name.as_str().into())?;
            Some((name, with_all_counters(&text)))
        });
        let texts: Vec<(String, String)> = texts.collect();
        texts.iter().any(|(_, text)| text.contains("vgpu=")).then_some(texts)
    });
    let texts = texts.expect("pods share a GPU within 200 hours");
    texts
        .into_iter()
        .map(|(node, text)| {
            let job = ("job".to_owned(), "dcgm-exporter".to_owned());
            let labels = BTreeMap::from([job, ("node".to_owned(), node)]);
            Target { address: serve(text), labels }
        })
        .collect()
}

/// Adds the counters that the chart configures and the simulator does not model, for the same
/// devices and pods: what is tested is that labels and names fit, not the values.
fn with_all_counters(text: &str) -> String {
    let mut whole = text.to_owned();
    let devices: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("DCGM_FI_DEV_FB_USED")?.rsplit_once(' '))
        .map(|(labels, _)| labels)
        .collect();
    for line in read("charts/gpu-autoscaler/files/dcgm-counters.csv").lines() {
        let field = line.split(',').next().expect("a field");
        if !line.starts_with('#') && !text.contains(field) && field != "DCGM_FI_PROF_SM_ACTIVE" {
            for labels in &devices {
                whole.push_str(&format!("{field}{labels} 0\n"));
            }
        }
    }
    whole
}

/// A controller that leads in a cluster with one GPU, which a pod holds and does not use.
struct Judged {
    controller: Controller,
    // What the controller watches, reads and logs into.
    _cluster: ControlPlane,
    _exporter: Exporter,
    _scratch: ScratchDir,
}

impl Judged {
    fn start() -> Option<Self> {
        let cluster = ControlPlane::start_or_skip(&Options::default())?;
        let [eight_gpus, ..] = SHAPES;
        cluster.create_nodes(&[gpu_node("gpu-0", &eight_gpus)]).expect("a GPU node");
        for definition in files("charts/gpu-autoscaler/crds", ".yaml") {
            cluster.apply(&read(definition)).expect("the server takes the definition");
        }
        cluster.create(&gpu_pod("default", "waster", 1).to_string()).expect("a pod");
        let exporter = Exporter::start().expect("a port");
        exporter.set(vec![Gpu {
            node: "gpu-0".into(),
            index: 0,
            pod: Some(("default".into(), "waster".into())),
            utilization: 0,
            fb_used_mib: 100,
        }]);
        let scratch = ScratchDir::create("controller").expect("a folder");
        let further = ["--leader-elect".to_owned(), format!("--exporter={}", exporter.url())];
        let controller = Controller::start(&cluster, scratch.path(), "replica-a", &further);
        let controller = controller.expect("it starts");
        Some(Self { controller, _cluster: cluster, _exporter: exporter, _scratch: scratch })
    }

    fn target(&self) -> Target {
        let job = ("job".to_owned(), "gpu-autoscaler-controller".to_owned());
        Target { address: self.controller.address(), labels: BTreeMap::from([job]) }
    }
}

/// Serves a text as an exporter does, until the test process ends.
fn serve(text: String) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A scraper that hangs up early is no concern of the exporter.
            let _ = answer(&stream, &text);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    let mut request = BufReader::new(stream).lines();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}
