//! The table of all traces and strategies, with the published results beside ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gpu_autoscaler_planner::strategy::Strategy;

use benches::replay::{Case, Knowledge, LOAD_MAX, capacity_milli, mean};
use benches::trace;

/// Loads at which the strategies are compared.
const LOADS: std::ops::RangeInclusive<usize> = 50..=LOAD_MAX;
/// Ours may be this many points below fgd at a load.
const BELOW_FGD_MAX: f64 = 0.05;
/// A baseline may be this many points off its published mean.
const OFF_PUBLISHED_MAX: f64 = 0.3;

/// Published allocation at 100 % in percent by trace: the policy that the default must reach.
///
/// A prototype with constants fitted to two of the traces; `docs/designs` tells of it.
const PROTOTYPE: [(&str, f64); 17] = [
    ("default", 96.08),
    ("cpu050", 96.06),
    ("cpu100", 96.05),
    ("cpu200", 96.06),
    ("cpu250", 93.41),
    ("gpushare40", 94.73),
    ("gpushare60", 92.39),
    ("gpushare80", 90.38),
    ("gpushare100", 87.18),
    ("gpuspec10", 95.71),
    ("gpuspec20", 95.61),
    ("gpuspec25", 95.58),
    ("gpuspec33", 94.83),
    ("multigpu20", 96.61),
    ("multigpu30", 97.04),
    ("multigpu40", 97.41),
    ("multigpu50", 97.80),
];

/// A column of the table.
struct Column {
    name: &'static str,
    /// Its name in the published results.
    published: Option<&'static str>,
    strategy: Strategy,
    knowledge: Knowledge,
}

const COLUMNS: [Column; 5] = [
    Column {
        name: "random",
        published: Some("01-Random"),
        strategy: Strategy::Random { seed: 0 },
        knowledge: Knowledge::Given,
    },
    Column {
        name: "bestFit",
        published: Some("05-BestFit"),
        strategy: Strategy::BestFit,
        knowledge: Knowledge::Given,
    },
    Column {
        name: "fgd",
        published: Some("06-FGD"),
        strategy: Strategy::Fgd,
        knowledge: Knowledge::Given,
    },
    Column {
        name: "default",
        published: None,
        strategy: Strategy::Default,
        knowledge: Knowledge::Given,
    },
    Column {
        name: "default, learned",
        published: None,
        strategy: Strategy::Default,
        knowledge: Knowledge::Learned,
    },
];

/// Published means by trace and policy at every load.
type Published = BTreeMap<(String, String), Vec<f64>>;

fn read_published(path: &Path) -> Result<Published> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut sums: BTreeMap<(String, String), (Vec<f64>, u32)> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (Some(trace), Some(policy)) = (fields.first(), fields.get(1)) else { continue };
        let trace = trace.trim_start_matches("openb_pod_list_").to_owned();
        let entry = sums
            .entry((trace, (*policy).to_owned()))
            .or_insert_with(|| (vec![0.0; LOAD_MAX + 1], 0));
        for (sum, field) in entry.0.iter_mut().zip(&fields[5..]) {
            *sum += field.parse::<f64>().with_context(|| format!("`{field}` is no percentage"))?;
        }
        entry.1 += 1;
    }
    let mean = |(sums, runs): (Vec<f64>, u32)| -> Vec<f64> {
        sums.into_iter().map(|sum| sum / f64::from(runs)).collect()
    };
    Ok(sums.into_iter().map(|(key, value)| (key, mean(value))).collect())
}

/// The pod lists of `traces/csv`, by name of the trace, those without arrivals left out.
fn trace_names(traces: &Path, only: &[String]) -> Result<Vec<String>> {
    let csv = traces.join("csv");
    let mut names = Vec::new();
    for entry in fs::read_dir(&csv).with_context(|| format!("list {}", csv.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let trace = name.strip_prefix("openb_pod_list_").and_then(|n| n.strip_suffix(".csv"));
        names.extend(trace.map(str::to_owned));
    }
    names.retain(|name| only.is_empty() || only.contains(name));
    names.sort();
    if names.is_empty() {
        bail!("{} holds no `openb_pod_list_<trace>.csv`", csv.display());
    }
    Ok(names)
}

/// What the table is made of.
pub struct Sources<'a> {
    /// Folder with `csv/`, and optionally `arrival_sequences/` and `expected/`.
    pub traces: &'a Path,
    /// Only these traces; all where empty.
    pub only: &'a [String],
    /// Only these columns; all where empty.
    pub columns: &'a [String],
    /// Seed of the arrivals of a trace that comes without.
    pub seed: u64,
}

/// Prints the table; the JSON, and the lines that do not hold.
pub fn table(sources: &Sources<'_>) -> Result<(serde_json::Value, Vec<String>)> {
    let fleet = trace::read_nodes(&sources.traces.join("csv/openb_node_list_gpu_node.csv"))?;
    let expected = sources.traces.join("expected/analysis_allo_discrete.csv");
    let published = if expected.exists() { read_published(&expected)? } else { Default::default() };
    let mut broken = Vec::new();
    let mut json = serde_json::Map::new();
    println!(
        "{:<12} {:<17} {:>6} {:>6} {:>6} {:>6} {:>6}  {:>15}  at least fgd by",
        "trace", "strategy", "80 %", "90 %", "95 %", "100 %", "130 %", "published"
    );
    for name in trace_names(sources.traces, sources.only)? {
        let pods =
            trace::read_pods(&sources.traces.join(format!("csv/openb_pod_list_{name}.csv")))?;
        let sequence = sources.traces.join(format!("arrival_sequences/seq_{name}.txt"));
        let arrivals = if sequence.exists() {
            trace::read_sequence(&sequence, pods.len())?
        } else {
            let capacity = capacity_milli(&fleet);
            (0..10).map(|i| trace::shuffled(sources.seed + i, &pods, capacity, 1.3)).collect()
        };
        let mut fgd: Option<Vec<f64>> = None;
        for column in &COLUMNS {
            if !sources.columns.is_empty() && !sources.columns.iter().any(|c| c == column.name) {
                continue;
            }
            let case = Case {
                fleet: &fleet,
                pods: &pods,
                strategy: column.strategy,
                knowledge: column.knowledge,
            };
            let result = mean(&case, &arrivals);
            let known = column
                .published
                .and_then(|policy| published.get(&(name.clone(), policy.to_owned())));
            if let Some(known) = known {
                let off = LOADS.map(|l| (result[l] - known[l]).abs()).fold(0.0, f64::max);
                let at_100 = (result[100] - known[100]).abs();
                if at_100 > OFF_PUBLISHED_MAX
                    || (result[130] - known[130]).abs() > OFF_PUBLISHED_MAX
                {
                    broken.push(format!(
                        "{name} {}: {:.2} and {:.2} at 100 % and 130 %, published {:.2} and \
                         {:.2}, limit {OFF_PUBLISHED_MAX} (largest difference {off:.2})",
                        column.name, result[100], result[130], known[100], known[130]
                    ));
                }
            }
            if column.strategy == Strategy::Fgd {
                fgd = Some(result.clone());
            }
            let margin = match (&fgd, column.strategy) {
                (Some(fgd), Strategy::Default) => LOADS
                    .map(|load| (result[load] - fgd[load], load))
                    .min_by(|a, b| a.0.total_cmp(&b.0)),
                _ => None,
            };
            let own = column.strategy == Strategy::Default && column.knowledge == Knowledge::Given;
            if let (true, Some((least, load))) = (own, margin)
                && least < -BELOW_FGD_MAX
            {
                broken.push(format!("{name}: {least:.2} points against fgd at {load} %"));
            }
            let prototype = PROTOTYPE.iter().find(|(trace, _)| *trace == name).map(|(_, v)| *v);
            if let (true, Some(least)) = (own, prototype)
                && result[100] < least
            {
                broken.push(format!("{name}: {:.2} at 100 %, at least {least}", result[100]));
            }
            println!(
                "{name:<12} {:<17} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2}  {:>15}  {}",
                column.name,
                result[80],
                result[90],
                result[95],
                result[100],
                result[130],
                known.map_or(String::new(), |k| format!("{:.2} / {:.2}", k[100], k[130])),
                margin.map_or(String::new(), |(least, load)| format!("{least:+.2} at {load} %")),
            );
            let by_load: serde_json::Map<String, serde_json::Value> =
                LOADS.map(|l| (l.to_string(), serde_json::json!(result[l]))).collect();
            json.entry(name.clone())
                .or_insert_with(|| serde_json::json!({}))
                .as_object_mut()
                .expect("inserted as an object")
                .insert(column.name.to_owned(), serde_json::Value::Object(by_load));
        }
    }
    Ok((serde_json::json!({ "allocation_percent": json, "broken": broken }), broken))
}
