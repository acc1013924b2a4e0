//! Worlds made from the openb trace (Alibaba cluster-trace-gpu-v2023) and its variants.
//!
//! Columns: nodes `sn,cpu_milli,memory_mib,gpu,model`; pods `name,cpu_milli,memory_mib,num_gpu,
//! gpu_milli,gpu_spec` and, where the file has them, `qos,pod_phase,creation_time,deletion_time,
//! scheduled_time`, in seconds.
//!
//! # How the trace becomes a world
//! - The cluster is a part of the trace's: every k-th node, so that it has about the wanted number
//!   of GPUs. All pods run on it: the list is a sample of a month, and all its pods together
//!   never hold more than 71 GPUs at a time, of 6,212.
//! - A machine of the price table stands in only where model and number of GPUs are the same. The
//!   models `G2` and `G3` are anonymous in the trace: they have no instance type, no price, and
//!   24 GiB of framebuffer, which the trace does not tell.
//! - A request for a part of a GPU becomes one for a whole GPU whose use never exceeds that part:
//!   the trace's scheduler shares GPUs and a device plugin does not.
//! - Pods of quality of service `LS` (latency-sensitive) behave as services, all others as batch
//!   work. What they do with their GPUs is drawn: the trace does not tell.
//! - Time starts when a tenth of the pods have been created; whoever runs then runs at the start.
//!   Without times, pods come at random over seven days, as many of them as keep four fifths of
//!   the GPUs busy.
//! - Pods without GPUs are left out.

use std::fmt;
use std::time::Duration;

use gpu_autoscaler_model::{CapacityType, GpuModel, GpuResource, Timestamp};

use crate::catalog::{self, Shape};
use crate::curve::{Curve, Load};
use crate::spec::{self, Counter, Layout, NodeSpec, WorldSpec};
use crate::workload::{Arrival, Job, Workload, draw_life};
use crate::{Chance, Faults};

/// The most bytes of trace text that are read.
pub const TEXT_MAX: usize = 64 << 20;

/// The most GPUs of one node or pod.
const GPUS_MAX: u32 = 64;

/// The most MiB of one machine: 64 TiB.
const MIB_MAX: u64 = 1 << 26;

/// A node of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceNode {
    /// `sn`.
    pub name: String,
    /// `cpu_milli`.
    pub cpu_milli: u64,
    /// `memory_mib`.
    pub memory_mib: u64,
    /// `gpu`; zero for a machine without.
    pub gpus: u32,
    /// `model`.
    pub model: String,
}

/// A pod of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePod {
    /// `name`.
    pub name: String,
    /// `num_gpu`.
    pub gpus: u32,
    /// `gpu_milli`: thousandths of each GPU.
    pub gpu_milli: u32,
    /// `gpu_spec`: models that it may run on; empty for any.
    pub models: Vec<String>,
    /// `qos` is `LS`.
    pub latency_sensitive: bool,
    /// `creation_time` and `deletion_time`, in seconds; `None` where the file has no times.
    pub lives: Option<(u64, u64)>,
}

/// A line of a trace that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: TraceFault,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceFault {
    /// There is nothing to read.
    Empty,
    /// The text is longer than is read.
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// The header lacks a column.
    NoColumn {
        /// Which.
        column: &'static str,
    },
    /// A field is missing.
    NoField {
        /// Of which column.
        column: &'static str,
    },
    /// A field is no whole number within its limit.
    Number {
        /// Of which column.
        column: &'static str,
        /// What it is, at most 40 characters of it.
        found: String,
        /// The most that it may be.
        limit: u64,
    },
    /// A name that Kubernetes would not take.
    Name {
        /// What it is, at most 40 characters of it.
        found: String,
    },
    /// A pod is deleted before it is created.
    EndsBeforeStart {
        /// Its name.
        pod: String,
    },
    /// No line has a GPU.
    NoGpu,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.fault {
            TraceFault::Empty => f.write_str("the file is empty"),
            TraceFault::TooLong { bytes } => {
                write!(f, "the file has {bytes} bytes, at most {TEXT_MAX} are read")
            }
            TraceFault::NoColumn { column } => write!(f, "the header has no column `{column}`"),
            TraceFault::NoField { column } => write!(f, "column `{column}` is missing"),
            TraceFault::Number { column, found, limit } => {
                write!(f, "`{column}` is `{found}`, not a whole number of at most {limit}")
            }
            TraceFault::Name { found } => {
                write!(f, "`{found}` is no name of lower-case letters, digits, `-` and `.`")
            }
            TraceFault::EndsBeforeStart { pod } => {
                write!(f, "pod `{pod}` is deleted before it is created")
            }
            TraceFault::NoGpu => f.write_str("no line of the file has a GPU"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Reads a node list.
///
/// # Errors
/// [`TraceError`] with the first line that cannot be read: a list counts whole or not at all.
pub fn parse_nodes(text: &str) -> Result<Vec<TraceNode>, TraceError> {
    let table = Table::new(text)?;
    let columns = ["sn", "cpu_milli", "memory_mib", "gpu", "model"];
    let [name, cpu, memory, gpus, model] = table.columns(columns)?;
    let mut nodes = Vec::new();
    for row in table.rows() {
        let node = TraceNode {
            name: row.name(name)?,
            // A million cores: no machine comes near.
            cpu_milli: row.number(cpu, 1_000_000_000)?,
            memory_mib: row.number(memory, MIB_MAX)?,
            gpus: row.count(gpus, GPUS_MAX)?,
            model: row.optional(Some(model)).unwrap_or_default().to_owned(),
        };
        nodes.push(node);
    }
    let found = nodes.iter().any(|node| node.gpus > 0);
    if found { Ok(nodes) } else { Err(TraceError { line: 1, fault: TraceFault::NoGpu }) }
}

/// Reads a pod list.
///
/// # Errors
/// As [`parse_nodes`].
pub fn parse_pods(text: &str) -> Result<Vec<TracePod>, TraceError> {
    let table = Table::new(text)?;
    let [name, gpus, milli] = table.columns(["name", "num_gpu", "gpu_milli"])?;
    let optional = |column| table.header.iter().position(|title| *title == column);
    let (models, qos) = (optional("gpu_spec"), optional("qos"));
    let created = optional("creation_time").map(|at| Column { name: "creation_time", at });
    let deleted = optional("deletion_time").map(|at| Column { name: "deletion_time", at });
    let mut pods = Vec::new();
    for row in table.rows() {
        let models = row.optional(models.map(|at| Column { name: "gpu_spec", at }));
        let models = models.unwrap_or_default().split('|').filter(|model| !model.is_empty());
        let pod = TracePod {
            name: row.name(name)?,
            gpus: row.count(gpus, GPUS_MAX)?,
            gpu_milli: row.count(milli, 1_000)?,
            models: models.map(str::to_owned).collect(),
            latency_sensitive: row.optional(qos.map(|at| Column { name: "qos", at })) == Some("LS"),
            lives: created.zip(deleted).map(|pair| row.lives(name, pair)).transpose()?,
        };
        pods.push(pod);
    }
    let found = pods.iter().any(|pod| pod.gpus > 0);
    if found { Ok(pods) } else { Err(TraceError { line: 1, fault: TraceFault::NoGpu }) }
}

/// A world of at least `gpus` GPUs (all of the trace's when it has fewer), as the module says.
pub fn world(
    seed: u64,
    start: Timestamp,
    nodes: &[TraceNode],
    pods: &[TracePod],
    gpus: u32,
    faults: Faults,
) -> WorldSpec {
    let nodes = choose_nodes(seed, nodes, gpus);
    let arrivals = arrivals(seed, pods, &nodes);
    WorldSpec { seed, start, nodes, workload: Workload::Listed(arrivals.into()), faults }
}

fn choose_nodes(seed: u64, nodes: &[TraceNode], gpus: u32) -> Vec<NodeSpec> {
    let mut chance = Chance::stream(seed, "openb/nodes");
    let all: Vec<&TraceNode> = nodes.iter().filter(|node| node.gpus > 0).collect();
    let gpus_in_all: u32 = all.iter().map(|node| node.gpus).fold(0, u32::saturating_add);
    // A stride through the list keeps the mix of models, which the list has in blocks.
    let stride = (f64::from(gpus_in_all) / f64::from(gpus.max(1))).max(1.0);
    let mut at = chance.within(0.0, stride.min(all.len() as f64));
    let mut chosen = Vec::new();
    while let Some(node) = all.get(at as usize) {
        chosen.push(node_spec(node, &mut chance));
        at += stride;
    }
    chosen
}

fn node_spec(node: &TraceNode, chance: &mut Chance) -> NodeSpec {
    let shape = shape(node);
    // Pascal has no profiling counters.
    let counter = if node.model == "P100" { Counter::GpuUtil } else { Counter::GrEngineActive };
    // One machine in twenty is not measured, as happens in clusters of a thousand.
    let measured = !chance.happens(0.05);
    NodeSpec {
        name: node.name.clone(),
        shape,
        layout: Layout::Whole,
        exporter: measured.then(|| spec::draw_exporter(counter, false, chance)),
        capacity_type: CapacityType::OnDemand,
        ailments: Vec::new(),
    }
}

/// The machine of the price table with the same GPUs, or one of no cloud.
fn shape(node: &TraceNode) -> Shape {
    let known = match (node.model.as_str(), node.gpus) {
        ("T4", 1) => Some(catalog::G4DN_XLARGE),
        ("T4", 4) => Some(catalog::G4DN_12XLARGE),
        ("V100M16", 1) => Some(catalog::P3_2XLARGE),
        ("V100M16", 4) => Some(catalog::P3_8XLARGE),
        ("V100M16", 8) => Some(catalog::P3_16XLARGE),
        ("V100M32", 8) => Some(catalog::P3DN_24XLARGE),
        _ => None,
    };
    let (product, fb_mib, watts) = match node.model.as_str() {
        "T4" => ("Tesla T4", 15_360, 70.0),
        "V100M16" => ("Tesla V100-SXM2-16GB", 16_384, 300.0),
        "V100M32" => ("Tesla V100-SXM2-32GB", 32_768, 300.0),
        "P100" => ("Tesla P100-PCIE-16GB", 16_384, 250.0),
        "A10" => ("NVIDIA A10", 23_028, 150.0),
        "G3" => ("G3", 24_576, 250.0),
        "G2" => ("G2", 24_576, 250.0),
        // A model that later traces may bring.
        _ => ("GPU of another model", 24_576, 250.0),
    };
    let stranger = Shape {
        instance_type: None,
        product,
        gpus: node.gpus,
        fb_mib,
        fb_reserved_mib: 400,
        idle_watts: 25.0,
        full_watts: watts,
        cpu_milli: node.cpu_milli,
        memory_mib: node.memory_mib,
    };
    known.map_or(stranger, |shape| Shape {
        cpu_milli: node.cpu_milli,
        memory_mib: node.memory_mib,
        ..shape
    })
}

/// What latency-sensitive pods do with whole GPUs, and how often.
const SERVICES: [(f64, Load); 5] = [
    (40.0, Load::BusyInference),
    (20.0, Load::DailyInference),
    (20.0, Load::QuietInference),
    (8.0, Load::FivePercent),
    (12.0, Load::HeldMemory),
];

/// The same for all others.
const BATCH: [(f64, Load); 5] = [
    (60.0, Load::Training),
    (15.0, Load::Full),
    (10.0, Load::SlowStart),
    (5.0, Load::Stalled),
    (10.0, Load::IdleNotebook),
];

/// Seven days: how long pods of a list without times keep coming.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn arrivals(seed: u64, pods: &[TracePod], nodes: &[NodeSpec]) -> Vec<Arrival> {
    let mut creations: Vec<u64> =
        pods.iter().filter_map(|pod| pod.lives.map(|(created, _)| created)).collect();
    creations.sort_unstable();
    let first = creations.get(creations.len() / 10).copied().unwrap_or(0);
    let models: Vec<GpuModel> =
        nodes.iter().filter_map(|node| GpuModel::parse(node.shape.product)).collect();
    let mut chance = Chance::stream(seed, "openb/pods");
    let mut arrivals = Vec::new();
    for pod in pods.iter().filter(|pod| pod.gpus > 0) {
        // A stream of its own, so that a pod is the same whatever else is in the list.
        let mut own = Chance::stream(seed, &pod.name);
        let job = job(pod, &models, &mut own);
        match pod.lives {
            Some((_, deleted)) if deleted <= first => {}
            Some((created, deleted)) => arrivals.push(Arrival {
                at: Duration::from_secs(created.saturating_sub(first)),
                age: Duration::from_secs(first.saturating_sub(created)),
                job: Job { life: Duration::from_secs(deleted - created), ..job },
            }),
            None => {
                let at = chance.span(Duration::ZERO, WEEK);
                arrivals.push(Arrival { at, age: Duration::ZERO, job });
            }
        }
    }
    if creations.is_empty() {
        thin(&mut arrivals, nodes, &mut chance);
    }
    arrivals.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.job.name.cmp(&b.job.name)));
    arrivals
}

/// Keeps as many pods as hold four fifths of the GPUs over the week.
fn thin(arrivals: &mut Vec<Arrival>, nodes: &[NodeSpec], chance: &mut Chance) {
    let gpus: f64 = nodes.iter().map(|node| f64::from(node.shape.gpus)).sum();
    let held = |arrival: &Arrival| f64::from(arrival.job.count) * arrival.job.life.as_secs_f64();
    let asked: f64 = arrivals.iter().map(held).sum();
    let keep = 0.8 * gpus * WEEK.as_secs_f64() / asked.max(1.0);
    arrivals.retain(|_| chance.happens(keep));
}

fn job(pod: &TracePod, known: &[GpuModel], chance: &mut Chance) -> Job {
    let loads: &[(f64, Load)] = if pod.latency_sensitive { &SERVICES } else { &BATCH };
    let share = f64::from(pod.gpu_milli) / 1_000.0;
    let load = *chance.pick(loads);
    let curve = Curve::draw(load, pod.gpus, chance);
    let named = pod.models.iter().filter_map(|model| GpuModel::parse(product_of(model)));
    let models: Vec<GpuModel> = named.filter(|model| known.contains(model)).collect();
    let (owner_kind, namespace) =
        if pod.latency_sensitive { ("ReplicaSet", "services") } else { ("Job", "batch") };
    Job {
        namespace: namespace.into(),
        name: pod.name.as_str().into(),
        owner_kind,
        owner: pod.name.as_str().into(),
        resource: GpuResource::Whole,
        count: pod.gpus,
        models,
        life: draw_life(load, chance),
        curve: if share < 1.0 { curve.limited_to(share) } else { curve },
        snag: None,
        successors: 0,
    }
}

/// The product that stands for a model of the trace.
fn product_of(model: &str) -> &'static str {
    let node = TraceNode {
        name: String::new(),
        cpu_milli: 0,
        memory_mib: 0,
        gpus: 0,
        model: model.to_owned(),
    };
    shape(&node).product
}

/// Comma-separated text with a header. The traces quote nothing.
struct Table<'a> {
    header: Vec<&'a str>,
    body: &'a str,
}

#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    at: usize,
}

impl<'a> Table<'a> {
    fn new(text: &'a str) -> Result<Self, TraceError> {
        let fault = |fault| TraceError { line: 1, fault };
        if text.len() > TEXT_MAX {
            return Err(fault(TraceFault::TooLong { bytes: text.len() }));
        }
        let text = text.trim_start_matches('\u{feff}');
        let (header, body) = text.split_once('\n').unwrap_or((text, ""));
        let header: Vec<&str> = header.trim_end().split(',').collect();
        if header == [""] {
            return Err(fault(TraceFault::Empty));
        }
        Ok(Self { header, body })
    }

    fn columns<const N: usize>(&self, names: [&'static str; N]) -> Result<[Column; N], TraceError> {
        let mut columns = [Column { name: "", at: 0 }; N];
        for (column, name) in columns.iter_mut().zip(names) {
            let at = self.header.iter().position(|title| *title == name);
            let missing = TraceError { line: 1, fault: TraceFault::NoColumn { column: name } };
            *column = Column { name, at: at.ok_or(missing)? };
        }
        Ok(columns)
    }

    fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        let lines = self.body.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        lines.map(|(at, text)| Row { line: at + 2, fields: text.split(',').collect() })
    }
}

struct Row<'a> {
    line: usize,
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    /// `None` for a column that the file lacks or leaves empty.
    fn optional(&self, column: Option<Column>) -> Option<&'a str> {
        self.fields.get(column?.at).map(|field| field.trim()).filter(|field| !field.is_empty())
    }

    fn field(&self, column: Column) -> Result<&'a str, TraceError> {
        let fault = TraceFault::NoField { column: column.name };
        self.optional(Some(column)).ok_or(TraceError { line: self.line, fault })
    }

    /// Names become those of objects and labels, so that they are checked as such.
    fn name(&self, column: Column) -> Result<String, TraceError> {
        let found = self.field(column)?;
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        if found.len() <= 253 && found.chars().all(allowed) {
            return Ok(found.to_owned());
        }
        let found = found.chars().take(40).collect();
        Err(TraceError { line: self.line, fault: TraceFault::Name { found } })
    }

    fn number(&self, column: Column, limit: u64) -> Result<u64, TraceError> {
        let found = self.field(column)?;
        found.parse().ok().filter(|number| *number <= limit).ok_or_else(|| {
            let found = found.chars().take(40).collect();
            let fault = TraceFault::Number { column: column.name, found, limit };
            TraceError { line: self.line, fault }
        })
    }

    fn count(&self, column: Column, limit: u32) -> Result<u32, TraceError> {
        let number = self.number(column, u64::from(limit))?;
        Ok(u32::try_from(number).expect("at most `limit`"))
    }

    fn lives(&self, name: Column, pair: (Column, Column)) -> Result<(u64, u64), TraceError> {
        // A hundred years in seconds.
        const LIMIT: u64 = 100 * 366 * 86_400;
        let (created, deleted) = (self.number(pair.0, LIMIT)?, self.number(pair.1, LIMIT)?);
        if deleted < created {
            let fault = TraceFault::EndsBeforeStart { pod: self.name(name)? };
            return Err(TraceError { line: self.line, fault });
        }
        Ok((created, deleted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\n\
        n0,64000,262144,2,P100\nn1,96000,393216,8,G2\nn2,48000,196608,4,T4\nn3,8000,1024,0,\n";
    const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,\
        creation_time,deletion_time,scheduled_time\n\
        a,1,1,1,460,,LS,Running,0,900,0\nb,1,1,1,1000,T4|P100,BE,Running,100,4000,100\n\
        c,1,1,0,0,,LS,Running,0,10,0\nd,1,1,8,1000,,BE,Running,200,300,200\n";

    #[test]
    fn traces_are_read_with_their_meaning() {
        let nodes = parse_nodes(NODES).expect("well-formed");
        assert_eq!(nodes.len(), 4);
        assert_eq!(shape(&nodes[2]).instance_type, Some("g4dn.12xlarge"));
        assert_eq!(shape(&nodes[1]).instance_type, None, "anonymous: no price is guessed");
        let pods = parse_pods(PODS).expect("well-formed");
        assert_eq!(pods[0].gpu_milli, 460);
        assert_eq!(pods[1].models, ["T4", "P100"]);
        let spec = world(1, Timestamp::EPOCH, &nodes, &pods, 14, Faults::NONE);
        let Workload::Listed(arrivals) = &spec.workload else { panic!("a trace is a list") };
        assert_eq!(arrivals.len(), 3, "the pod without a GPU is left out");
        let share = arrivals.iter().find(|arrival| &*arrival.job.name == "a").expect("taken");
        let use_ = share.job.curve.mean(0, 0.0, Duration::from_secs(60), Duration::from_secs(800));
        assert!(use_ <= 0.46, "{use_}: never more than the share that was requested");
    }

    #[test]
    fn a_list_without_times_spreads_over_a_week() {
        let pods = parse_pods("name,cpu_milli,memory_mib,num_gpu,gpu_milli\nx,1,1,2,1000\n")
            .expect("the multigpu files have five columns");
        let nodes = parse_nodes(NODES).expect("well-formed");
        let spec = world(1, Timestamp::EPOCH, &nodes, &pods, 14, Faults::NONE);
        let Workload::Listed(arrivals) = &spec.workload else { panic!("a trace is a list") };
        assert!(arrivals[0].at < Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn bad_lines_are_named() {
        let cases = [
            ("", "line 1: the file is empty"),
            ("sn,cpu_milli,memory_mib,gpu\n", "line 1: the header has no column `model`"),
            ("H\nn0,1,1,x,T4\n", "line 2: `gpu` is `x`, not a whole number of at most 64"),
            ("H\n\nn0,1,1,65,T4\n", "line 3: `gpu` is `65`"),
            ("H\nn0,1\n", "line 2: column `memory_mib` is missing"),
            ("H\nn0,1,-1,2,T4\n", "line 2: `memory_mib` is `-1`"),
            ("H\nn0,1,99999999999999999999,2,T4\n", "line 2: `memory_mib` is"),
            ("H\nn\"0,1,1,1,T4\n", "line 2: `n\"0` is no name"),
            ("H\nn0,1,1,0,\n", "line 1: no line of the file has a GPU"),
        ];
        for (text, expected) in cases {
            let text = text.replace('H', "sn,cpu_milli,memory_mib,gpu,model");
            let error = parse_nodes(&text).expect_err(&text);
            assert!(error.to_string().contains(expected), "{error}");
        }
        let ends = "name,num_gpu,gpu_milli,creation_time,deletion_time\nx,1,1000,5,4\n";
        let error = parse_pods(ends).expect_err("it ends before it starts");
        assert_eq!(error.to_string(), "line 2: pod `x` is deleted before it is created");
    }

    #[test]
    fn a_cluster_is_a_fair_part_of_the_trace() {
        let line = |i| format!("n{i},1,1,{},{}\n", if i < 600 { 8 } else { 2 }, "T4");
        let text: String = std::iter::once("sn,cpu_milli,memory_mib,gpu,model\n".to_owned())
            .chain((0..1_200).map(line))
            .collect();
        let nodes = parse_nodes(&text).expect("well-formed");
        for seed in 0..20 {
            let chosen = choose_nodes(seed, &nodes, 150);
            let gpus: u32 = chosen.iter().map(|node| node.shape.gpus).sum();
            assert!((120..=180).contains(&gpus), "seed={seed}: {gpus}");
        }
        let all = choose_nodes(1, &nodes, u32::MAX).len();
        assert_eq!(all, 1_200, "asking for more than there is takes everything");
    }
}
