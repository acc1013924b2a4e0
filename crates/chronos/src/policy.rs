//! What a user may ask for on a machine that is shared.
//!
//! Without a policy file everyone may ask for everything. With one, the entry of the user wins,
//! else the most generous of the entries of the user's groups, else `default`; root is never
//! limited. A file with an error grants nothing to anyone but root.

use std::collections::BTreeMap;

use gpu_autoscaler_model::Bytes;
use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::lease::{MemoryAsk, Owner, Priority, Request};
use crate::quantity::{Boottime, Ppm, Span};

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
    /// Length of one lease, extensions included, `8h`.
    #[serde(default, with = "text_span")]
    pub max_duration: Option<Span>,
    /// The most urgent priority that may be asked for.
    #[serde(default)]
    pub max_priority: Option<Priority>,
    /// Live leases and waiting tickets together.
    #[serde(default)]
    pub max_leases: Option<u32>,
    /// GPU-hours used, decayed with a half-life of a day.
    #[serde(default)]
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
        // High is the lowest in the order.
        max_priority: a.max_priority.zip(b.max_priority).map(|(a, b)| a.min(b)),
        max_leases: larger(a.max_leases, b.max_leases),
        gpu_hours: larger(a.gpu_hours, b.gpu_hours),
        max_reserve_ahead: larger(a.max_reserve_ahead, b.max_reserve_ahead),
    }
}

/// Whether `limits` allow `caller` to ask for `request`.
///
/// `total` is the memory of the smallest GPU that the request may get, which is what a size is
/// compared with; `None` where it is not known, and then a size is not limited.
///
/// # Errors
/// [`Exceeded`] with the first limit that is exceeded.
pub fn allow(
    limits: &Limits,
    caller: &Caller,
    request: &Request,
    book: &Book,
    now: Boottime,
    total: Option<Bytes>,
) -> Result<(), Exceeded> {
    let refuse = |what: &str, asked: String, limit: String| {
        Err(Exceeded { user: caller.owner.user.clone(), what: what.into(), asked, limit })
    };
    if let Some(limit) = limits.max_gpus
        && request.choice.count() > limit as usize
    {
        return refuse("number of GPUs", request.choice.count().to_string(), limit.to_string());
    }
    let part = match request.memory {
        MemoryAsk::Part(part) => Some(part),
        MemoryAsk::Size(size) => total.and_then(|t| Ppm::ratio(size.as_u64(), t.as_u64())),
    };
    if let (Some(limit), Some(part)) = (limits.max_memory, part)
        && part > limit
    {
        return refuse("part of the memory", part.to_string(), limit.to_string());
    }
    if let Some(limit) = limits.max_duration
        && request.duration > limit
    {
        return refuse("duration", request.duration.to_string(), limit.to_string());
    }
    if let Some(limit) = limits.max_priority
        && request.priority < limit
    {
        return refuse("priority", request.priority.to_string(), limit.to_string());
    }
    let uid = caller.owner.uid;
    if let Some(limit) = limits.max_leases {
        let leases = book.leases().filter(|l| l.owner.uid == uid).count();
        let tickets = book.tickets().asked_by(uid);
        if leases + tickets >= limit as usize {
            let asked = format!("{}", leases + tickets + 1);
            return refuse("number of leases", asked, limit.to_string());
        }
    }
    if let Some(limit) = limits.gpu_hours {
        let used = book.usage(uid, now) / 3_600.0;
        if used >= limit {
            return refuse("usage in GPU-hours", format!("{used:.1}"), format!("{limit:.1}"));
        }
    }
    Ok(())
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
    }
}
