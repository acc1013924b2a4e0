//! From what a user wrote to a request.

use crate::cli::arguments::{ExpiryName, PriorityName, SignalName, Wanted};
use crate::lease::{
    Choice, Gpu, GpuId, MemoryAsk, OnExpire, Priority, Request, ReservationId, WarnSignal,
};
use crate::os::settings::Config;
use crate::quantity::{Ppm, Span};
use crate::refusal::Refusal;
use crate::size;

/// Grace of a lease that does not say.
const GRACE: Span = Span::from_secs(10);

/// Length of a lease that does not say.
const DURATION: Span = Span::from_secs(3_600);

/// What a request has that says nothing about it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Defaults {
    /// From SIGTERM to SIGKILL.
    pub grace: Span,
    /// How long before the deadline the holder is warned.
    pub warn: Option<Span>,
}

impl Defaults {
    /// Those of a configuration file.
    pub fn of(config: &Config) -> Self {
        Self {
            grace: config.grace.map_or(GRACE, |text| text.0),
            warn: config.warn.map(|text| text.0).filter(|warn| *warn > Span::ZERO),
        }
    }
}

/// The request of a device, a fraction and seconds: the form of the C ABI and of `create` since
/// its first version.
///
/// # Errors
/// [`Refusal::BadInput`] for numbers that mean nothing, [`Refusal::Never`] for a GPU that is not
/// there.
pub fn simple(
    device: i64,
    fraction: f64,
    secs: i64,
    gpus: &[Gpu],
    defaults: &Defaults,
) -> Result<Request, Refusal> {
    let gpu = gpu(&device.to_string(), gpus)?;
    let duration = u64::try_from(secs).ok().filter(|secs| *secs > 0);
    let duration = duration.map(|secs| Span::parse(&secs.to_string())).transpose()?;
    let duration = duration.ok_or_else(|| Refusal::BadInput {
        message: format!("duration `{secs}` is not a positive number of seconds"),
        hint: "ask for one second or more".to_owned(),
    })?;
    Ok(plain(
        Choice::These(vec![gpu]),
        MemoryAsk::Part(Ppm::from_fraction(fraction)?),
        duration,
        defaults,
    ))
}

fn plain(choice: Choice, memory: MemoryAsk, duration: Span, defaults: &Defaults) -> Request {
    Request {
        choice,
        memory,
        compute: None,
        duration,
        priority: Priority::Normal,
        on_expire: OnExpire::Term,
        grace: defaults.grace,
        warn: defaults.warn,
        warn_signal: None,
        name: None,
        reservation: None,
    }
}

/// The request of a command line.
///
/// # Errors
/// [`Refusal::BadInput`] and [`Refusal::Never`].
pub fn request(wanted: &Wanted, gpus: &[Gpu], defaults: &Defaults) -> Result<Request, Refusal> {
    let mut words = wanted.positional.iter().map(String::as_str);
    let choice = choice(wanted, &mut words, gpus)?;
    let fraction = words.next();
    let seconds = words.next();
    if let Some(extra) = words.next() {
        return Err(usage(format!("`{extra}` is one argument too many")));
    }
    let memory = match (fraction, wanted.mem.as_deref()) {
        (Some(_), Some(_)) => return Err(usage("memory is given twice".to_owned())),
        (Some(fraction), None) => MemoryAsk::Part(Ppm::parse(fraction)?),
        (None, Some(mem)) => size::parse_ask(mem)?,
        (None, None) => MemoryAsk::Part(Ppm::WHOLE),
    };
    let duration = match (seconds, wanted.duration.as_deref()) {
        (Some(_), Some(_)) => return Err(usage("duration is given twice".to_owned())),
        (Some(text), None) | (None, Some(text)) => Span::parse(text)?,
        (None, None) => DURATION,
    };
    let grace = wanted.grace.as_deref().map(Span::parse_or_zero).transpose()?;
    let warn = wanted.warn.as_deref().map(Span::parse).transpose()?;
    Ok(Request {
        compute: wanted.compute.as_deref().map(Ppm::parse).transpose()?,
        priority: match wanted.priority {
            PriorityName::High => Priority::High,
            PriorityName::Normal => Priority::Normal,
            PriorityName::Low => Priority::Low,
        },
        on_expire: match wanted.on_expire {
            ExpiryName::Term => OnExpire::Term,
            ExpiryName::Suspend => OnExpire::Suspend,
            ExpiryName::Notify => OnExpire::Notify,
        },
        grace: grace.unwrap_or(defaults.grace),
        warn: warn.or(defaults.warn),
        warn_signal: wanted.warn_signal.map(|signal| match signal {
            SignalName::Usr1 => WarnSignal::Usr1,
            SignalName::Usr2 => WarnSignal::Usr2,
            SignalName::Hup => WarnSignal::Hup,
            SignalName::Int => WarnSignal::Int,
        }),
        name: wanted.name.clone(),
        reservation: wanted.reservation.clone().map(ReservationId),
        ..plain(choice, memory, duration, defaults)
    })
}

fn choice<'a>(
    wanted: &Wanted,
    words: &mut impl Iterator<Item = &'a str>,
    gpus: &[Gpu],
) -> Result<Choice, Refusal> {
    let named = |names: &[String]| -> Result<Vec<GpuId>, Refusal> {
        names.iter().map(|name| gpu(name, gpus)).collect()
    };
    if let Some(name) = &wanted.gpu {
        if name == "any" {
            return Ok(Choice::Any { count: 1, prefer: named(&wanted.prefer)? });
        }
        return Ok(Choice::These(vec![gpu(name, gpus)?]));
    }
    if !wanted.gpus.is_empty() {
        return Ok(Choice::These(named(&wanted.gpus)?));
    }
    if wanted.any || wanted.count.is_some() || wanted.reservation.is_some() {
        let count = wanted.count.unwrap_or(1);
        return Ok(Choice::Any { count, prefer: named(&wanted.prefer)? });
    }
    match words.next() {
        Some(device) => Ok(Choice::These(vec![gpu(device, gpus)?])),
        None => Ok(Choice::Any { count: 1, prefer: named(&wanted.prefer)? }),
    }
}

/// The GPU of a number or of an id.
///
/// # Errors
/// [`Refusal::Never`] when there is none.
pub fn gpu(text: &str, gpus: &[Gpu]) -> Result<GpuId, Refusal> {
    let number = text.parse::<u32>().ok();
    let found = gpus.iter().find(|gpu| Some(gpu.index) == number || gpu.id.0 == text);
    found.map(|gpu| gpu.id.clone()).ok_or_else(|| {
        let known = match gpus.len() {
            0 => "no GPU".to_owned(),
            1 => "GPU 0 only".to_owned(),
            n => format!("GPUs 0 to {}", n - 1),
        };
        let gpu = text.chars().take(64).collect();
        crate::planner::Never::NoSuchGpu { gpu, known }.into()
    })
}

/// Refuses what is required and not in force on this machine.
///
/// # Errors
/// [`Refusal::TierUnavailable`] for a tier, [`Refusal::BadInput`] for a word that is none.
pub fn require(required: &[String]) -> Result<(), Refusal> {
    const TIERS: [&str; 5] = ["kernel", "mig", "mps", "shim", "watch"];
    // Nothing is enforced inside processes by this version, so that the first is refused.
    let Some(item) = required.first() else { return Ok(()) };
    let (what, tier) = item.split_once('=').unwrap_or((item, ""));
    if !matches!(what, "memory" | "compute") || !TIERS.contains(&tier) {
        return Err(Refusal::BadInput {
            message: format!("requirement `{item}` is not known"),
            hint: format!("write memory=TIER, where TIER is one of {}", TIERS.join(", ")),
        });
    }
    let available = format!("{what}=none");
    Err(Refusal::TierUnavailable { required: item.clone(), available })
}

fn usage(message: String) -> Refusal {
    let hint = "chronos create DEVICE FRACTION SECONDS, or --gpu, --mem and --for".to_owned();
    Refusal::BadInput { message, hint }
}
