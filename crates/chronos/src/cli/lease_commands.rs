//! The commands that look at or change leases.

use std::process::ExitCode;

use gpu_autoscaler_model::Timestamp;
use serde_json::json;

use super::arguments::{Command, QueueCommand, Shell, Wanted};
use super::exit::Failure;
use super::gpu_commands;
use super::print::{self, Mark, Output};
use super::views;
use crate::api::{Order, Reply};
use crate::engine::{names, phase_word};
use crate::lease::{Binding, Lease, OnExpire, Part, Phase, Request, Reservation, ReservationId};
use crate::os::session::{Session, lease_id};
use crate::os::supervise::{self, Means, Outcome};
use crate::os::{clock, guards, terminal};
use crate::planner;
use crate::quantity::{Now, Span};
use crate::refusal::Refusal;
use crate::wanted;

/// Runs one of them.
pub fn run(session: &mut Session, command: Command, out: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Create { wanted, start: None } => return create(session, &wanted, out),
        Command::Create { wanted, start: Some(start) } => {
            return reserve(session, &wanted, &start, out);
        }
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
        Command::Available { device } => gpu_commands::available(session, &device, out)?,
        Command::Stats { detailed, all: _, since, format } => {
            gpu_commands::stats(session, detailed, since.as_deref(), format, out)?;
        }
        Command::Suggest(wanted) => gpu_commands::suggest(session, &wanted, out)?,
        Command::Top { interval, frames } => gpu_commands::top(session, interval, frames, out)?,
        _ => unreachable!("the other commands need no session and are done before"),
    }
    Ok(ExitCode::SUCCESS)
}

fn say(out: Output, kind: &str, text: &str) {
    if out.json {
        out.object(&views::done(kind, text));
    } else {
        out.done(text);
    }
}

/// The failure that a reply tells of.
pub(super) fn failed(reply: Reply) -> Failure {
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
pub(super) fn request(session: &mut Session, wanted: &Wanted) -> Result<Request, Failure> {
    let gpus = session.host().backend().gpus()?;
    let defaults = wanted::Defaults::of(&session.settings().config);
    let mut request = wanted::request(wanted, &gpus, &defaults)?;
    if let (Some(id), None) = (&request.reservation, &wanted.duration) {
        let now = clock::now();
        let kept = session.book()?.reservation(id);
        if let Some(rest) = kept.and_then(|kept| rest_of(kept, request.grace, now)) {
            request.duration = rest;
        }
    }
    Ok(request)
}

/// For how long a lease may run that takes a window up now: its grace is inside the window, too.
fn rest_of(kept: &Reservation, grace: Span, now: Now) -> Option<Span> {
    let (start, end) = planner::span_of(kept, now);
    let rest = end.before(grace).since(start.max(now.boot));
    (rest > Span::ZERO).then_some(rest)
}

/// Takes a lease as the arguments ask, waiting for it if they say so.
fn take(session: &mut Session, wanted: &Wanted, binding: Binding) -> Result<Lease, Failure> {
    wanted::require(&wanted.require)?;
    let request = request(session, wanted)?;
    if request.on_expire == OnExpire::Suspend && !session.host().backend().checkpoints() {
        let text = "suspending frees no GPU memory here: at the deadline it is ended instead";
        eprintln!("{} {text}", print::mark(Mark::Warning));
    }
    let wait = wanted.wait.as_deref().map(Span::parse).transpose();
    let order = Order::Create {
        request,
        binding,
        wait: wait.map_err(Failure::from_quantity)?,
        holder: (binding == Binding::Creator).then(std::process::id),
        user: wanted.user.clone(),
    };
    let reply = session.ask(&order)?;
    for note in session.take_notes() {
        eprintln!("{} {note}", print::mark(Mark::Warning));
    }
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
    eprintln!("{} waiting as {}{promise}", print::mark(Mark::Info), ticket.id);
    let granted = session.wait_for(&ticket, |book| {
        // Thousands may wait, and each looks whenever the journal changes.
        if !watched {
            return;
        }
        let now = clock::boottime();
        let order = book.tickets().first(None, &book.usages(now), now, usize::MAX);
        let place = order.iter().position(|t| t.id == ticket.id).map_or(0, |place| place + 1);
        let text = format!("place {place} of {}", order.len());
        if text != last {
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
    let guards = guards::armed(session.host(), lease).join("+");
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
        Outcome::Ended { reason, by } => {
            eprintln!("{} partition {} {reason}", print::mark(Mark::Warning), lease.id);
            ExitCode::from(match by {
                Means::Term => 124,
                Means::Kill => 137,
                Means::Suspended => 140,
            })
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
    for line in table(&leases, now, out) {
        out.line(&line);
    }
    out.line(&format!("Total: {} partition(s)", leases.len()));
    Ok(())
}

/// Leases as the lines of a table.
pub(super) fn table(leases: &[&Lease], now: Now, out: Output) -> Vec<String> {
    const COLUMNS: [&str; 6] = ["ID", "Device", "Memory", "Time Left", "Owner", "Status"];
    let rows: Vec<Vec<String>> = leases.iter().map(|lease| row(lease, now)).collect();
    let mut lines = out.table(&COLUMNS, &rows, 4);
    // The status is the last word of its line, so that its colour moves nothing.
    for (line, lease) in lines.iter_mut().skip(2).zip(leases) {
        let colour = match lease.phase {
            Phase::Active => print::GREEN,
            Phase::Suspended { .. } => print::YELLOW,
            Phase::Ending { .. } => print::RED,
        };
        if let Some(at) = line.rfind('●') {
            let status = out.paint(&line[at..], colour);
            line.replace_range(at.., &status);
        }
    }
    lines
}

/// Numbers of GPUs in few letters: `0-3,6`.
fn ranges(parts: &[Part]) -> String {
    let mut numbers: Vec<u32> = parts.iter().map(|part| part.index).collect();
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let run = |run: &[u32]| match run {
        [first, .., last] if run.len() > 2 => format!("{first}-{last}"),
        few => few.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

/// A lease as a line of a table.
fn row(lease: &Lease, now: Now) -> Vec<String> {
    let status = match lease.phase {
        Phase::Active => "● ACTIVE".to_owned(),
        _ => format!("● {}", phase_word(&lease.phase).to_uppercase()),
    };
    vec![
        lease.id.0.clone(),
        ranges(&lease.parts),
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
        ("ends", ends(&lease, now)),
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

/// The date at which a lease ends if nothing changes.
fn ends(lease: &Lease, now: Now) -> String {
    match lease.phase {
        Phase::Active => now.later(lease.remaining(now.boot)).wall.to_string(),
        Phase::Ending { reason, .. } => format!("now: {reason}"),
        Phase::Suspended { until, .. } => {
            format!("{}, unless it is resumed", now.later(until.since(now.boot)).wall)
        }
    }
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
        let variables: std::collections::BTreeMap<_, _> = variables.into_iter().collect();
        out.object(&json!({
            "apiVersion": views::API_VERSION, "kind": "Environment", "variables": variables,
        }));
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
                return Err(Refusal::NotWaiting { id }.into());
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
    let order = book.tickets().first(None, &book.usages(now.boot), now.boot, usize::MAX);
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
    if !rows.is_empty() {
        let head = ["Place", "ID", "Owner", "Priority", "Waited", "Starts in"];
        for line in out.table(&head, &rows, 2) {
            out.line(&line);
        }
    }
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
            let text = "stopped; without a checkpoint its memory stays on the GPU and its time \
                        runs on";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::GpuId;
    use crate::quantity::Ppm;

    #[test]
    fn gpus_of_a_gang_are_named_in_few_letters() {
        let of = |numbers: &[u32]| {
            let part = |index: &u32| Part {
                gpu: GpuId(format!("G{index}")),
                index: *index,
                memory: gpu_autoscaler_model::Bytes::new(1),
                fraction: Ppm::WHOLE,
                compute: None,
            };
            ranges(&numbers.iter().map(part).collect::<Vec<_>>())
        };
        assert_eq!(of(&[0]), "0");
        assert_eq!(of(&[1, 0]), "0,1");
        assert_eq!(of(&[0, 1, 2, 3, 6]), "0-3,6");
        assert_eq!(of(&[0, 2, 3, 4, 63]), "0,2-4,63");
    }
}
