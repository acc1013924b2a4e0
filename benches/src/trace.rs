//! Reads node lists, pod lists and arrival sequences in the form of the openb trace.
//!
//! Source of the form: Alibaba `cluster-trace-gpu-v2023` and the FGD simulator.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gpu_autoscaler_planner::fleet::{
    Amounts, Fleet, Gpu, GpuPicker, Isolation, Node, Sharing, WHOLE_GPU_MILLI,
};
use gpu_autoscaler_planner::request::{GpuRequest, Links, Pod, PodKind, Request};

/// The FGD simulator lets a node run this many pods.
const PODS_PER_NODE: u32 = 1001;

/// Rows of a CSV file whose first row names the columns.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let split = |line: &str| line.split(',').map(|f| f.trim().to_owned()).collect::<Vec<_>>();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let columns = split(lines.next().with_context(|| format!("{} is empty", path.display()))?);
        Ok(Self { columns, rows: lines.map(split).collect() })
    }

    fn column(&self, name: &str) -> Result<usize> {
        match self.columns.iter().position(|column| column == name) {
            Some(at) => Ok(at),
            None => bail!("column `{name}` is missing; there are {:?}", self.columns),
        }
    }
}

fn number(row: &[String], at: usize) -> Result<u64> {
    let text = row.get(at).map_or("", String::as_str);
    text.parse().with_context(|| format!("`{text}` is no number in row {row:?}"))
}

/// Reads a node list (`sn,cpu_milli,memory_mib,gpu,model`), sorted by name.
pub fn read_nodes(path: &Path) -> Result<Fleet> {
    let table = Table::read(path)?;
    let at = |name| table.column(name);
    let (sn, cpu, memory, gpu) = (at("sn")?, at("cpu_milli")?, at("memory_mib")?, at("gpu")?);
    let model = at("model")?;
    let mut nodes = Vec::new();
    for row in &table.rows {
        let allocatable = Amounts {
            cpu_milli: number(row, cpu)?,
            memory_bytes: number(row, memory)? << 20,
            pods: PODS_PER_NODE,
        };
        nodes.push(Node {
            name: row[sn].as_str().into(),
            schedulable: true,
            labels: Default::default(),
            taints: Vec::new(),
            gpu_model: row.get(model).map_or("", String::as_str).into(),
            allocatable,
            free: allocatable,
            // The trace gives shares in thousandths and no framebuffer.
            gpus: (0..number(row, gpu)?).map(|_| Gpu::new(Sharing::Fraction, 0)).collect(),
            picker: GpuPicker::Plan,
            tenants: Vec::new(),
            extended_free: Default::default(),
        });
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Fleet::new(nodes))
}

/// Reads a pod list (`name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec,...]`), sorted by
/// name, so that a row index of an arrival sequence is a position.
pub fn read_pods(path: &Path) -> Result<Vec<Pod>> {
    let table = Table::read(path)?;
    let at = |name| table.column(name);
    let (name, cpu, memory) = (at("name")?, at("cpu_milli")?, at("memory_mib")?);
    let (count, milli) = (at("num_gpu")?, at("gpu_milli")?);
    let spec = at("gpu_spec").ok();
    let mut pods = Vec::new();
    for row in &table.rows {
        let count = u16::try_from(number(row, count)?).context("num_gpu")?;
        let milli = u16::try_from(number(row, milli)?).context("gpu_milli")?;
        let gpu = match (count, milli) {
            (0, _) => GpuRequest::None,
            (1, milli) if milli < WHOLE_GPU_MILLI => {
                GpuRequest::Share { compute_milli: milli, memory_mib: 0 }
            }
            (count, WHOLE_GPU_MILLI) => GpuRequest::Whole { count },
            _ => bail!("{count} GPUs of {milli} thousandths each in row {row:?}"),
        };
        let spec = spec.and_then(|at| row.get(at)).map_or("", String::as_str);
        let mut models: Vec<Arc<str>> =
            spec.split('|').filter(|model| !model.is_empty()).map(Arc::from).collect();
        models.sort();
        models.dedup();
        pods.push(Pod {
            name: row[name].as_str().into(),
            priority: 0,
            kind: PodKind::plain(Request {
                cpu_milli: number(row, cpu)?,
                memory_bytes: number(row, memory)? << 20,
                gpu,
                models,
                isolation: Isolation::None,
                links: Links::Any,
                extended: Vec::new(),
            }),
            gang: None,
        });
    }
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

/// A pod, and when it came and how long it ran.
pub struct Life {
    /// The pod.
    pub pod: Pod,
    /// When it came, in seconds of the trace.
    pub created: u64,
    /// For how long it ran, in seconds.
    pub seconds: u64,
}

/// Reads the pods of a list that has `creation_time`, `scheduled_time` and `deletion_time`,
/// sorted by name. Those that were never scheduled are left out.
pub fn read_lives(path: &Path) -> Result<Vec<Life>> {
    let table = Table::read(path)?;
    let at = |name| table.column(name);
    let (name, created) = (at("name")?, at("creation_time")?);
    let (scheduled, deleted) = (at("scheduled_time")?, at("deletion_time")?);
    let mut times = Vec::new();
    for row in table.rows.iter().filter(|row| !row[scheduled].is_empty()) {
        let start = number(row, scheduled)?;
        let seconds = number(row, deleted)?.saturating_sub(start);
        times.push((row[name].as_str(), number(row, created)?, seconds));
    }
    times.sort_unstable();
    let mut lives = Vec::new();
    for pod in read_pods(path)? {
        if let Ok(found) = times.binary_search_by(|(name, ..)| (*name).cmp(&*pod.name)) {
            let (_, created, seconds) = times[found];
            lives.push(Life { pod, created, seconds });
        }
    }
    Ok(lives)
}

/// One order of arrival.
pub struct Arrivals {
    /// Its seed.
    pub seed: u64,
    /// Positions in the pod list.
    pub order: Vec<usize>,
}

/// Reads a sequence file: a line per seed, `seed index index ...`.
pub fn read_sequence(path: &Path, pods: usize) -> Result<Vec<Arrivals>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut numbers = line.split_whitespace().map(|word| {
            word.parse::<u64>().with_context(|| format!("`{word}` is no number in a sequence"))
        });
        let seed = numbers.next().context("a line of the sequence is empty")??;
        let order = numbers.map(|n| n.map(|n| n as usize)).collect::<Result<Vec<_>>>()?;
        if let Some(bad) = order.iter().find(|&&index| index >= pods) {
            bail!("sequence of seed {seed} names row {bad}, but the pod list has {pods} rows");
        }
        lines.push(Arrivals { seed, order });
    }
    Ok(lines)
}

/// An order of arrival of our own: a shuffle, lengthened by pods drawn from the list, or
/// shortened, to `ratio` times the GPUs of the fleet.
pub fn shuffled(seed: u64, pods: &[Pod], capacity_milli: u64, ratio: f64) -> Arrivals {
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..pods.len()).collect();
    random.shuffle(&mut order);
    let target = (capacity_milli as f64 * ratio) as u64;
    let mut total = 0;
    order.retain(|&index| {
        let size = u64::from(pods[index].kind.request.gpu_milli());
        let fits = total + size <= target;
        total += if fits { size } else { 0 };
        fits
    });
    // A list without any GPU never reaches the target.
    while pods.iter().any(|pod| pod.kind.request.gpu_milli() > 0) {
        let index = random.below(pods.len());
        let size = u64::from(pods[index].kind.request.gpu_milli());
        if total + size > target {
            break;
        }
        total += size;
        order.push(index);
    }
    Arrivals { seed, order }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Puts `list` in a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}
