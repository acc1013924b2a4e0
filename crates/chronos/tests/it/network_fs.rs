//! A directory of ours on a file system that another machine may serve: a real FUSE mount with the
//! smallest server there can be.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, is_root};

/// Requests of the kernel. Source: `linux/fuse.h`, protocol 7.31.
mod opcode {
    pub const GETATTR: u32 = 3;
    pub const STATFS: u32 = 17;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const RELEASEDIR: u32 = 29;
}

/// A mounted file system that has nothing but its root.
struct Mounted {
    at: PathBuf,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Mounted {
    /// `None` where nothing can be mounted.
    fn at(folder: &Path) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let path = CString::new(folder.as_os_str().as_encoded_bytes()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        // SAFETY: all five are strings that outlive the call.
        let status = unsafe {
            let (source, kind) = (c"chronos-it".as_ptr(), c"fuse".as_ptr());
            libc::mount(source, path.as_ptr(), kind, 0, options.as_ptr().cast())
        };
        let server = (status == 0).then(|| std::thread::spawn(move || serve(device)))?;
        Some(Self { at: folder.to_owned(), server: Some(server) })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = CString::new(self.at.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: `path` is a string. The server ends when the kernel closes its end.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        let _ = self.server.take().map(std::thread::JoinHandle::join);
    }
}

fn serve(mut device: File) {
    let mut request = vec![0_u8; 256 << 10];
    // The kernel refuses to read once the file system is unmounted.
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert!(length >= 40, "a request has a head of 40 bytes");
        let body = match word(4) {
            opcode::INIT => Ok(init()),
            opcode::GETATTR => Ok(root()),
            opcode::OPENDIR => Ok(vec![0; 16]),
            opcode::STATFS => Ok(vec![0; 80]),
            opcode::RELEASEDIR => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match body {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        reply.extend_from_slice(&i32::to_ne_bytes(error));
        reply.extend_from_slice(&request[8..16]);
        reply.extend_from_slice(&body);
        let _ = device.write_all(&reply);
    }
}

/// `fuse_init_out`: version 7.31, and no more than the least of everything.
fn init() -> Vec<u8> {
    let mut body = vec![0; 64];
    body[0..4].copy_from_slice(&7_u32.to_ne_bytes());
    body[4..8].copy_from_slice(&31_u32.to_ne_bytes());
    body[20..24].copy_from_slice(&4_096_u32.to_ne_bytes());
    body
}

/// `fuse_attr_out` of a folder that belongs to root and that only root can write into.
fn root() -> Vec<u8> {
    let mut body = vec![0; 104];
    body[16..24].copy_from_slice(&1_u64.to_ne_bytes());
    let mode = libc::S_IFDIR | 0o755;
    body[76..80].copy_from_slice(&mode.to_ne_bytes());
    body[80..84].copy_from_slice(&2_u32.to_ne_bytes());
    body
}

#[test]
fn a_directory_of_ours_that_another_machine_may_serve_is_refused() {
    if !is_root() {
        println!("skipped: mounting a file system needs root");
        return;
    }
    let sandbox = Sandbox::new("count=1").without_guardian();
    let folders = [
        (sandbox.runtime(), "runtime directory", "CHRONOS_RUNTIME_DIR"),
        (sandbox.root().join("state"), "state directory", "CHRONOS_STATE_DIR"),
    ];
    for (folder, noun, variable) in folders {
        std::fs::create_dir_all(&folder).unwrap();
        if variable == "CHRONOS_STATE_DIR" {
            sandbox.create(&["--gpu", "0", "--for", "1ms"]);
        }
        let Some(mounted) = Mounted::at(&folder) else {
            println!("skipped: FUSE cannot be mounted here");
            return;
        };
        let refused = format!("{noun} `{}` is on a network file system (FUSE)", folder.display());
        for arguments in [&["create", "0", "0.5", "60"][..], &["list"], &["release", "partition_1"]]
        {
            let errors = sandbox.refused(74, arguments);
            assert!(errors.contains(&refused), "{arguments:?}: {errors}");
            assert!(errors.contains(&format!("hint: set {variable} to")), "{errors}");
        }
        if variable == "CHRONOS_STATE_DIR" {
            sandbox.ok(&["reap"]);
            assert_eq!(sandbox.book().leases().len(), 0, "a guard ends what was granted before");
        }
        let doctor = sandbox.run(&["doctor"]);
        assert_eq!(doctor.status.code(), Some(1));
        drop(mounted);
        let id = sandbox.create(&["0", "0.5", "60"]);
        sandbox.ok(&["release", &id]);
    }
}
