//! What a user may ask for on a machine that is shared.
//!
//! Without a policy file everyone may ask for everything. With one, the entry of the user wins,
//! else the most generous of the entries of the user's groups, else `default`; root is never
//! limited. A file with an error grants nothing to anyone but root.

use std::collections::BTreeMap;

use gpu_autoscaler_model::Bytes;
use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::lease::{Choice, Gpu, LeaseId, MemoryAsk, Owner, Priority, Request};
use crate::quantity::{Boottime, Ppm, Span};
use crate::refusal::Refusal;

/// Longest time from SIGTERM to SIGKILL: a job that ignores SIGTERM holds its share for so long
/// after its deadline. A client of the helper waits as long for a release.
pub const GRACE_MAX: Span = Span::from_secs(3_600);

/// Longest name of a lease, in bytes.
const NAME_MAX: usize = 128;

/// Who asks, as the kernel says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Numeric id and login name.
    pub owner: Owner,
    /// Names of the groups the user is in.
    pub groups: Vec<String>,
    /// The process that asks.
    pub process: crate::lease::ProcessId,
}

impl Caller {
    /// Whether the caller may touch what belongs to `owner`.
    pub fn may_touch(&self, owner: &Owner) -> bool {
        self.is_root() || self.owner.uid == owner.uid
    }

    /// Whether the caller is root.
    pub fn is_root(&self) -> bool {
        self.owner.uid == 0
    }
}

/// The policy file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// For whoever has no entry.
    #[serde(default)]
    pub default: Limits,
    /// By group name.
    #[serde(default)]
    pub groups: BTreeMap<String, Limits>,
    /// By login name.
    #[serde(default)]
    pub users: BTreeMap<String, Limits>,
}

/// Upper limits of one user; what is absent is not limited.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// GPUs in one lease.
    #[serde(default)]
    pub max_gpus: Option<u32>,
    /// Part of each GPU's memory in one lease, `50%` or `0.5`.
    #[serde(default, with = "text_part")]
    pub max_memory: Option<Ppm>,
    /// How long one lease runs, extensions and resumptions included, `8h`.
    #[serde(default, with = "text_span")]
    pub max_duration: Option<Span>,
    /// From SIGTERM to SIGKILL, which comes on top of the length, `1m`.
    #[serde(default, with = "text_span")]
    pub max_grace: Option<Span>,
    /// The most urgent priority that may be asked for.
    #[serde(default)]
    pub max_priority: Option<Priority>,
    /// Live leases, waiting tickets and kept windows of the calendar together.
    #[serde(default)]
    pub max_leases: Option<u32>,
    /// GPU-hours used, decayed with a half-life of a day.
    #[serde(default, deserialize_with = "hours")]
    pub gpu_hours: Option<f64>,
    /// How far ahead the calendar may be reserved, `7d`.
    #[serde(default, with = "text_span")]
    pub max_reserve_ahead: Option<Span>,
}

/// A limit that a request would exceed.
#[derive(Clone, PartialEq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("user `{user}`: {what} {asked} exceeds the policy's {limit}")]
pub struct Exceeded {
    /// Login name.
    pub user: String,
    /// Which quantity.
    pub what: String,
    /// What was asked for.
    pub asked: String,
    /// What is allowed.
    pub limit: String,
}

impl Policy {
    /// The limits of `caller`; `None` for root, who has none.
    pub fn limits(&self, caller: &Caller) -> Option<Limits> {
        if caller.is_root() {
            return None;
        }
        if let Some(own) = self.users.get(&caller.owner.user) {
            return Some(own.clone());
        }
        let of_groups = caller.groups.iter().filter_map(|group| self.groups.get(group)).cloned();
        Some(of_groups.reduce(most_generous).unwrap_or_else(|| self.default.clone()))
    }
}

/// For each quantity the larger limit; an absent limit is larger than any.
fn most_generous(a: Limits, b: Limits) -> Limits {
    fn larger<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
        let (a, b) = (a?, b?);
        Some(if b > a { b } else { a })
    }
    Limits {
        max_gpus: larger(a.max_gpus, b.max_gpus),
        max_memory: larger(a.max_memory, b.max_memory),
        max_duration: larger(a.max_duration, b.max_duration),
        max_grace: larger(a.max_grace, b.max_grace),
        // High is the lowest in the order.
        max_priority: a.max_priority.zip(b.max_priority).map(|(a, b)| a.min(b)),
        max_leases: larger(a.max_leases, b.max_leases),
        gpu_hours: larger(a.gpu_hours, b.gpu_hours),
        max_reserve_ahead: larger(a.max_reserve_ahead, b.max_reserve_ahead),
    }
}

/// Whether a request means something, whoever asks: what comes by way of the helper was written by
/// its callers themselves.
///
/// # Errors
/// [`Refusal::BadInput`] with the first value that means nothing.
pub fn sound(request: &Request) -> Result<(), Refusal> {
    let bad = |message: String, hint: &str| Err(Refusal::BadInput { message, hint: hint.into() });
    let share = |ppm: Ppm| ppm > Ppm::ZERO && ppm <= Ppm::WHOLE;
    let empty = match request.memory {
        MemoryAsk::Part(part) => !share(part),
        MemoryAsk::Size(size) => size == Bytes::default(),
    };
    if empty || request.compute.is_some_and(|part| !share(part)) {
        return bad(
            "a share has to be more than nothing and at most the whole of a GPU".to_owned(),
            "ask for half a GPU as 0.5 or 50%",
        );
    }
    if request.choice.count() == 0 {
        return bad("0 GPUs were asked for".to_owned(), "ask for one GPU or more");
    }
    length(request.duration)?;
    if request.grace > GRACE_MAX {
        let message = format!("grace {:#} is longer than {GRACE_MAX:#}", request.grace);
        return bad(message, "a job that needs longer to end is warned earlier by --warn");
    }
    if let Some(warn) = request.warn.filter(|warn| *warn > Span::MAX) {
        let message = format!("warning {warn:#} before the deadline is earlier than any start");
        return bad(message, "warn some minutes before the deadline, as --warn 5m");
    }
    // Others see it in their terminals.
    let name = request.name.as_deref().unwrap_or_default();
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let message = format!("name {name:.40?} is longer than {NAME_MAX} bytes or not printable");
        return bad(message, "name it by a few words on one line");
    }
    let reservation = request.reservation.as_ref();
    if let Some(id) = reservation.filter(|id| !LeaseId::plausible(&id.0)) {
        let id = id.0.chars().take(64).collect();
        return Err(crate::planner::Never::NoSuchReservation { id }.into());
    }
    Ok(())
}

/// Whether a span can be the length of a lease or of an extension.
///
/// # Errors
/// [`Refusal::BadInput`] for none and for more than [`Span::MAX`].
pub fn length(span: Span) -> Result<(), Refusal> {
    if span > Span::ZERO && span <= Span::MAX {
        return Ok(());
    }
    let message = format!("duration {span:#} is not between nothing and {:#}", Span::MAX);
    Err(Refusal::BadInput { message, hint: "ask for two hours as 2h".into() })
}

/// What the limits of one user are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Who holds what.
    pub book: &'a Book,
    /// The clock that usage decays by.
    pub now: Boottime,
    /// The GPUs of the machine.
    pub gpus: &'a [Gpu],
}

/// Whether `limits` allow `caller` to ask for `request`.
///
/// # Errors
/// [`Exceeded`] with the first limit that is exceeded.
pub fn allow(
    limits: &Limits,
    caller: &Caller,
    request: &Request,
    held: Held<'_>,
) -> Result<(), Exceeded> {
    let refuse = |what, asked, limit| Err(exceeded(caller, what, asked, limit));
    // What a reservation keeps was judged when it was made.
    if request.reservation.is_none() {
        allow_share(limits, caller, request, held.gpus)?;
    }
    if let Some(limit) = limits.max_grace
        && request.grace > limit
    {
        return refuse("grace", format!("{:#}", request.grace), format!("{limit:#}"));
    }
    if let Some(limit) = limits.max_priority
        && request.priority < limit
    {
        return refuse("priority", request.priority.to_string(), limit.to_string());
    }
    let uid = caller.owner.uid;
    if let Some(limit) = limits.max_leases {
        let leases = held.book.leases().filter(|l| l.owner.uid == uid).count();
        let tickets = held.book.tickets().asked_by(uid);
        // The one that is taken up becomes the lease.
        let kept = held.book.reservations().filter(|r| r.owner.uid == uid);
        let kept = kept.filter(|r| Some(&r.id) != request.reservation.as_ref()).count();
        let all = leases + tickets + kept;
        if all >= limit as usize {
            return refuse("number of leases", (all + 1).to_string(), limit.to_string());
        }
    }
    allow_time(limits, caller, request.duration, held)
}

fn exceeded(caller: &Caller, what: &str, asked: String, limit: String) -> Exceeded {
    Exceeded { user: caller.owner.user.clone(), what: what.to_owned(), asked, limit }
}

/// Whether the share of each GPU, and how many GPUs, are within the limits.
fn allow_share(
    limits: &Limits,
    caller: &Caller,
    request: &Request,
    gpus: &[Gpu],
) -> Result<(), Exceeded> {
    let refuse = |what, asked, limit| Err(exceeded(caller, what, asked, limit));
    if let Some(limit) = limits.max_gpus
        && request.choice.count() > limit as usize
    {
        return refuse("number of GPUs", request.choice.count().to_string(), limit.to_string());
    }
    let may_get = |gpu: &&Gpu| match &request.choice {
        Choice::These(ids) => ids.contains(&gpu.id),
        Choice::Any { .. } => gpu.fault.is_none(),
    };
    // A size is the largest part of the smallest GPU that it may be taken from.
    let smallest = gpus.iter().filter(may_get).map(|gpu| gpu.memory).min();
    let part = match request.memory {
        MemoryAsk::Part(part) => Some(part),
        MemoryAsk::Size(size) => smallest.and_then(|t| Ppm::ratio(size.as_u64(), t.as_u64())),
    };
    if let (Some(limit), Some(part)) = (limits.max_memory, part)
        && part > limit
    {
        return refuse("part of the memory", part.to_string(), limit.to_string());
    }
    Ok(())
}

/// Whether a lease of `caller` may run for `whole` in all, and the caller may use more at all.
///
/// # Errors
/// [`Exceeded`] with the first limit that is exceeded.
pub fn allow_time(
    limits: &Limits,
    caller: &Caller,
    whole: Span,
    held: Held<'_>,
) -> Result<(), Exceeded> {
    let refuse = |what, asked, limit| Err(exceeded(caller, what, asked, limit));
    if let Some(limit) = limits.max_duration
        && whole > limit
    {
        return refuse("duration", format!("{whole:#}"), format!("{limit:#}"));
    }
    if let Some(limit) = limits.gpu_hours {
        let used = held.book.usage(caller.owner.uid, held.now) / 3_600.0;
        if used >= limit {
            return refuse("usage in GPU-hours", format!("{used:.1}"), format!("{limit:.1}"));
        }
    }
    Ok(())
}

/// Hours that usage can be compared with: NaN would limit nothing.
fn hours<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let hours = Option::<f64>::deserialize(from)?;
    match hours.filter(|hours| !(hours.is_finite() && *hours >= 0.0)) {
        None => Ok(hours),
        Some(wrong) => Err(serde::de::Error::custom(format!(
            "`{wrong}` GPU-hours: write a number from 0, or leave the key out for no limit"
        ))),
    }
}

mod text_part {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::quantity::Ppm;

    pub fn serialize<S: Serializer>(part: &Option<Ppm>, to: S) -> Result<S::Ok, S::Error> {
        part.map(|part| part.to_string()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ppm>, D::Error> {
        let text = Option::<super::Scalar>::deserialize(from)?;
        text.map(|text| Ppm::parse(&text.0).map_err(D::Error::custom)).transpose()
    }
}

mod text_span {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::quantity::Span;

    pub fn serialize<S: Serializer>(span: &Option<Span>, to: S) -> Result<S::Ok, S::Error> {
        span.map(|span| format!("{}s", span.as_secs_up())).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
        let text = Option::<super::Scalar>::deserialize(from)?;
        text.map(|text| Span::parse(&text.0).map_err(D::Error::custom)).transpose()
    }
}

/// A text or a number, as people write `0.5` and `3600` without quotes in YAML.
pub(crate) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::ProcessId;

    fn caller(user: &str, groups: &[&str]) -> Caller {
        Caller {
            owner: Owner { uid: 1_000, user: user.into() },
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            process: ProcessId { pid: 1, start: 1, namespace: 1 },
        }
    }

    #[test]
    fn the_users_entry_wins_then_the_most_generous_group_then_the_default() {
        let text = "
default: {maxGpus: 1, maxDuration: 1h}
groups:
  phd: {maxGpus: 4, maxMemory: 50%, maxPriority: normal}
  staff: {maxGpus: 2, maxMemory: 0.75, maxPriority: high}
users:
  ann: {maxGpus: 8}
";
        let policy: Policy = serde_saphyr::from_str(text).unwrap();
        let limits = |user, groups: &[&str]| policy.limits(&caller(user, groups)).unwrap();
        assert_eq!(limits("ann", &["phd"]).max_gpus, Some(8));
        let both = limits("bob", &["phd", "staff"]);
        assert_eq!(both.max_gpus, Some(4));
        assert_eq!(both.max_memory, Ppm::new(750_000));
        assert_eq!(both.max_priority, Some(Priority::High));
        assert_eq!(limits("eve", &["guests"]).max_duration, Some(Span::from_secs(3_600)));
        let mut root = caller("root", &[]);
        root.owner.uid = 0;
        assert_eq!(policy.limits(&root), None);
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error() {
        assert!(serde_saphyr::from_str::<Policy>("default: {maxGpu: 1}").is_err());
        assert!(serde_saphyr::from_str::<Policy>("default: {maxMemory: 1.5}").is_err());
        for wrong in [".nan", ".inf", "-1", "many"] {
            let text = format!("default: {{gpuHours: {wrong}}}");
            assert!(serde_saphyr::from_str::<Policy>(&text).is_err(), "{wrong}");
        }
        let policy: Policy = serde_saphyr::from_str("default: {gpuHours: 48}").unwrap();
        assert_eq!(policy.default.gpu_hours, Some(48.0));
    }
}
