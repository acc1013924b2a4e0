//! The commands that look at or change leases.

use std::process::ExitCode;

use gpu_autoscaler_model::Timestamp;
use serde_json::json;

use super::arguments::{Command, QueueCommand, Shell, StatsFormat, Wanted};
use super::exit::Failure;
use super::print::{self, Mark, Output};
use super::views;
use crate::api::{Order, Reply};
use crate::engine::{names, phase_word};
use crate::lease::{Binding, Gpu, Lease, Phase, Request, ReservationId};
use crate::os::session::{Session, lease_id};
use crate::os::supervise::{self, Outcome};
use crate::os::{clock, history, terminal};
use crate::planner;
use crate::quantity::{NANOS, Now, Span};
use crate::refusal::Refusal;
use crate::wanted;

/// Runs one of them.
pub fn run(session: &mut Session, command: Command, out: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Create(wanted) => return create(session, &wanted, out),
        Command::Run { wanted, lease, job } => return job_in_lease(session, &wanted, lease, &job),
        Command::Join { id, job } => return join(session, &id, &job),
        Command::List { user, gpu, all: _ } => list(session, user.as_deref(), gpu, out)?,
        Command::Get { id } => get(session, &id, out)?,
        Command::Env { id, shell } => env(session, &id, shell, out)?,
        Command::Release { id, force } => return release(session, &id, force, out),
        Command::ForceRelease { id } => return release(session, &id, true, out),
        Command::Extend { id, by } => extend(session, &id, &by, out)?,
        Command::Queue { what } => queue(session, what, out)?,
        Command::Suspend { id } => suspend(session, &id, out)?,
        Command::Resume { id, duration, wait } => {
            return resume(session, &id, duration.as_deref(), wait.as_deref(), out);
        }
        Command::Attach { id, pid } => {
            let lease = expect_lease(session.ask(&Order::Attach { id: lease_id(&id)?, pid })?)?;
            say(out, "Attached", &format!("Process {pid} belongs to partition {}", lease.id));
        }
        Command::Available { device } => available(session, &device, out)?,
        Command::Stats { detailed, all: _, since, format } => {
            stats(session, detailed, since.as_deref(), format, out)?;
        }
        Command::Suggest(wanted) => suggest(session, &wanted, out)?,
        Command::Top { interval, frames } => top(session, interval, frames, out)?,
        Command::Reap => crate::os::guard::reap(session.settings())?,
        _ => unreachable!("the other commands need no session and are done before"),
    }
    Ok(ExitCode::SUCCESS)
}

fn say(out: Output, kind: &str, text: &str) {
    if out.json {
        out.object(&json!({
            "apiVersion": views::API_VERSION, "kind": "Done", "done": kind, "message": text,
        }));
    } else {
        out.done(text);
    }
}

fn failed(reply: Reply) -> Failure {
    match reply {
        Reply::Refused { refusal } => (*refusal).into(),
        Reply::Failed { message, hint } => Failure::failed(message, hint),
        other => Failure::failed(format!("an answer to another question: {other:?}"), None),
    }
}

fn expect_lease(reply: Reply) -> Result<Lease, Failure> {
    match reply {
        Reply::Lease { lease } => Ok(*lease),
        other => Err(failed(other)),
    }
}

fn expect_done(reply: Reply) -> Result<(), Failure> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(failed(other)),
    }
}

/// What the arguments ask for, with the GPUs of this machine.
fn request(session: &mut Session, wanted: &Wanted) -> Result<Request, Failure> {
    let gpus = session.host().backend().gpus()?;
    let defaults = wanted::Defaults::of(&session.settings().config);
    Ok(wanted::request(wanted, &gpus, &defaults)?)
}

/// Takes a lease as the arguments ask, waiting for it if they say so.
fn take(session: &mut Session, wanted: &Wanted, binding: Binding) -> Result<Lease, Failure> {
    wanted::require(&wanted.require)?;
    let request = request(session, wanted)?;
    let wait = wanted.wait.as_deref().map(Span::parse).transpose();
    let order = Order::Create {
        request,
        binding,
        wait: wait.map_err(Failure::from_quantity)?,
        holder: (binding == Binding::Creator).then(std::process::id),
        user: wanted.user.clone(),
    };
    let reply = session.ask(&order)?;
    wait_out(session, reply)
}

/// Waits in the queue where the reply is a ticket, and says so.
fn wait_out(session: &mut Session, reply: Reply) -> Result<Lease, Failure> {
    let (ticket, start) = match reply {
        Reply::Waiting { ticket, start } => (ticket, start),
        reply => return expect_lease(reply),
    };
    let watched = terminal::watched();
    let mut last = String::new();
    let promise = start.map_or_else(String::new, |start| format!(", expected in {start}"));
    eprintln!("{} waiting as {}{promise}", print::mark(Mark::Warning), ticket.id);
    let granted = session.wait_for(&ticket, |book| {
        let order = planner::order(book, clock::boottime());
        let place = order.iter().position(|t| t.id == ticket.id).map_or(0, |place| place + 1);
        let text = format!("place {place} of {}", order.len());
        if watched && text != last {
            eprint!("\r\u{1b}[2K{text}");
            last = text;
        }
    })?;
    if watched {
        eprint!("\r\u{1b}[2K");
    }
    Ok(granted?)
}

fn create(session: &mut Session, wanted: &Wanted, out: Output) -> Result<ExitCode, Failure> {
    if let Some(start) = &wanted.start {
        return reserve(session, wanted, start, out);
    }
    let lease = take(session, wanted, Binding::Deadline)?;
    let now = clock::now();
    if out.json {
        out.object(&views::lease(&lease, now));
        return Ok(ExitCode::SUCCESS);
    }
    out.done(&format!("Created partition {}", lease.id));
    let noun = if lease.parts.len() == 1 { "Device" } else { "Devices" };
    out.line(&format!("  {noun}: {}", names(&lease.parts)));
    let first = &lease.parts[0];
    out.line(&format!("  Memory: {} ({})", first.fraction, first.memory));
    out.line(&format!("  Duration: {}", lease.request.duration));
    out.line(&format!("  User: {}", lease.owner.user));
    out.line(&format!("  Enforcement: {}", enforcement(session, &lease)));
    out.line("  To use it:");
    out.line(&format!("    eval \"$(chronos env {})\"", lease.id));
    Ok(ExitCode::SUCCESS)
}

/// What is in force, in one line, before any process joins.
fn enforcement(session: &mut Session, lease: &Lease) -> String {
    let guards = super::doctor::guards(session.host(), lease);
    let tree = if lease.fenced { "cgroup" } else { "environment" };
    format!("memory=none (by agreement) compute=none tree={tree} expiry={guards}")
}

fn reserve(
    session: &mut Session,
    wanted: &Wanted,
    start: &str,
    out: Output,
) -> Result<ExitCode, Failure> {
    let start: Timestamp =
        start.parse().map_err(|e: gpu_autoscaler_model::ParseTimestampError| {
            Failure::usage(e.to_string(), "write the start as 2026-12-24T18:00:00Z")
        })?;
    let request = request(session, wanted)?;
    match session.ask(&Order::Reserve { request, start })? {
        Reply::Reserved { reservation } => {
            if out.json {
                out.object(&views::reservation(&reservation));
            } else {
                out.done(&format!("Reserved {}", reservation.id));
                let (what, from) = (names(&reservation.parts), reservation.start);
                out.line(&format!("  {what} from {from} for {}", reservation.duration));
                out.line(&format!(
                    "  To take it up: chronos run --reservation {} -- CMD",
                    reservation.id
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        other => Err(failed(other)),
    }
}

fn job_in_lease(
    session: &mut Session,
    wanted: &Wanted,
    id: Option<String>,
    job: &[std::ffi::OsString],
) -> Result<ExitCode, Failure> {
    let supervised = |failure: Failure| failure.with_exit(125);
    let lease = match id {
        None => take(session, wanted, Binding::Creator)?,
        Some(id) => return join(session, &id, job),
    };
    let outcome = supervise::run(session, &lease, job, |text| {
        eprintln!("{} {text}", print::mark(Mark::Warning));
    });
    Ok(match outcome.map_err(|fault| supervised(fault.into()))? {
        Outcome::Exited(code) => ExitCode::from(code),
        Outcome::Ended { reason, killed } => {
            eprintln!("{} partition {} {reason}", print::mark(Mark::Warning), lease.id);
            ExitCode::from(if killed { 137 } else { 124 })
        }
    })
}

/// Enters a lease and becomes the job.
fn join(session: &mut Session, id: &str, job: &[std::ffi::OsString]) -> Result<ExitCode, Failure> {
    let id = lease_id(id)?;
    let lease = session.book()?.lease(&id).cloned();
    let lease = lease.ok_or(Refusal::NoSuchLease { id: id.0.clone() })?;
    let order = Order::Attach { id, pid: std::process::id() };
    let entered = expect_lease(session.ask(&order)?).map_err(|failure| failure.with_exit(125))?;
    debug_assert_eq!(entered.id, lease.id);
    let Err(fault) = supervise::become_member(session, &entered, job);
    let missing = matches!(&fault, crate::os::Fault::Os { source, .. }
        if source.kind() == std::io::ErrorKind::NotFound);
    Err(Failure::from(fault).with_exit(if missing { 127 } else { 126 }))
}

fn list(
    session: &mut Session,
    user: Option<&str>,
    gpu: Option<u32>,
    out: Output,
) -> Result<(), Failure> {
    let book = session.book()?;
    let now = clock::now();
    let mut leases: Vec<&Lease> = book
        .leases()
        .filter(|l| user.is_none_or(|user| l.owner.user == user))
        .filter(|l| gpu.is_none_or(|gpu| l.parts.iter().any(|part| part.index == gpu)))
        .collect();
    leases.sort_by_key(|lease| (lease.granted, lease.id.clone()));
    if out.json {
        let items = leases.iter().map(|lease| views::lease(lease, now)).collect();
        out.object(&views::list("LeaseList", items));
        return Ok(());
    }
    if leases.is_empty() {
        out.line("No active partitions");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = leases.iter().map(|lease| row(lease, now)).collect();
    out.table(&["ID", "Device", "Memory", "Time Left", "Owner", "Status"], &rows);
    out.line(&format!("Total: {} partition(s)", leases.len()));
    Ok(())
}

fn row(lease: &Lease, now: Now) -> Vec<String> {
    let numbers: Vec<String> = lease.parts.iter().map(|part| part.index.to_string()).collect();
    let status = match lease.phase {
        Phase::Active => "● ACTIVE".to_owned(),
        _ => format!("● {}", phase_word(&lease.phase).to_uppercase()),
    };
    vec![
        lease.id.0.clone(),
        numbers.join(","),
        lease.parts[0].fraction.to_string(),
        lease.remaining(now.boot).to_string(),
        lease.owner.user.clone(),
        status,
    ]
}

fn find(session: &mut Session, id: &str) -> Result<Lease, Failure> {
    let id = lease_id(id)?;
    let lease = session.book()?.lease(&id).cloned();
    Ok(lease.ok_or(Refusal::NoSuchLease { id: id.0 })?)
}

fn get(session: &mut Session, id: &str, out: Output) -> Result<(), Failure> {
    let lease = find(session, id)?;
    let now = clock::now();
    if out.json {
        out.object(&views::lease(&lease, now));
        return Ok(());
    }
    let mut fields = vec![
        ("partition", lease.id.0.clone()),
        ("gpus", names(&lease.parts)),
        ("memory", format!("{} ({}) on each", lease.parts[0].fraction, lease.parts[0].memory)),
        ("user", lease.owner.user.clone()),
        ("phase", phase_word(&lease.phase).to_owned()),
        ("time left", lease.remaining(now.boot).to_string()),
        ("priority", lease.request.priority.to_string()),
        ("enforcement", enforcement(session, &lease)),
    ];
    if let Some(compute) = lease.parts[0].compute {
        fields.insert(3, ("compute", format!("{compute} (by agreement)")));
    }
    if let Some(name) = &lease.request.name {
        fields.insert(1, ("name", name.clone()));
    }
    for (field, value) in fields {
        out.line(&format!("{field}: {value}"));
    }
    Ok(())
}

fn env(session: &mut Session, id: &str, shell: Shell, out: Output) -> Result<(), Failure> {
    let lease = find(session, id)?;
    if lease.phase != Phase::Active {
        let (phase, verb) = (phase_word(&lease.phase).to_owned(), "joined".to_owned());
        return Err(Refusal::WrongPhase { id: lease.id, phase, verb }.into());
    }
    let vendor = session.host().backend().gpus()?.first().map(|gpu| gpu.vendor);
    let variables = supervise::environment(&lease, vendor);
    if out.json {
        out.object(&json!(variables.into_iter().collect::<std::collections::BTreeMap<_, _>>()));
        return Ok(());
    }
    for (name, value) in variables {
        // The values contain letters, digits, `-`, `,`, `.` and `_` only; quoted all the same.
        out.line(&match shell {
            Shell::Sh => format!("export {name}='{value}'"),
            Shell::Fish => format!("set -gx {name} '{value}'"),
            Shell::Csh => format!("setenv {name} '{value}'"),
        });
    }
    Ok(())
}

fn release(session: &mut Session, id: &str, force: bool, out: Output) -> Result<ExitCode, Failure> {
    let id = lease_id(id)?;
    match session.ask(&Order::Release { id: id.clone(), force, finished: false })? {
        Reply::Released { pending: false } => {
            say(out, "Released", &format!("Released partition {id}"));
            Ok(ExitCode::SUCCESS)
        }
        Reply::Released { pending: true } => {
            let text = "the kernel has not let go of some of its processes; guards go on";
            eprintln!("{} partition {id}: {text}", print::mark(Mark::Warning));
            Ok(ExitCode::from(75))
        }
        other => Err(failed(other)),
    }
}

fn extend(session: &mut Session, id: &str, by: &str, out: Output) -> Result<(), Failure> {
    let by = Span::parse(by).map_err(Failure::from_quantity)?;
    let lease = expect_lease(session.ask(&Order::Extend { id: lease_id(id)?, by })?)?;
    let now = clock::now();
    if out.json {
        out.object(&views::lease(&lease, now));
    } else {
        let left = lease.remaining(now.boot);
        out.done(&format!("Extended partition {} by {by}: {left} left", lease.id));
    }
    Ok(())
}

fn queue(session: &mut Session, what: Option<QueueCommand>, out: Output) -> Result<(), Failure> {
    if let Some(QueueCommand::Cancel { id }) = what {
        let order = if id.starts_with("reservation_") {
            Order::Unreserve { id: ReservationId(lease_id(&id)?.0) }
        } else {
            let known = session.book()?.ticket(&lease_id(&id)?).is_some();
            if !known {
                return Err(Refusal::NoSuchLease { id }.into());
            }
            Order::Leave { id: lease_id(&id)? }
        };
        expect_done(session.ask(&order)?)?;
        say(out, "Cancelled", &format!("Cancelled {id}"));
        return Ok(());
    }
    let gpus = session.host().backend().gpus()?;
    let now = clock::now();
    let book = session.book()?;
    let plan = planner::plan(book, &gpus, now, None);
    let start = |id: &crate::lease::LeaseId| {
        let planned = plan.iter().find(|planned| planned.id == *id)?;
        match &planned.verdict {
            planner::Verdict::Now(_) => Some(Span::ZERO),
            planner::Verdict::Later { start, .. } => Some(start.since(now.boot)),
            planner::Verdict::Never(_) => None,
        }
    };
    let order = planner::order(book, now.boot);
    if out.json {
        let numbered = order.iter().enumerate();
        let mut items: Vec<_> =
            numbered.map(|(i, t)| views::ticket(t, i + 1, start(&t.id), now.boot)).collect();
        items.extend(book.reservations().map(views::reservation));
        out.object(&views::list("TicketList", items));
        return Ok(());
    }
    if order.is_empty() && book.reservations().len() == 0 {
        out.line("The queue is empty");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = order
        .iter()
        .enumerate()
        .map(|(place, ticket)| {
            vec![
                (place + 1).to_string(),
                ticket.id.0.clone(),
                ticket.owner.user.clone(),
                ticket.request.priority.to_string(),
                now.boot.since(ticket.since).to_string(),
                start(&ticket.id).map_or_else(|| "?".to_owned(), |start| start.to_string()),
            ]
        })
        .collect();
    out.table(&["Place", "ID", "Owner", "Priority", "Waited", "Starts in"], &rows);
    for reservation in book.reservations() {
        out.line(&format!(
            "{}: {} from {} for {}, user {}",
            reservation.id,
            names(&reservation.parts),
            reservation.start,
            reservation.duration,
            reservation.owner.user
        ));
    }
    Ok(())
}

fn suspend(session: &mut Session, id: &str, out: Output) -> Result<(), Failure> {
    match session.ask(&Order::Suspend { id: lease_id(id)? })? {
        Reply::Suspended { checkpointed: true } => {
            say(out, "Suspended", &format!("Suspended partition {id}: its GPU memory is free"));
            Ok(())
        }
        Reply::Suspended { checkpointed: false } => {
            let text = "stopped, its memory stays on the GPU: there is no checkpoint here";
            say(out, "Suspended", &format!("Suspended partition {id}: {text}"));
            Ok(())
        }
        other => Err(failed(other)),
    }
}

fn resume(
    session: &mut Session,
    id: &str,
    duration: Option<&str>,
    wait: Option<&str>,
    out: Output,
) -> Result<ExitCode, Failure> {
    let parse = |text: Option<&str>| text.map(Span::parse).transpose();
    let order = Order::Resume {
        id: lease_id(id)?,
        for_: parse(duration).map_err(Failure::from_quantity)?,
        wait: parse(wait).map_err(Failure::from_quantity)?,
    };
    let reply = session.ask(&order)?;
    let lease = wait_out(session, reply)?;
    let left = lease.remaining(clock::boottime());
    say(out, "Resumed", &format!("Resumed partition {}: {left} left", lease.id));
    Ok(ExitCode::SUCCESS)
}

fn available(session: &mut Session, device: &str, out: Output) -> Result<(), Failure> {
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

fn stats(
    session: &mut Session,
    detailed: bool,
    since: Option<&str>,
    format: StatsFormat,
    out: Output,
) -> Result<(), Failure> {
    let gpus = crate::world::World::gpus(session.host())?;
    let backend = session.host().backend().name();
    let state = session.settings().state.clone();
    let now = clock::now();
    let book = session.book()?.clone();
    let free: Vec<u64> = planner::free(&book, &gpus, now).iter().map(|b| b.as_u64()).collect();
    let as_json = out.json || format == StatsFormat::Json;
    if as_json {
        let numbered = gpus.iter().zip(&free);
        let items = numbered.map(|(gpu, free)| views::gpu(gpu, &book, *free)).collect();
        let mut list = views::list("GpuList", items);
        list["backend"] = json!(backend);
        if let Some(ended) = ended(&state, since, now)? {
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
                    detail(gpu, &book, now, out);
                }
            }
            for line in ended(&state, since, now)?.into_iter().flatten() {
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
) -> Result<Option<Vec<crate::book::Epitaph>>, Failure> {
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

fn leases_on(book: &crate::book::Book, gpu: &Gpu) -> usize {
    book.leases().filter(|l| l.parts.iter().any(|part| part.gpu == gpu.id)).count()
}

fn describe(gpu: &Gpu, free: u64, book: &crate::book::Book, backend: &str, out: Output) {
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
        out.line(&format!("  {} {fault}", out.paint("Fault:", 31)));
    }
}

fn detail(gpu: &Gpu, book: &crate::book::Book, now: Now, out: Output) {
    let of_gpu = book.leases().filter(|l| l.parts.iter().any(|part| part.gpu == gpu.id));
    let rows: Vec<Vec<String>> = of_gpu.map(|lease| row(lease, now)).collect();
    if !rows.is_empty() {
        out.table(&["ID", "Device", "Memory", "Time Left", "Owner", "Status"], &rows);
    }
}

fn prometheus(gpus: &[Gpu], free: &[u64], book: &crate::book::Book, out: Output) {
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

fn suggest(session: &mut Session, wanted: &Wanted, out: Output) -> Result<(), Failure> {
    wanted::require(&wanted.require)?;
    let request = request(session, wanted)?;
    let reply = session.ask(&Order::Suggest { request: request.clone() })?;
    let Reply::Suggested { start, parts } = reply else { return Err(failed(reply)) };
    let why = reasons(session, &request, start)?;
    if out.json {
        out.object(&views::suggestion(start, &parts, &why));
        return Ok(());
    }
    let when = if start == Span::ZERO { "now".to_owned() } else { format!("in {start}") };
    out.line(&format!("{} {when}", names(&parts)));
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
    let mut why = Vec::new();
    for (gpu, free) in gpus.iter().zip(free) {
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

fn top(
    session: &mut Session,
    interval: u64,
    frames: Option<u64>,
    out: Output,
) -> Result<(), Failure> {
    let endless = out.watched() && frames.is_none();
    let mut left = frames.unwrap_or(1);
    loop {
        if out.watched() {
            out.line("\u{1b}[2J\u{1b}[H");
        }
        let gpus = crate::world::World::gpus(session.host())?;
        let processes = session.host().backend().processes()?;
        let now = clock::now();
        let book = session.book()?;
        let free = planner::free(book, &gpus, now);
        for (gpu, free) in gpus.iter().zip(free) {
            let used = 100.0 - percent(free.as_u64(), gpu.memory.as_u64());
            let filled = (used / 5.0).round() as usize;
            let bar = format!("{}{}", "█".repeat(filled), "·".repeat(20 - filled.min(20)));
            out.line(&format!("GPU {} {bar} {used:5.1}% leased  {}", gpu.index, gpu.name));
            for usage in processes.iter().filter(|usage| usage.gpu == gpu.id) {
                let memory = usage.memory.map_or_else(|| "?".to_owned(), |m| m.to_string());
                let whose = leaseholder(book, usage.pid).unwrap_or("foreign");
                out.line(&format!("      process {}  {memory}  {whose}", usage.pid));
            }
        }
        let rows: Vec<Vec<String>> = book.leases().map(|lease| row(lease, now)).collect();
        out.table(&["ID", "Device", "Memory", "Time Left", "Owner", "Status"], &rows);
        out.line(&format!("{} waiting", book.tickets().len()));
        left = left.saturating_sub(1);
        if left == 0 && !endless {
            return Ok(());
        }
        if terminal::key_within(std::time::Duration::from_nanos(interval.max(1) * NANOS)) {
            return Ok(());
        }
    }
}

/// The lease that a process carries the mark of.
fn leaseholder(book: &crate::book::Book, pid: u32) -> Option<&str> {
    let mark = crate::os::process::mark_of(pid)?;
    book.leases().find(|lease| lease.id.0 == mark).map(|lease| lease.id.0.as_str())
}
