//! A deadline that the kernel keeps with no process alive: a device program on the control group
//! of a lease that refuses to open its GPUs once the time is over.
//!
//! Fourteen instructions or a few more, assembled here, so that no compiler is needed. Files that
//! are open already stay open: ending the processes is the other guards' work. The program goes
//! with its control group.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::lease::DeviceNode;
use crate::os::fault::Fault;
use crate::quantity::Boottime;

/// Commands of bpf(2). Source: `linux/bpf.h`.
mod command {
    pub const PROG_LOAD: i32 = 5;
    pub const PROG_ATTACH: i32 = 8;
    pub const PROG_DETACH: i32 = 9;
    pub const PROG_GET_FD_BY_ID: i32 = 13;
    pub const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub const PROG_QUERY: i32 = 16;
}

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const HELPER_BOOT_NANOS: i32 = 125;

/// Name of every program of ours, as the kernel shows it.
const NAME: &[u8; 16] = b"chronos_deadlin\0";

/// GPUs whose nodes one program compares.
const NODES_MAX: usize = 64;

/// One instruction: operation, registers (destination in the low half), offset, immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction(u8, u8, i16, i32);

/// `bpf_cgroup_dev_ctx`: the access at 0, the major number at 4, the minor number at 8.
fn program(deadline: Boottime, nodes: &[DeviceNode]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const LOAD_IMMEDIATE: u8 = 0x18;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const JUMP_IF_LESS: u8 = 0xad;
    const JUMP_UNLESS_EQUAL: u8 = 0x56;
    // Halves of the 64 bits, as the instruction wants them.
    let (low, high) = (deadline.as_nanos() as i32, (deadline.as_nanos() >> 32) as i32);
    let mut code = vec![
        Instruction(MOVE, 0x16, 0, 0),
        Instruction(CALL, 0, 0, HELPER_BOOT_NANOS),
        Instruction(LOAD_IMMEDIATE, 0x02, 0, low),
        Instruction(0, 0, 0, high),
        Instruction(LOAD_WORD, 0x63, 4, 0),
        Instruction(LOAD_WORD, 0x64, 8, 0),
        Instruction(MOVE, 0x05, 0, 0),
        Instruction(SET, 0x00, 0, 1),
    ];
    let compares = nodes.len().min(NODES_MAX);
    // Before the deadline: over all comparisons to the exit.
    code.push(Instruction(JUMP_IF_LESS, 0x25, (compares * 4) as i16, 0));
    for node in &nodes[..compares] {
        // Device numbers have fewer than 31 bits.
        code.push(Instruction(JUMP_UNLESS_EQUAL, 0x03, 3, node.major as i32));
        code.push(Instruction(JUMP_UNLESS_EQUAL, 0x04, 2, node.minor as i32));
        code.push(Instruction(SET, 0x00, 0, 0));
        code.push(Instruction(EXIT, 0, 0, 0));
    }
    code.push(Instruction(EXIT, 0, 0, 0));
    code
}

/// Puts the deadline of a lease on its control group, in place of an earlier one.
///
/// # Errors
/// [`Fault::Os`] where the kernel or its configuration does not allow it.
pub fn arm(cgroup: &Path, deadline: Boottime, nodes: &[DeviceNode]) -> Result<(), Fault> {
    if nodes.is_empty() {
        return Ok(());
    }
    let fail = |e: io::Error| Fault::os("attach device program to", cgroup.display(), e);
    let group = File::open(cgroup).map_err(fail)?;
    let program = load(&program(deadline, nodes)).map_err(fail)?;
    let earlier = attached(&group).map_err(fail)?;
    attach(command::PROG_ATTACH, &group, program.as_raw_fd(), ALLOW_MULTI).map_err(fail)?;
    // After the new one: all of them have to allow an open, so that none is allowed too much.
    detach(&group, &earlier).map_err(fail)
}

/// Takes every deadline of ours off a control group; programs of others stay.
///
/// # Errors
/// [`Fault::Os`].
pub fn disarm(cgroup: &Path) -> Result<(), Fault> {
    let fail = |e: io::Error| Fault::os("detach device program from", cgroup.display(), e);
    let group = File::open(cgroup).map_err(fail)?;
    let ours = attached(&group).map_err(fail)?;
    detach(&group, &ours).map_err(fail)
}

fn detach(group: &File, programs: &[OwnedFd]) -> io::Result<()> {
    programs
        .iter()
        .try_for_each(|program| attach(command::PROG_DETACH, group, program.as_raw_fd(), 0))
}

/// Whether the kernel accepts such programs from this user.
///
/// # Errors
/// [`Fault::Os`] with the kernel's reason.
pub fn probe() -> Result<(), Fault> {
    let code = program(Boottime::default(), &[]);
    load(&code).map(drop).map_err(|e| Fault::os("load", "a device program", e))
}

/// Whether [`probe`] succeeds.
pub fn available() -> bool {
    probe().is_ok()
}

#[repr(C)]
#[derive(Default)]
struct LoadArguments {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let bytes: Vec<u8> = code
        .iter()
        .flat_map(|Instruction(operation, registers, offset, immediate)| {
            let (o, i) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
            [*operation, *registers, o[0], o[1], i[0], i[1], i[2], i[3]]
        })
        .collect();
    let mut arguments = LoadArguments {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: bytes.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name: *NAME,
        ..LoadArguments::default()
    };
    let fd = bpf(command::PROG_LOAD, &mut arguments)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct AttachArguments {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn attach(command: i32, group: &File, program: i32, flags: u32) -> io::Result<()> {
    let mut arguments = AttachArguments {
        // Descriptors are not negative.
        target: group.as_raw_fd() as u32,
        program: program as u32,
        kind: ATTACH_TYPE_DEVICE,
        flags,
    };
    bpf(command, &mut arguments).map(drop)
}

#[repr(C)]
struct QueryArguments {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// Our programs on a control group, by their name.
fn attached(group: &File) -> io::Result<Vec<OwnedFd>> {
    let mut ids = vec![0_u32; 64];
    let mut arguments = QueryArguments {
        target: group.as_raw_fd() as u32,
        kind: ATTACH_TYPE_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    bpf(command::PROG_QUERY, &mut arguments)?;
    ids.truncate(arguments.count as usize);
    let programs = ids.into_iter().map(program_of).collect::<io::Result<Vec<OwnedFd>>>()?;
    Ok(programs.into_iter().filter(|program| name_of(program).is_ok_and(|n| n == *NAME)).collect())
}

/// The name of a program: 16 bytes at offset 64 of `bpf_prog_info`.
fn name_of(program: &OwnedFd) -> io::Result<[u8; 16]> {
    #[repr(C)]
    struct Arguments {
        program: u32,
        length: u32,
        info: u64,
    }
    const LENGTH: usize = 80;
    let mut info = [0_u8; LENGTH];
    let mut arguments = Arguments {
        program: program.as_raw_fd() as u32,
        length: LENGTH as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(command::OBJ_GET_INFO_BY_FD, &mut arguments)?;
    let mut name = [0; 16];
    name.copy_from_slice(&info[64..]);
    Ok(name)
}

fn program_of(id: u32) -> io::Result<OwnedFd> {
    let mut arguments = [id, 0, 0, 0];
    let fd = bpf(command::PROG_GET_FD_BY_ID, &mut arguments)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i32, arguments: &mut T) -> io::Result<i32> {
    let size = std::mem::size_of::<T>();
    let pointer: *mut T = arguments;
    // SAFETY: `arguments` is valid for `size` bytes, and all that it points to outlives the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    // A descriptor or zero.
    Ok(status as i32)
}
