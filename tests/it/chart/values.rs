//! The values: each accepted key does something or is named as doing nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::helm::Helm;
use super::{chart, read, root, yaml};

/// Settings under which a key may show its effect: it may need a ServiceMonitor, one replica, or a
/// Secret.
///
/// All by `--set-json`, since Helm applies those in their order, and any `--set` after them.
const BASELINES: [&[&str]; 4] = [
    &["--set-json", "grafana.adminPassword=\"baseline\""],
    &[
        "--set-json",
        "grafana.adminPassword=\"baseline\"",
        "--set-json",
        "prometheus.prometheusOperator.enabled=true",
        "--set-json",
        "controller.replicaCount=1",
    ],
    &[
        "--set-json",
        "grafana.adminPassword=\"baseline\"",
        "--set-json",
        "controller.prometheusAuth={\"secret\":\"s\",\"username\":\"u\",\"certKey\":\"c\"}",
    ],
    &[
        "--set-json",
        "grafana.adminPassword=\"baseline\"",
        "--set-json",
        "controller.prometheusAuth={\"secret\":\"s\"}",
    ],
];

/// A key that the schema accepts, and values to try it with.
#[derive(Debug)]
pub struct Key {
    /// Names joined by dots.
    pub path: String,
    /// What the schema says of it, references resolved.
    pub schema: Value,
}

/// All keys that hold no further keys.
pub fn keys() -> Vec<Key> {
    let schema = read("charts/gpu-autoscaler/values.schema.json");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    // Helm hands `global` to every chart; this one has nobody to hand it to.
    keys.retain(|key| key.path != "global");
    keys
}

fn collect(root: &Value, schema: &Value, path: &str, keys: &mut Vec<Key>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).expect(reference),
        None => schema,
    };
    match schema["properties"].as_object() {
        // An object with an example is set as a whole.
        Some(properties) if schema["examples"].is_null() => {
            assert_eq!(schema["additionalProperties"], false, "`{path}` accepts unknown keys");
            for (name, inner) in properties {
                let dot = if path.is_empty() { "" } else { "." };
                collect(root, inner, &format!("{path}{dot}{name}"), keys);
            }
        }
        _ => keys.push(Key { path: path.to_owned(), schema: schema.clone() }),
    }
}

/// The default of a key; `Null` for one that has none.
pub fn default_of(defaults: &Value, path: &str) -> Value {
    path.split('.').fold(defaults, |at, name| &at[name]).clone()
}

pub fn defaults() -> Value {
    yaml(&read("charts/gpu-autoscaler/values.yaml")).remove(0)
}

/// Sections whose keys do nothing yet, each with the reason.
pub fn pending() -> BTreeMap<String, String> {
    let list = yaml(&read("charts/gpu-autoscaler/files/pending.yaml")).remove(0);
    serde_json::from_value(list).expect("sections with reasons")
}

pub fn is_pending(pending: &BTreeMap<String, String>, path: &str) -> bool {
    pending.keys().any(|section| path.strip_prefix(section).is_some_and(|r| r.starts_with('.')))
}

/// Valid values of a key other than its default.
fn probes(key: &Key, default: &Value) -> Vec<Value> {
    let schema = &key.schema;
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let mut probes = list(&schema["examples"]);
    probes.extend(list(&schema["enum"]));
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    for kind in kinds {
        let floor = schema["minimum"].as_i64().unwrap_or(0);
        match kind.as_str().expect("a name of a type") {
            "boolean" => probes.extend([json!(true), json!(false)]),
            "integer" => probes.push(json!(default.as_i64().unwrap_or(floor) + 1)),
            "number" => probes.push(json!(0.5)),
            "string" if probes.is_empty() => probes.push(json!("probe")),
            "array" if probes.is_empty() => probes.push(json!([])),
            "object" if probes.is_empty() => probes.push(json!({ "probe": "true" })),
            _ => {}
        }
    }
    probes.retain(|probe| probe != default);
    assert!(!probes.is_empty(), "`{}` accepts nothing but its default", key.path);
    probes
}

/// Whether some probe of the key changes what is rendered.
fn changes_something(helm: &Helm, key: &Key, default: &Value, unchanged: &[String]) -> bool {
    probes(key, default).iter().any(|probe| {
        let setting = format!("{}={probe}", key.path);
        BASELINES.iter().zip(unchanged).any(|(baseline, unchanged)| {
            let arguments = [baseline, &["--set-json", &setting][..]].concat();
            // A refusal is no effect: it must show its effect in another baseline.
            helm.render(&arguments).is_ok_and(|text| text != *unchanged)
        })
    })
}

#[test]
fn every_accepted_key_changes_an_object_or_is_named_as_pending() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let (pending, defaults) = (pending(), defaults());
    let rendered = BASELINES.map(|baseline| helm.render(baseline).expect("the baseline"));
    let (idle, live): (Vec<Key>, Vec<Key>) =
        keys().into_iter().partition(|key| is_pending(&pending, &key.path));

    let dead = live
        .iter()
        .filter(|key| !changes_something(&helm, key, &default_of(&defaults, &key.path), &rendered));
    let dead: Vec<&str> = dead.map(|key| key.path.as_str()).collect();
    assert!(dead.is_empty(), "accepted, and nobody reads them: {dead:?}");

    // All at once, since it takes one rendering.
    let settings: Vec<String> =
        idle.iter().map(|key| format!("{}={}", key.path, probes(key, &Value::Null)[0])).collect();
    for (baseline, unchanged) in BASELINES.iter().zip(&rendered) {
        let all = settings.iter().flat_map(|setting| ["--set-json", setting]);
        let arguments: Vec<&str> = baseline.iter().copied().chain(all).collect();
        let text = helm.render(&arguments).expect("pending keys are accepted");
        if text == *unchanged {
            continue;
        }
        let alive = idle.iter().filter(|k| changes_something(&helm, k, &Value::Null, &rendered));
        let alive: Vec<&str> = alive.map(|key| key.path.as_str()).collect();
        panic!("these change an object, so take them off files/pending.yaml: {alive:?}");
    }
    println!("{} keys change an object, {} are pending", live.len(), idle.len());
}

#[test]
fn pending_sections_have_keys_and_no_default() {
    let (keys, defaults) = (keys(), defaults());
    for (section, reason) in pending() {
        assert!(!reason.is_empty());
        let inside = format!("{section}.");
        assert!(keys.iter().any(|key| key.path.starts_with(&inside)), "`{section}` has no keys");
        // NOTES.txt takes whatever is there for set by the user.
        assert_eq!(default_of(&defaults, &section), Value::Null, "`{section}` has a default");
    }
}

#[test]
fn every_default_is_a_key_of_the_schema() {
    fn leaves(value: &Value, path: &str, keys: &[Key], unknown: &mut Vec<String>) {
        if keys.iter().any(|key| key.path == path) {
            return;
        }
        match value.as_object() {
            Some(inner) => {
                for (name, value) in inner {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(value, &format!("{path}{dot}{name}"), keys, unknown);
                }
            }
            None => unknown.push(path.to_owned()),
        }
    }
    let (mut unknown, keys) = (Vec::new(), keys());
    leaves(&defaults(), "", &keys, &mut unknown);
    assert!(unknown.is_empty(), "{unknown:?}");
    let (pending, defaults) = (pending(), defaults());
    for key in keys.iter().filter(|key| !is_pending(&pending, &key.path)) {
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        let section =
            if section.is_empty() { defaults.clone() } else { default_of(&defaults, section) };
        assert!(section.get(name).is_some(), "`{}` is not in values.yaml", key.path);
    }
}

/// The settings of the published commands, as `--set` takes them.
pub const PUBLISHED_SETTINGS: [&str; 6] = [
    "cost.enabled=true",
    "cost.provider=aws",
    "cost.region=us-west-2",
    "cost.timescaledb.enabled=true",
    "cost.timescaledb.host=timescaledb.default.svc.cluster.local",
    "cost.timescaledb.database=gpucost",
];

#[test]
fn published_settings_and_values_are_accepted() {
    let Some(helm) = Helm::find_or_skip() else { return };
    for setting in PUBLISHED_SETTINGS {
        helm.render(&["--set", setting]).unwrap_or_else(|error| panic!("{setting}: {error}"));
    }
    let published = root().join("../shared/published");
    if !published.exists() {
        eprintln!("skipped: ../shared absent");
        return;
    }
    let folder = tests::scratch::ScratchDir::create("values").expect("a folder");
    let (mut settings, mut files) = (0, 0);
    for document in super::files(&published, ".md") {
        let text = std::fs::read_to_string(&document).expect("readable");
        for (_, setting) in text.match_indices("--set ").map(|(at, m)| text.split_at(at + m.len()))
        {
            let setting = setting.split_whitespace().next().expect("a setting");
            assert!(PUBLISHED_SETTINGS.contains(&setting), "`{setting}` is not tested");
            settings += 1;
        }
        for block in text.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next()) {
            let values = block.lines().next().is_some_and(|line| {
                line.ends_with(':')
                    && keys().iter().any(|k| k.path.starts_with(&line.replace(':', ".")))
            });
            if values {
                let file = folder.write("values.yaml", block).expect("written");
                helm.render(&["--values", &file.to_string_lossy()])
                    .unwrap_or_else(|error| panic!("{}: {error}\n{block}", document.display()));
                files += 1;
            }
        }
    }
    assert_eq!((settings, files > 0), (PUBLISHED_SETTINGS.len(), true));
}

#[test]
fn settings_that_our_documents_show_are_accepted() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let pages = [super::files("docs", ".md"), super::files("docs/runbooks", ".md")].concat();
    let mut shown = 0;
    for page in pages {
        let text = read(&page);
        for (at, flag) in text.match_indices("--set ") {
            let setting =
                text[at + flag.len()..].split([' ', '\n', '`']).next().expect("a setting");
            if setting == "KEY=VALUE" {
                continue;
            }
            let page = page.display();
            helm.render(&["--set", setting]).unwrap_or_else(|e| panic!("{page}: {setting}: {e}"));
            shown += 1;
        }
    }
    assert!(shown > 4, "{shown}");
}

#[test]
fn unknown_keys_and_impossible_values_are_refused_by_name() {
    let Some(helm) = Helm::find_or_skip() else { return };
    for (setting, named) in [
        ("controler.replicaCount=2", "controler"),
        ("controller.replicas=2", "replicas"),
        ("controller.replicaCount=0", "/controller/replicaCount"),
        ("controller.leaderElection=false", "replicaCount"),
        ("autoscaling.spot.targetPercentage=60", "/autoscaling/spot/targetPercentage"),
        ("dcgmExporter.scrapeInterval=10", "/dcgmExporter/scrapeInterval"),
        ("prometheus.server.retention=week", "/prometheus/server/retention"),
        ("controller.prometheusURL=prometheus:9090", "/controller/prometheusURL"),
        ("controller.otlpEndpoint=otel:4317", "/controller/otlpEndpoint"),
        // A password would be on the command line.
        ("controller.prometheusURL=http://me:secret@prometheus", "/controller/prometheusURL"),
    ] {
        let refusal = helm.render(&["--set", setting]).expect_err(setting);
        assert!(refusal.contains(named), "{setting}: {refusal}");
    }
}

#[test]
fn the_chart_is_clean_and_of_the_version_of_the_workspace() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let chart = chart();
    let lint = ["lint", "--strict", &*chart.to_string_lossy(), "--kube-version", "1.36"];
    let answer = helm.run(&lint, None).expect("lint");
    assert!(answer.contains("0 chart(s) failed"), "{answer}");
    let about = yaml(&read("charts/gpu-autoscaler/Chart.yaml")).remove(0);
    for version in ["version", "appVersion"] {
        assert_eq!(about[version], env!("CARGO_PKG_VERSION"), "{version}");
    }
    assert_eq!(about["home"], env!("CARGO_PKG_REPOSITORY"));
}
