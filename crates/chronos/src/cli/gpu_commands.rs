//! The commands that look at GPUs: what of them is free, leased, or promised.

use serde_json::json;

use super::arguments::{StatsFormat, Wanted};
use super::exit::Failure;
use super::lease_commands::{failed, request, table};
use super::print::{self, Mark, Output};
use super::views;
use crate::api::{Order, Reply, Victim};
use crate::book::{Book, Epitaph};
use crate::engine::names;
use crate::lease::{Choice, Gpu, Lease, Request};
use crate::os::gpu::Usage;
use crate::os::session::Session;
use crate::os::{clock, history, terminal};
use crate::planner;
use crate::quantity::{Now, Span};
use crate::{Bytes, wanted};

/// Prints the part of a GPU that is free.
pub(super) fn available(session: &mut Session, device: &str, out: Output) -> Result<(), Failure> {
    let gpus = crate::world::World::gpus(session.host())?;
    let gpu = wanted::gpu(device, &gpus)?;
    let position = gpus.iter().position(|g| g.id == gpu).unwrap_or_default();
    let free = planner::free(session.book()?, &gpus, clock::now())[position];
    let percent = percent(free.as_u64(), gpus[position].memory.as_u64());
    if out.json {
        out.object(&json!({
            "apiVersion": views::API_VERSION, "kind": "Available", "gpu": gpu,
            "percent": percent, "freeBytes": free.as_u64(),
        }));
    } else if out.watched() {
        out.line(&format!("{percent:.1}% available on GPU {}", gpus[position].index));
    } else {
        out.line(&format!("{percent:.1}%"));
    }
    Ok(())
}

fn percent(free: u64, total: u64) -> f64 {
    crate::quantity::Ppm::ratio(free, total).map_or(0.0, |part| part.as_f64() * 100.0)
}

/// Prints every GPU, and with `since` the leases that ended.
pub(super) fn stats(
    session: &mut Session,
    detailed: bool,
    since: Option<&str>,
    format: StatsFormat,
    out: Output,
) -> Result<(), Failure> {
    if since.is_some() && !out.json && matches!(format, StatsFormat::Csv | StatsFormat::Prom) {
        let message = "partitions that ended are no part of csv and prom".to_owned();
        return Err(Failure::usage(message, "leave --since out, or take --format table or json"));
    }
    let gpus = crate::world::World::gpus(session.host())?;
    let backend = session.host().backend().name();
    let processes = if detailed { session.host().backend().processes()? } else { Vec::new() };
    let state = session.settings().state.clone();
    let now = clock::now();
    let ended = ended(&state, since, now)?;
    let book = session.book()?.clone();
    let free: Vec<u64> = planner::free(&book, &gpus, now).iter().map(|b| b.as_u64()).collect();
    let as_json = out.json || format == StatsFormat::Json;
    if as_json {
        let numbered = gpus.iter().zip(&free);
        let items = numbered.map(|(gpu, free)| views::gpu(gpu, &book, *free)).collect();
        let mut list = views::list("GpuList", items);
        list["backend"] = json!(backend);
        if let Some(ended) = ended {
            list["ended"] = json!(ended.iter().map(views::epitaph).collect::<Vec<_>>());
        }
        out.object(&list);
        return Ok(());
    }
    match format {
        StatsFormat::Csv => {
            out.line("gpu,index,name,memory_bytes,free_bytes,leases");
            for (gpu, free) in gpus.iter().zip(&free) {
                let name = gpu.name.replace('"', "\"\"");
                let leases = leases_on(&book, gpu);
                let (index, memory) = (gpu.index, gpu.memory.as_u64());
                out.line(&format!("{},{index},\"{name}\",{memory},{free},{leases}", gpu.id));
            }
        }
        StatsFormat::Prom => prometheus(&gpus, &free, &book, out),
        StatsFormat::Table | StatsFormat::Json => {
            if gpus.is_empty() {
                out.line("No GPUs");
            }
            for (gpu, free) in gpus.iter().zip(&free) {
                describe(gpu, *free, &book, backend, out);
                if detailed {
                    detail(gpu, &book, &processes, out);
                }
            }
            for line in ended.into_iter().flatten() {
                let (hours, reason) = (line.gpu_secs / 3_600.0, line.reason);
                out.line(&format!("{}  {}  {hours:.3} GPU-hours  {reason}", line.id, line.user));
            }
        }
    }
    Ok(())
}

fn ended(
    state: &std::path::Path,
    since: Option<&str>,
    now: Now,
) -> Result<Option<Vec<Epitaph>>, Failure> {
    let Some(since) = since else { return Ok(None) };
    let since = Span::parse(since).map_err(Failure::from_quantity)?;
    let from = now.wall.before(std::time::Duration::from_nanos(since.as_nanos()));
    let (mut lines, damaged) = history::read(state)?;
    if damaged > 0 {
        eprintln!(
            "{} {damaged} damaged line(s) of the history left out",
            print::mark(Mark::Warning)
        );
    }
    lines.retain(|line| line.ended >= from);
    Ok(Some(lines))
}

fn leases_on(book: &Book, gpu: &Gpu) -> usize {
    book.leases().filter(|l| l.parts.iter().any(|part| part.gpu == gpu.id)).count()
}

fn describe(gpu: &Gpu, free: u64, book: &Book, backend: &str, out: Output) {
    let total = gpu.memory.as_u64();
    let mib = |bytes: u64| bytes >> 20;
    let held = total.saturating_sub(free);
    out.line(&format!("GPU {}: {}", gpu.index, gpu.name));
    out.line(&format!("  Id: {}", gpu.id));
    out.line(&format!("  Vendor: {} (backend {backend})", gpu.vendor));
    out.line(&format!("  Total: {} MB", mib(total)));
    out.line(&format!("  Used: {} MB", mib(held)));
    out.line(&format!("  Available: {} MB", mib(free)));
    out.line(&format!("  Usage: {:.1}%", 100.0 - percent(free, total)));
    out.line(&format!("  Active partitions: {}", leases_on(book, gpu)));
    match gpu.foreign {
        Some(foreign) => out.line(&format!("  Foreign: {} MB", mib(foreign.as_u64()))),
        None => out.line("  Foreign: unknown"),
    }
    if let Some(fault) = &gpu.fault {
        out.line(&format!("  {} {fault}", out.paint("Fault:", print::RED)));
    }
}

fn detail(gpu: &Gpu, book: &Book, processes: &[Usage], out: Output) {
    let of_gpu = |lease: &&Lease| lease.parts.iter().any(|part| part.gpu == gpu.id);
    let leases: Vec<&Lease> = book.leases().filter(of_gpu).collect();
    for line in process_lines(gpu, book, processes) {
        out.line(&line);
    }
    if !leases.is_empty() {
        for line in table(&leases, clock::now(), out) {
            out.line(&line);
        }
    }
}

/// A line for each process on a GPU, and whose it is.
fn process_lines(gpu: &Gpu, book: &Book, processes: &[Usage]) -> Vec<String> {
    let line = |usage: &Usage| {
        let memory = usage.memory.map_or_else(|| "?".to_owned(), |memory| memory.to_string());
        let whose = leaseholder(book, usage.pid).unwrap_or("foreign");
        format!("  process {}  {memory}  {whose}", usage.pid)
    };
    processes.iter().filter(|usage| usage.gpu == gpu.id).map(line).collect()
}

fn prometheus(gpus: &[Gpu], free: &[u64], book: &Book, out: Output) {
    let metric = |name: &str, help: &str, value: &dyn Fn(usize) -> String| {
        out.line(&format!("# HELP {name} {help}"));
        out.line(&format!("# TYPE {name} gauge"));
        for (position, gpu) in gpus.iter().enumerate() {
            let labels = format!("gpu=\"{}\",index=\"{}\"", gpu.id, gpu.index);
            out.line(&format!("{name}{{{labels}}} {}", value(position)));
        }
    };
    metric("chronos_gpu_memory_bytes", "Memory that partitions may share.", &|i| {
        gpus[i].memory.as_u64().to_string()
    });
    metric("chronos_gpu_memory_free_bytes", "Memory that is not leased.", &|i| free[i].to_string());
    metric("chronos_gpu_leases", "Live partitions.", &|i| leases_on(book, &gpus[i]).to_string());
}

/// Prints where and when a request would be served, and why.
pub(super) fn suggest(session: &mut Session, wanted: &Wanted, out: Output) -> Result<(), Failure> {
    wanted::require(&wanted.require)?;
    let request = request(session, wanted)?;
    let reply = session.ask(&Order::Suggest { request: request.clone() })?;
    let Reply::Suggested { start, parts, preempts } = reply else { return Err(failed(reply)) };
    let why = reasons(session, &request, start)?;
    if out.json {
        out.object(&views::suggestion(start, &parts, &preempts, &why));
        return Ok(());
    }
    let when = if start == Span::ZERO { "now".to_owned() } else { format!("in {start}") };
    out.line(&format!("{} {when}", names(&parts)));
    for Victim { id, user } in preempts {
        out.line(&format!("  suspends partition {id} of user {user}, whose priority is low"));
    }
    for reason in why {
        out.line(&format!("  {reason}"));
    }
    Ok(())
}

/// What stands in the way on each GPU, or what makes it the choice.
fn reasons(session: &mut Session, request: &Request, start: Span) -> Result<Vec<String>, Failure> {
    let gpus = crate::world::World::gpus(session.host())?;
    let now = clock::now();
    let book = session.book()?;
    let free = planner::free(book, &gpus, now);
    let asked_of = |gpu: &Gpu| match &request.choice {
        Choice::These(ids) => ids.contains(&gpu.id),
        Choice::Any { .. } => true,
    };
    let mut why = Vec::new();
    for (gpu, free) in gpus.iter().zip(free).filter(|(gpu, _)| asked_of(gpu)) {
        let asked = request.memory.of(gpu.memory);
        let next = book
            .leases()
            .filter(|l| l.parts.iter().any(|part| part.gpu == gpu.id))
            .filter_map(|l| l.holds_until())
            .min();
        why.push(match (&gpu.fault, asked <= free, next) {
            (Some(fault), ..) => format!("GPU {}: not usable, {fault}", gpu.index),
            (_, true, _) => format!("GPU {}: {free} free, {asked} asked", gpu.index),
            (_, false, Some(next)) => {
                let next = next.since(now.boot);
                format!(
                    "GPU {}: {free} free, {asked} asked; next partition ends in {next}",
                    gpu.index
                )
            }
            (_, false, None) => format!("GPU {}: {free} free, {asked} asked", gpu.index),
        });
    }
    let waiting = book.tickets().len();
    if waiting > 0 && start > Span::ZERO {
        why.push(format!("{waiting} request(s) wait already; none of them is delayed"));
    }
    Ok(why)
}

/// Prints the GPUs and their processes until a key is pressed.
pub(super) fn top(
    session: &mut Session,
    interval: u64,
    frames: Option<u64>,
    out: Output,
) -> Result<(), Failure> {
    let endless = out.watched() && frames.is_none() && !out.json;
    let mut left = frames.unwrap_or(1);
    loop {
        picture(session, out)?;
        left = left.saturating_sub(1);
        if left == 0 && !endless {
            return Ok(());
        }
        if terminal::key_within(std::time::Duration::from_secs(interval.max(1))) {
            return Ok(());
        }
    }
}

/// The machine as it is now: one screen, or one object.
fn picture(session: &mut Session, out: Output) -> Result<(), Failure> {
    let gpus = crate::world::World::gpus(session.host())?;
    let processes = session.host().backend().processes()?;
    let now = clock::now();
    let book = session.book()?;
    let free = planner::free(book, &gpus, now);
    if out.json {
        let process = |usage: &Usage| {
            json!({
                "pid": usage.pid, "gpu": usage.gpu,
                "memoryBytes": usage.memory.map(|memory| memory.as_u64()),
                "lease": leaseholder(book, usage.pid),
            })
        };
        let of = |(gpu, free): (&Gpu, &Bytes)| views::gpu(gpu, book, free.as_u64());
        out.object(&json!({
            "apiVersion": views::API_VERSION,
            "kind": "Top",
            "gpus": gpus.iter().zip(&free).map(of).collect::<Vec<_>>(),
            "processes": processes.iter().map(process).collect::<Vec<_>>(),
            "leases": book.leases().map(|lease| views::lease(lease, now)).collect::<Vec<_>>(),
            "waiting": book.tickets().len(),
        }));
        return Ok(());
    }
    let mut lines = Vec::new();
    for (gpu, free) in gpus.iter().zip(free) {
        let used = 100.0 - percent(free.as_u64(), gpu.memory.as_u64());
        let filled = (used / 5.0).round() as usize;
        let bar = format!("{}{}", "█".repeat(filled), "·".repeat(20 - filled.min(20)));
        lines.push(format!("GPU {} {bar} {used:5.1}% leased  {}", gpu.index, gpu.name));
        lines.extend(process_lines(gpu, book, &processes));
    }
    let leases: Vec<&Lease> = book.leases().collect();
    if leases.is_empty() {
        lines.push("No active partitions".to_owned());
    } else {
        lines.extend(table(&leases, now, out));
    }
    lines.push(format!("{} waiting", book.tickets().len()));
    if let Some(height) = out.lines() {
        cut(&mut lines, height);
        // One write, so that the picture does not flicker.
        lines[0].insert_str(0, "\u{1b}[H\u{1b}[2J");
    }
    out.line(&lines.join("\n"));
    Ok(())
}

/// Leaves the last line and as many of the first as a screen of `height` lines holds, and says how
/// many are left out. The line of the cursor is the screen's last.
fn cut(lines: &mut Vec<String>, height: usize) {
    let room = height.saturating_sub(1).max(3);
    if lines.len() > room {
        let left_out = lines.len() - (room - 2) - 1;
        lines.splice(room - 2..lines.len() - 1, [format!("... {left_out} more lines")]);
    }
}

/// The lease that a process carries the mark of.
fn leaseholder(book: &Book, pid: u32) -> Option<&str> {
    let mark = crate::os::process::mark_of(pid)?;
    book.leases().find(|lease| lease.id.0 == mark).map(|lease| lease.id.0.as_str())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_picture_fits_its_screen_and_says_what_is_left_out() {
        let picture = |lines: usize, height: usize| {
            let mut all: Vec<String> = (1..=lines).map(|line| line.to_string()).collect();
            super::cut(&mut all, height);
            all.join(" ")
        };
        assert_eq!(picture(4, 5), "1 2 3 4");
        assert_eq!(picture(5, 5), "1 2 ... 2 more lines 5");
        assert_eq!(picture(1_004, 24).split(' ').next_back(), Some("1004"));
        assert_eq!(picture(9, 1), "1 ... 7 more lines 9");
    }
}
