//! `explain`: every number of one pod or node, where it is from, and why this was decided.

use anyhow::{Context, Result, bail};
use clap::Args;
use gpu_autoscaler_controller::api::{
    Explanation, Finding, Node, Pod, Question, Rules, Usage, Verdict,
};
use gpu_autoscaler_model::ObjectKey;
use gpu_autoscaler_reconciler::Policy;
use gpu_autoscaler_telemetry::http::{self, Shown};
use serde::Serialize;

use crate::exit::{Exit, Hint};
use crate::fleet::{Fleet, LIMITS};
use crate::fleet_table::{mebibytes, money, monthly, percent};
use crate::output::{self, Format, OutputArgs, Rows, name, prose, word};
use crate::source::{self, Source, SourceArgs};
use crate::{advice, optimize};

/// Arguments of `explain`.
#[derive(Args)]
#[command(after_help = source::HELP)]
pub struct ExplainArgs {
    /// A pod as NAMESPACE/POD or POD, a node as NODE or node/NODE, or a finding as
    /// KIND/NAMESPACE/POD.
    #[arg(value_name = "POD|NODE|FINDING")]
    object: String,
    /// Namespace of a pod that is given without one.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A number, and all that is needed to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Number {
    /// What it is of.
    pub what: String,
    /// With its unit; `-` where it is not known.
    pub value: String,
    /// Who says so, over which time, and by which formula.
    pub from: String,
}

/// What is explained, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    /// The form of this object: `gpu-autoscaler.io/explain/v1`.
    schema: &'static str,
    /// From where, in words.
    source: String,
    /// The object in words.
    object: String,
    numbers: Vec<Number>,
    /// Each rule in the order in which it is asked, with what was measured.
    rules: Vec<Number>,
    /// The outcome in one sentence.
    outcome: String,
    /// What is known of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Explanation>,
    /// What is known of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Node>,
}

/// Reads, finds the object, prints.
pub fn run(args: &ExplainArgs) -> Result<Exit> {
    let policy = Policy::published();
    let fleet = Fleet::read(&args.source, policy.clone())?;
    let explained = match find(args, &fleet)? {
        Object::Node(node) => of_node(&fleet, node),
        Object::Pod(key) => {
            let explanation = match args.source.source() {
                Source::Server(server) => ask(&server, &key)?,
                _ => fleet.explain(&policy, &key),
            };
            let explanation =
                explanation.with_context(|| format!("pod `{key}` is not known any more"))?;
            of_pod(&fleet, &key, explanation)
        }
    };
    let text = match args.output.format {
        Format::Json => output::json(&explained)?,
        Format::Yaml => output::yaml(&explained)?,
        Format::Csv => explained.rows().csv()?,
        Format::Table | Format::Wide | Format::Summary => explained.text(args.output.format),
    };
    output::print(&text)?;
    Ok(fleet.exit())
}

enum Object<'f> {
    Node(&'f Node),
    Pod(ObjectKey),
}

/// The object that is meant: one, or an error that names those that could be.
fn find<'f>(args: &ExplainArgs, fleet: &'f Fleet) -> Result<Object<'f>> {
    let given = args.object.as_str();
    let parts: Vec<&str> = given.split('/').collect();
    let node = |name: &str| fleet.status.nodes.iter().find(|node| node.node == name);
    let pods: Vec<ObjectKey> = match parts.as_slice() {
        ["node" | "nodes", name] => match node(name) {
            Some(node) => return Ok(Object::Node(node)),
            None => Vec::new(),
        },
        ["pod" | "pods", name] => fleet.pods_named(args.namespace.as_deref(), name),
        [name] => match node(name) {
            Some(node) if args.namespace.is_none() => return Ok(Object::Node(node)),
            _ => fleet.pods_named(args.namespace.as_deref(), name),
        },
        [.., namespace, name] => fleet.pods_named(Some(namespace), name),
        [] => Vec::new(),
    };
    match pods.as_slice() {
        [one] => Ok(Object::Pod(one.clone())),
        [] => {
            let hint = "`gpu-autoscaler status` lists GPU pods, `report` lists GPU nodes; other \
                        objects are not looked at";
            Err(anyhow::anyhow!("no GPU pod and no GPU node `{given}` in {}", fleet.source))
                .context(Hint::new(hint))
        }
        several => {
            let names: Vec<String> = several.iter().map(|pod| format!("`{pod}`")).collect();
            bail!("`{given}` may be {}; name one with its namespace", names.join(" or "))
        }
    }
}

fn ask(server: &str, key: &ObjectKey) -> Result<Option<Explanation>> {
    let mut url = http::address(server).context("read `--server`")?;
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/api/v1/explain/{}/{}", key.namespace, key.name));
    let shown = Shown::of(&url);
    let body = source::runtime()?
        .block_on(async { http::read(http::client()?.get(url), &shown, LIMITS).await })?;
    serde_json::from_slice(&body).with_context(|| format!("read the answer of {shown}"))
}

fn of_pod(fleet: &Fleet, key: &ObjectKey, explanation: Explanation) -> Explained {
    let pod = explanation.pod.as_ref();
    let finding = explanation.findings.first();
    let usage = pod
        .and_then(|pod| pod.usage.as_ref())
        .or_else(|| finding.and_then(|finding| finding.usage.as_ref()));
    let node =
        pod.and_then(|pod| fleet.status.nodes.iter().find(|n| Some(&n.node) == pod.node.as_ref()));
    let mut numbers = Vec::new();
    if let Some(pod) = pod {
        numbers.extend(holds(pod));
    }
    if let Some(waiting) = explanation.waiting.as_ref().filter(|w| !w.device_claims.is_empty()) {
        let gpus = waiting.gpus.map_or_else(|| "-".to_owned(), |gpus| gpus.to_string());
        let from = format!("its requests and claims; {}", waiting.device_claims.join("; "));
        numbers.push(number("GPUs wanted", gpus, from));
    }
    if let Some(usage) = usage {
        numbers.extend(used(usage, &explanation.rules));
    }
    if let Some(score) = pod.and_then(|pod| pod.score) {
        numbers.push(score_of(score));
    }
    if let Some(finding) = finding {
        numbers.extend(of_finding(finding));
    }
    numbers.extend(costs(pod, node, finding));
    let rules = explanation.questions.iter().enumerate().map(rule).collect();
    Explained {
        schema: "gpu-autoscaler.io/explain/v1",
        source: fleet.source.clone(),
        object: match pod {
            Some(pod) => format!("pod {key} on {}", pod.node.as_deref().unwrap_or("no node yet")),
            None => format!("pod {key}"),
        },
        numbers,
        rules,
        outcome: outcome(&explanation),
        node: None,
        pod: Some(explanation),
    }
}

fn number(what: impl Into<String>, value: impl Into<String>, from: impl Into<String>) -> Number {
    Number { what: what.into(), value: value.into(), from: from.into() }
}

fn holds(pod: &Pod) -> Vec<Number> {
    let model = pod.model.as_deref().unwrap_or("model not known");
    let devices = match pod.devices.as_slice() {
        [] => "no exporter names it as a holder".to_owned(),
        devices => {
            format!("seen on {}: the exporter's labels `pod` and `UUID`", devices.join(", "))
        }
    };
    vec![
        number("GPUs", pod.gpus.to_string(), format!("requests of the pod; {model}")),
        number("devices", pod.devices.len().to_string(), devices),
    ]
}

fn used(usage: &Usage, rules: &Rules) -> Vec<Number> {
    let counter = match usage.activity_source.as_str() {
        "SM_ACTIVE" => "DCGM_FI_PROF_SM_ACTIVE: share of time with a warp on an SM, over all SMs",
        "GR_ENGINE_ACTIVE" => "DCGM_FI_PROF_GR_ENGINE_ACTIVE: share of time with the engine busy",
        _ => "DCGM_FI_DEV_GPU_UTIL: share of time with any kernel running, however small",
    };
    let share = |value: f64| percent(Some(value));
    let memory = "DCGM_FI_DEV_FB_USED / (USED + FREE + RESERVED)";
    let not_measured = || number("memory", "-", "the exporter reports no framebuffer of it");
    let mut numbers = vec![
        number(
            "observed",
            format!("{} s", usage.observed_secs),
            format!(
                "of a window of {} s, gaps above {} s left out; {} samples",
                rules.window_secs, rules.sample_gap_secs_max, usage.samples
            ),
        ),
        number(
            "compute, mean",
            share(usage.activity_mean),
            format!("{counter}; over time and devices"),
        ),
        number("compute, p95", share(usage.activity_p95), "the same; 95th percentile"),
        number("compute, p99", share(usage.activity_p99), "the same; 99th percentile"),
        number("compute, highest", share(usage.activity_max), "the same; highest sample"),
        number("devices touched", usage.touched.to_string(), "those that computed anything"),
    ];
    match usage.fb_mean {
        Some(mean) => {
            numbers.push(number("memory, mean", share(mean), memory));
            let p95 = usage.fb_p95.map_or("-".to_owned(), share);
            numbers.push(number("memory, p95", p95, "the same; 95th percentile"));
            let most = usage.fb_max_bytes.map_or("-".to_owned(), mebibytes);
            let constant = if usage.preallocated {
                "; constant: where it is allocated in advance it says nothing of what is needed"
            } else {
                ""
            };
            let from = format!("DCGM_FI_DEV_FB_USED, highest of one device{constant}");
            numbers.push(number("memory, highest", most, from));
        }
        None => numbers.push(not_measured()),
    }
    numbers
}

fn score_of(score: gpu_autoscaler_controller::api::Score) -> Number {
    let memory = match score.memory {
        Some(memory) => format!("40 x (1 - mean memory) = {memory:.1}"),
        None => "memory not measured, which counts as used".to_owned(),
    };
    number(
        "waste score",
        format!("{:.1}", score.total),
        format!("60 x (1 - mean compute) = {:.1}, plus {memory}", score.compute),
    )
}

fn of_finding(finding: &Finding) -> Vec<Number> {
    let share = finding.reclaimable;
    let mut numbers = vec![number(
        "reclaimable",
        percent(share),
        "1 - the larger of p95 compute and p95 memory; not known without memory",
    )];
    let advice = &finding.recommendation;
    if let Some(activity) = advice.needed_activity {
        let history = match advice.history_secs {
            Some(0) | None => "no history of its owner and image".to_owned(),
            Some(secs) => format!("and of {secs} s of pods of its owner and image"),
        };
        let memory = advice.needed_memory_bytes.map_or("-".to_owned(), mebibytes);
        let from = format!("p99 of the window, {history}");
        numbers.push(number("needs, compute", percent(Some(activity)), from.clone()));
        numbers.push(number("needs, memory", memory, from));
    }
    numbers.push(number(
        "given back",
        percent(Some(advice.freed)),
        format!("of what it holds, when one follows: {}", advice.text),
    ));
    numbers
}

fn costs(pod: Option<&Pod>, node: Option<&Node>, finding: Option<&Finding>) -> Vec<Number> {
    let mut numbers = Vec::new();
    if let Some(node) = node {
        let unit = [&node.instance_type, &node.capacity_type];
        let unit: Vec<&str> = unit.into_iter().flatten().map(String::as_str).collect();
        let from = match node.cost_per_hour {
            Some(_) => format!("price of {} for {} GPUs", unit.join(", "), shown(node.gpus)),
            None => "no price for its instance type, region and capacity type; none is guessed"
                .to_owned(),
        };
        numbers.push(number("node per hour", money(node.cost_per_hour.as_ref()), from));
    }
    if let Some(pod) = pod {
        let from = "the node's price x the part of its GPUs that the pod requests";
        numbers.push(number("pod per hour", money(pod.cost_per_hour.as_ref()), from));
    }
    if let Some(finding) = finding {
        let saving = finding.saving_per_hour.as_ref();
        let from =
            format!("pod per hour x what is given back; {} a month of 720 h", monthly(saving));
        numbers.push(number("saves per hour", money(saving), from));
    }
    numbers
}

fn shown(count: Option<u32>) -> String {
    count.map_or("an unknown number of".to_owned(), |count| count.to_string())
}

/// A question of the loop's, the `at`th.
fn rule((at, question): (usize, &Question)) -> Number {
    let condition = match (&question.condition, at) {
        (Some(condition), 0) => format!("if {condition}"),
        (Some(condition), _) => format!("else if {condition}"),
        (None, _) => "else".to_owned(),
    };
    let measured = match (&question.measured, &question.condition) {
        (Some(measured), _) => measured.as_str(),
        (None, Some(_)) => "not measured",
        (None, None) => "",
    };
    number(question.outcome.as_deref().unwrap_or("no waste"), measured, condition)
}

fn outcome(explanation: &Explanation) -> String {
    match explanation.verdict {
        Verdict::Waste => {
            let told = explanation.findings.iter().map(|finding| {
                let command = advice::command(finding);
                let command = command.map(|text| format!(" To do so: {text}")).unwrap_or_default();
                format!(
                    "{} since {}: {}. Recommended: {}.{command}",
                    finding.kind,
                    finding.since,
                    optimize::why(finding),
                    finding.recommendation.text
                )
            });
            told.collect::<Vec<_>>().join("\n")
        }
        Verdict::NoWaste => "no waste: it is measured, and no rule accuses it".to_owned(),
        Verdict::Unknown => {
            let why: Vec<&str> = explanation.unknown.iter().map(|u| u.message.as_str()).collect();
            let why = if why.is_empty() { "not observed yet" } else { &why.join("; ") };
            format!("not known, and so neither idle nor busy: {why}")
        }
        Verdict::NotDecided => {
            let why = explanation.refusal.as_deref().unwrap_or("no reason is known");
            format!("not decided: {why}")
        }
    }
}

fn of_node(fleet: &Fleet, node: &Node) -> Explained {
    let of_node = |pod: &&Pod| pod.node.as_ref() == Some(&node.node);
    let pods: Vec<&Pod> = fleet.status.pods.iter().filter(of_node).collect();
    let names: Vec<String> =
        pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.pod)).collect();
    let gpus: u32 = pods.iter().map(|pod| pod.gpus).sum();
    let mut unknown: Vec<&str> = fleet
        .status
        .unknown
        .iter()
        .filter(|unknown| unknown.node == node.node)
        .map(|unknown| unknown.message.as_str())
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    let mut numbers = vec![
        number(
            "GPUs",
            shown(node.gpus),
            format!(
                "labels and capacity of the node; {}",
                node.model.as_deref().unwrap_or("model not known")
            ),
        ),
        number("pods", pods.len().to_string(), names.join(", ")),
        number("requested", gpus.to_string(), "GPUs, slices and replicas, by those pods"),
        number(
            "compute, mean",
            percent(node.activity),
            "over all devices, by the window of their pods; - unless all are measured",
        ),
        number(
            "last measured",
            node.measured_at.clone().unwrap_or_else(|| "never".to_owned()),
            if node.exporter_up { "its exporter is alive" } else { "its exporter is silent" },
        ),
    ];
    numbers.extend(costs(None, Some(node), None));
    let outcome = match (node.underutilized, unknown.as_slice()) {
        (Some(true), _) => {
            "underutilized: mean compute is below the threshold of scaling down".to_owned()
        }
        (Some(false), _) => "used".to_owned(),
        (None, []) => "not known".to_owned(),
        (None, why) => format!("not known: {}", why.join("; ")),
    };
    Explained {
        schema: "gpu-autoscaler.io/explain/v1",
        source: fleet.source.clone(),
        object: format!("node {}", node.node),
        numbers,
        rules: Vec::new(),
        outcome,
        pod: None,
        node: Some(node.clone()),
    }
}

impl Explained {
    fn rows(&self) -> Rows {
        let row =
            |number: &Number| vec![number.what.clone(), number.value.clone(), number.from.clone()];
        Rows {
            columns: vec![word("what"), name("value"), prose("from")],
            rows: self.numbers.iter().chain(&self.rules).map(row).collect(),
        }
    }

    /// Blocks, because what a number is from is a sentence that a table would cut.
    fn text(&self, format: Format) -> String {
        let width = output::width().unwrap_or(100).max(60);
        let mut text = format!("=== {} ===\nSource: {}\n\n", self.object, self.source);
        // A time is 20 long; what is longer yet stands out alone.
        let value = |one: &Number| one.value.chars().count();
        let longest = self.numbers.iter().map(value).max().unwrap_or(0).clamp(12, 20);
        let lines = |numbers: &[Number]| -> String {
            let line = |one: &Number| {
                let head = format!("  {:<17} {:>longest$}  ", one.what, one.value);
                output::wrapped(&head, &one.from, width)
            };
            numbers.iter().map(line).collect()
        };
        if format != Format::Summary {
            text.push_str(&lines(&self.numbers));
            if !self.rules.is_empty() {
                text.push_str("\nRules, the first that holds decides:\n");
                text.push_str(&lines(&self.rules));
            }
            text.push('\n');
        }
        for line in self.outcome.lines() {
            text.push_str(&output::wrapped("Outcome: ", line, width));
        }
        text
    }
}
