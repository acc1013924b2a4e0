//! The first interface: eleven functions and one struct, as they have always been.

use std::ffi::{CStr, c_char, c_float, c_int, c_void};

use chronos::api::{Order, Reply};
use chronos::lease::{Binding, Lease, Phase, Vendor};
use chronos::os::clock;
use chronos::os::session::lease_id;
use chronos::world::World;
use chronos::{planner, wanted};

use crate::{Failure, LAST_ERROR, Partitioner, guarded, optional, partitioner, text};

/// `ChronosPartitionInfo` of the header.
#[repr(C)]
pub struct ChronosPartitionInfo {
    partition_id: [c_char; 64],
    device_index: c_int,
    memory_fraction: c_float,
    duration_seconds: c_int,
    time_remaining_seconds: c_int,
    username: [c_char; 256],
    process_id: c_int,
    active: c_int,
}

/// Copies `text` with its zero into `room`, cut where it is too long.
fn fill(room: &mut [c_char], text: &str) {
    room.fill(0);
    let most = room.len().saturating_sub(1);
    for (to, from) in room[..most].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
}

fn saturated(secs: u64) -> c_int {
    c_int::try_from(secs).unwrap_or(c_int::MAX)
}

fn describe(lease: &Lease) -> ChronosPartitionInfo {
    let now = clock::boottime();
    let first = lease.parts.first();
    let mut described = ChronosPartitionInfo {
        partition_id: [0; 64],
        device_index: first.map_or(-1, |part| saturated(part.index.into())),
        memory_fraction: first.map_or(0.0, |part| part.fraction.as_f64() as c_float),
        duration_seconds: saturated(lease.deadline.since(lease.granted).as_secs_up()),
        time_remaining_seconds: saturated(lease.remaining(now).as_secs_up()),
        username: [0; 256],
        process_id: saturated(lease.creator.pid.into()),
        active: c_int::from(lease.phase == Phase::Active && lease.deadline > now),
    };
    fill(&mut described.partition_id, &lease.id.0);
    fill(&mut described.username, &lease.owner.user);
    described
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn chronos_partitioner_create() -> *mut c_void {
    guarded(|_| std::ptr::null_mut(), || Ok(Box::into_raw(Box::new(Partitioner::open()?)).cast()))
}

/// See the header.
///
/// # Safety
/// `handle` is null or from [`chronos_partitioner_create`], and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_partitioner_destroy(handle: *mut c_void) {
    if !handle.is_null() {
        // SAFETY: the box was made by `chronos_partitioner_create` and is given back once.
        drop(unsafe { Box::from_raw(handle.cast::<Partitioner>()) });
    }
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid; `id_out` has room for `id_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_create_partition(
    handle: *mut c_void,
    device_index: c_int,
    memory_fraction: c_float,
    duration_seconds: c_int,
    user: *const c_char,
    id_out: *mut c_char,
    id_size: usize,
) -> c_int {
    guarded(
        |_| -1,
        || {
            // SAFETY: as the caller promises.
            let (partitioner, user) = unsafe { (partitioner(handle)?, optional(user, "user")?) };
            if id_out.is_null() || id_size == 0 {
                return Err(Failure::new("there is no room for the partition id"));
            }
            let user = user.filter(|user| !user.is_empty()).map(str::to_owned);
            let lease = partitioner.with(|session| {
                let gpus = session.host().gpus()?;
                let defaults = wanted::Defaults::of(&session.settings().config);
                let (device, fraction) = (device_index.into(), memory_fraction.into());
                let secs = duration_seconds.into();
                let request = wanted::simple(device, fraction, secs, &gpus, &defaults)?;
                let order = Order::Create {
                    request,
                    binding: Binding::Creator,
                    wait: None,
                    holder: None,
                    user,
                };
                match session.ask(&order)? {
                    Reply::Lease { lease } => Ok(lease),
                    other => Err(Failure::of(other)),
                }
            })?;
            // SAFETY: the caller gives room for `id_size` bytes, and there is at least one.
            fill(unsafe { std::slice::from_raw_parts_mut(id_out, id_size) }, &lease.id.0);
            Ok(0)
        },
    )
}

/// See the header.
///
/// # Safety
/// Pointers are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_release_partition(
    handle: *mut c_void,
    partition_id: *const c_char,
) -> c_int {
    guarded(
        |_| -1,
        || {
            // SAFETY: as the caller promises.
            let (partitioner, id) =
                unsafe { (partitioner(handle)?, text(partition_id, "the id")?) };
            let order = Order::Release { id: lease_id(id)?, force: false, finished: false };
            match partitioner.ask(&order)? {
                Reply::Released { .. } => Ok(0),
                other => Err(Failure::of(other)),
            }
        },
    )
}

/// See the header.
///
/// # Safety
/// `count` is null or valid; `infos` is null or has room for `*count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_list_partitions(
    handle: *mut c_void,
    infos: *mut ChronosPartitionInfo,
    count: *mut usize,
) -> c_int {
    guarded(
        |_| -1,
        || {
            // SAFETY: as the caller promises.
            let (partitioner, count) = unsafe { (partitioner(handle)?, count.as_mut()) };
            let count = count.ok_or(Failure::new("the count is NULL"))?;
            let mut leases = partitioner
                .with(|session| Ok(session.book()?.leases().cloned().collect::<Vec<Lease>>()))?;
            leases.sort_by_key(|lease| (lease.granted, lease.id.clone()));
            if !infos.is_null() {
                for (position, lease) in leases.iter().take(*count).enumerate() {
                    // SAFETY: `position` is below the room that the caller gave.
                    unsafe { infos.add(position).write(describe(lease)) };
                }
            }
            *count = leases.len();
            Ok(0)
        },
    )
}

/// See the header.
///
/// # Safety
/// `handle` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_get_available_percentage(
    handle: *mut c_void,
    device_index: c_int,
) -> c_float {
    guarded(
        |_| -1.0,
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            partitioner.with(|session| {
                let gpus = session.host().gpus()?;
                let gpu = wanted::gpu(&device_index.to_string(), &gpus)?;
                let position = gpus.iter().position(|g| g.id == gpu).unwrap_or_default();
                let free = planner::free(session.book()?, &gpus, clock::now())[position];
                let part =
                    chronos::quantity::Ppm::ratio(free.as_u64(), gpus[position].memory.as_u64());
                Ok((part.map_or(0.0, chronos::quantity::Ppm::as_f64) * 100.0) as c_float)
            })
        },
    )
}

/// See the header.
///
/// # Safety
/// `handle` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_show_device_stats(handle: *mut c_void) {
    guarded(
        |_| (),
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            partitioner.with(|session| {
                let gpus = session.host().gpus()?;
                let free = planner::free(session.book()?, &gpus, clock::now());
                for (gpu, free) in gpus.iter().zip(free) {
                    println!(
                        "GPU {}: {} ({}), {free} of {} free",
                        gpu.index, gpu.name, gpu.id, gpu.memory
                    );
                }
                Ok(())
            })
        },
    );
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn chronos_get_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

const CONCURRENT: c_int = 0;
const STUB: c_int = 2;

/// See the header.
///
/// # Safety
/// `handle` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_get_execution_mode(handle: *mut c_void) -> c_int {
    guarded(
        |_| STUB,
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            partitioner.with(|session| {
                let real = session.host().gpus()?.iter().any(|gpu| gpu.vendor != Vendor::Declared);
                Ok(if real { CONCURRENT } else { STUB })
            })
        },
    )
}

/// See the header.
///
/// # Safety
/// `handle` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chronos_get_backend_name(handle: *mut c_void) -> *const c_char {
    const NAMES: [&CStr; 6] = [c"nvidia", c"amd", c"intel", c"portable", c"fake", c"none"];
    let name = guarded(
        |_| "none",
        || {
            // SAFETY: as the caller promises.
            let partitioner = unsafe { partitioner(handle)? };
            partitioner.with(|session| Ok(session.host().backend().name()))
        },
    );
    let found = NAMES.iter().find(|known| known.to_str() == Ok(name));
    found.copied().unwrap_or(c"none").as_ptr()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn chronos_check_concurrent_support() -> c_int {
    guarded(
        |_| 0,
        || {
            let partitioner = Partitioner::open()?;
            partitioner.with(|session| {
                let real = session.host().gpus()?.iter().any(|gpu| gpu.vendor != Vendor::Declared);
                Ok(c_int::from(real))
            })
        },
    )
}
