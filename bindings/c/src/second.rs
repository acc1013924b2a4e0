//! The second interface: what the first one cannot say, with versions and sizes.

use chronos::api::{Order, Reply};
use chronos::cli::views;
use chronos::lease::{Binding, Choice, Lease, MemoryAsk, OnExpire, Priority, Request, WarnSignal};
use chronos::os::session::lease_id;
use chronos::os::{Session, clock, supervise};
use chronos::quantity::{Boottime, Ppm, Span};
use chronos::refusal::Refusal;
use chronos::wanted;
use chronos::world::World;
use serde_json::Value;
use std::ffi::{CString, c_char, c_void};

use crate::{Failure, guarded, optional, partitioner, text};

/// `CHRONOS_ABI` of the header.
const ABI: u32 = 1;

/// `chronos_v1_request` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request1 {
    struct_size: u32,
    count: u32,
    gpus: *const c_char,
    memory_bytes: u64,
    memory_ppm: u32,
    compute_ppm: u32,
    duration_ms: u64,
    wait_ms: u64,
    grace_ms: u64,
    priority: i32,
    on_expire: i32,
    name: *const c_char,
    detached: i32,
    reserved: i32,
    // Since the second size; a struct of the first ends before here.
    warn_ms: u64,
    warn_signal: i32,
    reserved_2: i32,
}

/// Bytes of the struct as it was first.
const FIRST_SIZE: usize = std::mem::offset_of!(Request1, warn_ms);

/// No version of the struct will be larger; what says that it is, is not initialized.
const SIZE_MAX: usize = 4_096;

/// The struct that `request` points to, of whichever version: fields that an older one lacks are
/// zero, and a newer one must not use fields that this library does not know.
///
/// # Safety
/// `request` is null or points to a struct of the size that it says.
unsafe fn sized(request: *const Request1) -> Result<Request1, Failure> {
    // SAFETY: the first field is there in every version of the struct.
    let size = unsafe { request.cast::<u32>().as_ref() };
    let size = *size.ok_or(Failure::new("the request is NULL"))? as usize;
    if !(FIRST_SIZE..=SIZE_MAX).contains(&size) {
        let message = format!("struct_size {size} is not from {FIRST_SIZE} to {SIZE_MAX}");
        return Err(bad(message));
    }
    let known = std::mem::size_of::<Request1>().min(size);
    let mut given = std::mem::MaybeUninit::<Request1>::zeroed();
    // SAFETY: both are at least `known` bytes long; a request of zeros is valid.
    let (given, beyond) = unsafe {
        std::ptr::copy_nonoverlapping(request.cast::<u8>(), given.as_mut_ptr().cast(), known);
        let beyond = std::slice::from_raw_parts(request.cast::<u8>().add(known), size - known);
        (given.assume_init(), beyond)
    };
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(bad(format!("this library knows {known} bytes of a request, not {size}")));
    }
    Ok(given)
}

fn bad(message: String) -> Failure {
    Refusal::BadInput { message, hint: "chronos_c.h says what each field may be".to_owned() }.into()
}

/// Milliseconds; 0 is `None`.
fn millis(number: u64) -> Result<Option<Span>, Failure> {
    if number == 0 {
        return Ok(None);
    }
    let span = number.checked_mul(1_000_000).map(Span::from_nanos).filter(|s| *s <= Span::MAX);
    span.map(Some).ok_or_else(|| bad(format!("{number} ms are more than a year")))
}

fn warn_signal(number: i32) -> Result<Option<WarnSignal>, Failure> {
    Ok(Some(match number {
        0 => return Ok(None),
        1 => WarnSignal::Usr1,
        2 => WarnSignal::Usr2,
        3 => WarnSignal::Hup,
        4 => WarnSignal::Int,
        other => return Err(bad(format!("warn_signal {other} is none of 0 to 4"))),
    }))
}

fn part(ppm: u32) -> Result<Option<Ppm>, Failure> {
    if ppm == 0 {
        return Ok(None);
    }
    Ppm::new(ppm).map(Some).ok_or_else(|| bad(format!("{ppm} millionths are more than the whole")))
}

/// # Safety
/// `request` is null or points to a struct of the size that it says; its strings are null or valid.
unsafe fn read(
    session: &mut Session,
    request: *const Request1,
) -> Result<(Request, Request1), Failure> {
    // SAFETY: as the caller promises.
    let given = unsafe { sized(request)? };
    // SAFETY: as the caller promises.
    let (gpus, name) = unsafe { (optional(given.gpus, "gpus")?, optional(given.name, "name")?) };
    let known = session.host().gpus()?;
    let choice = match gpus.filter(|gpus| !gpus.is_empty()) {
        Some(gpus) => {
            let named = gpus.split(',').map(|gpu| wanted::gpu(gpu.trim(), &known));
            Choice::These(named.collect::<Result<_, Refusal>>()?)
        }
        None => Choice::Any { count: given.count.max(1), prefer: Vec::new() },
    };
    let memory = match (given.memory_bytes, part(given.memory_ppm)?) {
        (0, part) => MemoryAsk::Part(part.unwrap_or(Ppm::WHOLE)),
        (bytes, None) => MemoryAsk::Size(chronos::Bytes::new(bytes)),
        (_, Some(_)) => return Err(bad("memory is given twice".to_owned())),
    };
    let defaults = wanted::Defaults::of(&session.settings().config);
    let (warn, warn_signal) = (millis(given.warn_ms)?, warn_signal(given.warn_signal)?);
    if warn_signal.is_some() && warn.is_none() {
        return Err(bad("a warn_signal without warn_ms".to_owned()));
    }
    let request = Request {
        choice,
        memory,
        compute: part(given.compute_ppm)?,
        duration: millis(given.duration_ms)?.unwrap_or(Span::from_secs(3_600)),
        priority: match given.priority {
            1 => Priority::High,
            0 => Priority::Normal,
            -1 => Priority::Low,
            other => return Err(bad(format!("priority {other} is none of -1, 0, 1"))),
        },
        on_expire: match given.on_expire {
            0 => OnExpire::Term,
            1 => OnExpire::Suspend,
            2 => OnExpire::Notify,
            other => return Err(bad(format!("on_expire {other} is none of 0, 1, 2"))),
        },
        grace: millis(given.grace_ms)?.unwrap_or(defaults.grace),
        warn: warn.or(defaults.warn),
        warn_signal,
        name: name.map(str::to_owned),
        reservation: None,
    };
    Ok((request, given))
}

fn wait_out(session: &mut Session, reply: Reply) -> Result<Lease, Failure> {
    match reply {
        Reply::Lease { lease } => Ok(*lease),
        Reply::Waiting { ticket, .. } => Ok(session.wait_for(&ticket, |_| ())??),
        other => Err(Failure::of(other)),
    }
}

/// # Safety
/// `out` is null or valid.
unsafe fn give(out: *mut *mut c_char, value: &Value) -> Result<i32, Failure> {
    let text = CString::new(value.to_string()).map_err(|_| Failure::new("a zero in the text"))?;
    // SAFETY: as the caller promises.
    let out = unsafe { out.as_mut() }.ok_or(Failure::new("there is no room for the text"))?;
    *out = text.into_raw();
    Ok(0)
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn chronos_v1_abi() -> u32 {
    ABI
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_create(
    handle: *mut c_void,
    request: *const Request1,
    out: *mut *mut c_char,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            if out.is_null() {
                return Err(Failure::new("there is no room for the text"));
            }
            let lease = partitioner.with(|session| {
                // SAFETY: as the caller promises.
                let (request, given) = unsafe { read(session, request)? };
                let detached = given.detached != 0;
                let order = Order::Create {
                    request,
                    binding: if detached { Binding::Deadline } else { Binding::Creator },
                    wait: millis(given.wait_ms)?,
                    holder: None,
                    user: None,
                };
                let reply = session.ask(&order)?;
                wait_out(session, reply)
            })?;
            // SAFETY: `out` is not null and valid as the caller promises.
            unsafe { give(out, &views::lease(&lease, clock::now())) }
        },
    )
}

/// # Safety
/// Pointers are null or valid.
unsafe fn order(
    handle: *mut c_void,
    id: *const c_char,
    make: impl FnOnce(chronos::lease::LeaseId) -> Result<Order, Failure>,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let (partitioner, id) = unsafe { (partitioner(handle)?, text(id, "the id")?) };
            let order = make(lease_id(id)?)?;
            partitioner.with(|session| match session.ask(&order)? {
                Reply::Suspended { .. } | Reply::Done | Reply::Released { .. } => Ok(0),
                reply => wait_out(session, reply).map(|_| 0),
            })
        },
    )
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_extend(
    handle: *mut c_void,
    id: *const c_char,
    by_ms: u64,
) -> i32 {
    let make = |id| {
        let by = millis(by_ms)?.ok_or_else(|| bad("an extension of nothing".to_owned()))?;
        Ok(Order::Extend { id, by })
    };
    // SAFETY: as the caller promises.
    unsafe { order(handle, id, make) }
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_suspend(handle: *mut c_void, id: *const c_char) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { order(handle, id, |id| Ok(Order::Suspend { id })) }
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_resume(
    handle: *mut c_void,
    id: *const c_char,
    for_ms: u64,
    wait_ms: u64,
) -> i32 {
    let make = |id| Ok(Order::Resume { id, for_: millis(for_ms)?, wait: millis(wait_ms)? });
    // SAFETY: as the caller promises.
    unsafe { order(handle, id, make) }
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_attach(
    handle: *mut c_void,
    id: *const c_char,
    pid: i32,
) -> i32 {
    let make = |id| {
        let pid = u32::try_from(pid).map_err(|_| bad(format!("process {pid} cannot be")))?;
        Ok(Order::Attach { id, pid })
    };
    // SAFETY: as the caller promises.
    unsafe { order(handle, id, make) }
}

/// # Safety
/// Pointers are null or valid.
unsafe fn find(handle: *mut c_void, id: *const c_char) -> Result<Lease, Failure> {
    // SAFETY: as the caller promises.
    let (partitioner, id) = unsafe { (partitioner(handle)?, text(id, "the id")?) };
    let id = lease_id(id)?;
    let lease = partitioner.with(|session| Ok(session.book()?.lease(&id).cloned()))?;
    Ok(lease.ok_or(Refusal::NoSuchLease { id: id.0 })?)
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_remaining_ms(
    handle: *mut c_void,
    id: *const c_char,
    out: *mut i64,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let lease = unsafe { find(handle, id)? };
            // SAFETY: as the caller promises.
            let out =
                unsafe { out.as_mut() }.ok_or(Failure::new("there is no room for the number"))?;
            let left = lease.remaining(clock::boottime()).as_nanos() / 1_000_000;
            *out = i64::try_from(left).unwrap_or(i64::MAX);
            Ok(0)
        },
    )
}

/// A descriptor that becomes readable at a time.
#[cfg(target_os = "linux")]
fn alarm(at: Boottime) -> Result<i32, Failure> {
    use std::os::fd::IntoRawFd;
    Ok(clock::alarm(at)?.into_raw_fd())
}

#[cfg(not(target_os = "linux"))]
fn alarm(_at: Boottime) -> Result<i32, Failure> {
    let system = std::env::consts::OS;
    Err(Failure { code: -69, message: format!("{system} has no descriptor that tells the time") })
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_warning_fd(
    handle: *mut c_void,
    id: *const c_char,
    before_ms: u64,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let lease = unsafe { find(handle, id)? };
            let before = millis(before_ms)?.unwrap_or(Span::ZERO);
            alarm(lease.deadline.before(before))
        },
    )
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_list_json(handle: *mut c_void, out: *mut *mut c_char) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            let list = partitioner.with(|session| {
                let now = clock::now();
                let items =
                    session.book()?.leases().map(|lease| views::lease(lease, now)).collect();
                Ok(views::list("LeaseList", items))
            })?;
            // SAFETY: as the caller promises.
            unsafe { give(out, &list) }
        },
    )
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_env_json(
    handle: *mut c_void,
    id: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let (partitioner, lease) = unsafe { (partitioner(handle)?, find(handle, id)?) };
            let vendor = partitioner
                .with(|session| Ok(session.host().gpus()?.first().map(|gpu| gpu.vendor)))?;
            let variables = supervise::environment(&lease, vendor);
            let object = variables.into_iter().map(|(name, value)| (name, Value::String(value)));
            // SAFETY: as the caller promises.
            unsafe { give(out, &Value::Object(object.collect())) }
        },
    )
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_suggest_json(
    handle: *mut c_void,
    request: *const Request1,
    out: *mut *mut c_char,
) -> i32 {
    guarded(
        |code| code,
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            let reply = partitioner.with(|session| {
                // SAFETY: as the caller promises.
                let (request, _) = unsafe { read(session, request)? };
                Ok(session.ask(&Order::Suggest { request })?)
            })?;
            let Reply::Suggested { start, parts, preempts } = reply else {
                return Err(Failure::of(reply));
            };
            // SAFETY: as the caller promises.
            unsafe { give(out, &views::suggestion(start, &parts, &preempts, &[])) }
        },
    )
}

/// See the header.
///
/// # Safety
/// `text` is null or from this library, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_v1_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: as the caller promises.
        drop(unsafe { CString::from_raw(text) });
    }
}
