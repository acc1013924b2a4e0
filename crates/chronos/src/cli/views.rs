//! The JSON objects of `--json`.

use serde_json::{Value, json};

use crate::api::Victim;
use crate::book::{Book, Epitaph};
use crate::engine::phase_word;
use crate::lease::{Gpu, Lease, Part, Phase, Reservation, Ticket};
use crate::quantity::{Boottime, Now, Span};

/// Version of the objects; it changes when a field changes its meaning.
pub const API_VERSION: &str = "chronos/v1";

/// The schema of the objects.
pub const SCHEMA: &str = include_str!("schema.json");

/// A live lease.
pub fn lease(lease: &Lease, now: Now) -> Value {
    let left = lease.remaining(now.boot);
    json!({
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "id": lease.id,
        "user": lease.owner.user,
        "uid": lease.owner.uid,
        "pid": lease.creator.pid,
        "parts": parts(&lease.parts),
        "phase": phase_word(&lease.phase),
        "grantedAt": lease.granted_wall,
        "expiresAt": now.wall.after(std::time::Duration::from_nanos(left.as_nanos())),
        "durationSeconds": lease.deadline.since(lease.granted).as_secs_up(),
        "remainingSeconds": round(left),
        "priority": lease.request.priority,
        "onExpire": lease.request.on_expire,
        "graceSeconds": round(lease.request.grace),
        "warnSeconds": lease.request.warn.map(round),
        "warnSignal": lease.request.warn_signal,
        "name": lease.request.name,
        "enforcement": enforcement(lease),
        "holdsMemory": lease.holds_until().is_some(),
    })
}

/// What is in force for a lease, in the words of `--require`.
pub fn enforcement(lease: &Lease) -> Value {
    json!({
        "memory": "none",
        "compute": "none",
        "tree": if lease.fenced { "cgroup" } else { "environment" },
        "expiry": match lease.phase { Phase::Suspended { .. } => "suspended", _ => "armed" },
    })
}

fn parts(parts: &[Part]) -> Vec<Value> {
    let part = |part: &Part| {
        json!({
            "gpu": part.gpu,
            "index": part.index,
            "memoryBytes": part.memory.as_u64(),
            "fraction": part.fraction.as_f64(),
            "compute": part.compute.map(crate::quantity::Ppm::as_f64),
        })
    };
    parts.iter().map(part).collect()
}

/// That something is done.
pub fn done(what: &str, message: &str) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": "Done", "done": what, "message": message })
}

/// A list of objects.
pub fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "items": items })
}

/// A waiting ticket with the start it is promised.
pub fn ticket(ticket: &Ticket, place: usize, start: Option<Span>, now: Boottime) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Ticket",
        "id": ticket.id,
        "user": ticket.owner.user,
        "uid": ticket.owner.uid,
        "place": place,
        "priority": ticket.request.priority,
        "gpuCount": ticket.request.choice.count(),
        "waitedSeconds": round(now.since(ticket.since)),
        "startsInSeconds": start.map(round),
        "resumes": ticket.resumes,
    })
}

/// A window of the calendar.
pub fn reservation(reservation: &Reservation) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Reservation",
        "id": reservation.id,
        "user": reservation.owner.user,
        "parts": parts(&reservation.parts),
        "startsAt": reservation.start,
        "durationSeconds": round(reservation.duration),
    })
}

/// A GPU with what is leased on it.
pub fn gpu(gpu: &Gpu, book: &Book, free: u64) -> Value {
    let leases = book.leases().filter(|l| l.parts.iter().any(|p| p.gpu == gpu.id)).count();
    json!({
        "apiVersion": API_VERSION,
        "kind": "Gpu",
        "id": gpu.id,
        "index": gpu.index,
        "name": gpu.name,
        "vendor": gpu.vendor,
        "memoryBytes": gpu.memory.as_u64(),
        "freeBytes": free,
        "foreignBytes": gpu.foreign.map(|bytes| bytes.as_u64()),
        "leases": leases,
        "fault": gpu.fault,
    })
}

/// When and where a request would fit.
pub fn suggestion(start: Span, parts_: &[Part], preempts: &[Victim], why: &[String]) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Suggestion",
        "startsInSeconds": round(start),
        "parts": parts(parts_),
        "preempts": preempts,
        "why": why,
    })
}

/// A lease that is over.
pub fn epitaph(epitaph: &Epitaph) -> Value {
    let mut object = serde_json::to_value(epitaph).unwrap_or_default();
    object["apiVersion"] = json!(API_VERSION);
    object["kind"] = json!("EndedLease");
    object
}

/// Seconds to the millisecond.
fn round(span: Span) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}
