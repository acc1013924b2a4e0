//! The helper: does for users what only root may, and leaves when nobody asks.
//!
//! It is started by the service manager on the first connection, or by hand. Who asks is what the
//! kernel says of the other end of the socket. One connection is one order.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::host::Host;
use super::process::{self, timespec};
use crate::api::{Order, Reply};
use crate::engine::Engine;
use crate::os::fault::Fault;
use crate::os::session::{chain, perform};
use crate::os::settings::Settings;
use crate::os::users;
use crate::policy::Caller;
use crate::quantity::Span;

/// Orders that are done at the same time; who comes then is told to come again.
const BUSY_MAX: usize = 64;

/// Orders of one user that are done at the same time: who opens connections and says nothing leaves
/// room for others.
const BUSY_OF_USER_MAX: usize = BUSY_MAX / 2;

/// Longest order, in bytes.
const ORDER_MAX: u64 = 64 << 10;

/// How long a caller may take to write its order.
const ORDER_WAIT: Duration = Duration::from_secs(2);

/// Longest reply of the helper, in bytes: a list of twenty thousand leases.
const REPLY_MAX: u64 = 16 << 20;

/// How long the helper may take to begin its answer beyond what the order itself may take.
const HELPER_WAIT: Duration = Duration::from_secs(30);

/// First descriptor that a service manager passes. Source: sd_listen_fds(3).
const LISTEN_FD: RawFd = 3;

/// Listens until nobody has asked for `idle`; without it for ever.
///
/// # Errors
/// [`Fault::Os`] when the socket cannot be made.
pub fn run(settings: &Settings, idle: Option<Span>) -> Result<(), Fault> {
    let socket = settings.runtime.join("helper.sock");
    // Makes and checks the folder, so that the socket lies in one that is ours.
    drop(Host::open(settings)?);
    let listener = match passed() {
        Some(listener) => listener,
        None => listen(&socket)?,
    };
    let busy = Arc::new(Busy::default());
    loop {
        let patience = idle.map(|idle| timespec(idle.as_nanos()));
        let mut watched = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut watched, patience.as_ref()) {
            Ok(0) if busy.is_idle() => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::os("wait at", socket.display(), error)),
        }
        if watched[0].revents().is_empty() {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let Some(turn) = peer(&stream).ok().and_then(|(user, _)| Busy::begin(&busy, user)) else {
            let hint = Some("try again".to_owned());
            reply(&stream, &Reply::Failed { message: "the helper is busy".into(), hint });
            continue;
        };
        let settings = settings.clone();
        let serve = move || {
            serve(&settings, &stream);
            drop(turn);
        };
        // A thread that cannot be started leaves the order undone, which its caller sees.
        if std::thread::Builder::new().stack_size(512 << 10).spawn(serve).is_err() {
            return Err(Fault::os("start", "a thread", std::io::Error::last_os_error()));
        }
    }
}

/// Orders that are being done, by user.
#[derive(Debug, Default)]
struct Busy(Mutex<BTreeMap<u32, usize>>);

impl Busy {
    /// One more order of a user; `None` where that is too many.
    fn begin(this: &Arc<Self>, user: u32) -> Option<Turn> {
        let mut users = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = users.get(&user).copied().unwrap_or(0);
        if of_user >= BUSY_OF_USER_MAX || users.values().sum::<usize>() >= BUSY_MAX {
            return None;
        }
        users.insert(user, of_user + 1);
        Some(Turn { busy: Arc::clone(this), user })
    }

    fn is_idle(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// One order that is being done; it is over when this is dropped.
#[derive(Debug)]
struct Turn {
    busy: Arc<Busy>,
    user: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut users = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        match users.get_mut(&self.user) {
            Some(orders) if *orders > 1 => *orders -= 1,
            _ => drop(users.remove(&self.user)),
        }
    }
}

/// The user and the process at the other end, as the kernel says.
fn peer(stream: &UnixStream) -> Result<(u32, u32), Fault> {
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd())
        .map_err(|e| Fault::os("ask who is at", "the socket", e))?;
    Ok((peer.uid.as_raw(), u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0)))
}

/// The socket that a service manager listens on for us.
fn passed() -> Option<UnixListener> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID")? != std::process::id() || number("LISTEN_FDS")? != 1 {
        return None;
    }
    // SAFETY: the service manager passed this descriptor to this very process and nobody else
    // here has taken it: this is called once.
    Some(UnixListener::from(unsafe { OwnedFd::from_raw_fd(LISTEN_FD) }))
}

fn listen(socket: &Path) -> Result<UnixListener, Fault> {
    let fail = |e| Fault::os("listen on", socket.display(), e);
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(fail)?;
    // Everyone may ask; who may have what is decided by policy and owner.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(listener)
}

fn serve(settings: &Settings, stream: &UnixStream) {
    let answer = match order(stream) {
        Ok((caller, order)) => match Host::open(settings) {
            Ok(host) => perform(&mut Engine::new(host), settings, &caller, &order),
            Err(fault) => failed(&fault),
        },
        Err(fault) => failed(&fault),
    };
    reply(stream, &answer);
}

fn failed(fault: &Fault) -> Reply {
    Reply::Failed { message: chain(fault), hint: fault.hint().map(str::to_owned) }
}

fn reply(mut stream: &UnixStream, reply: &Reply) {
    let _ = stream.set_write_timeout(Some(ORDER_WAIT));
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        // A caller that is gone does not need its answer.
        let _ = stream.write_all(&line);
    }
}

fn order(stream: &UnixStream) -> Result<(Caller, Order), Fault> {
    let fail = |e: std::io::Error| Fault::os("read an order from", "the socket", e);
    let (user, pid) = peer(stream)?;
    let owner = users::owner(user);
    let groups = users::groups_of(owner.uid);
    let caller = Caller { owner, groups, process: process::identify(pid)? };
    stream.set_read_timeout(Some(ORDER_WAIT)).map_err(fail)?;
    let mut line = String::new();
    BufReader::new(stream.take(ORDER_MAX)).read_line(&mut line).map_err(fail)?;
    let order = serde_json::from_str(&line).map_err(|e| fail(std::io::Error::other(e)))?;
    Ok((caller, order))
}

/// Has an order done by the helper at `socket`.
///
/// # Errors
/// [`Fault::Helper`] when it cannot be reached or understood.
pub fn ask(socket: &Path, order: &Order) -> Result<Reply, Fault> {
    let fail = |why: String| Fault::Helper { path: socket.to_owned(), why };
    let mut stream = UnixStream::connect(socket).map_err(|e| fail(e.to_string()))?;
    let grace = Duration::from_secs(3_600);
    let patience = if matches!(order, Order::Release { .. }) { grace } else { HELPER_WAIT };
    stream.set_read_timeout(Some(patience)).map_err(|e| fail(e.to_string()))?;
    let mut line = serde_json::to_vec(order).map_err(|e| fail(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|e| fail(e.to_string()))?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_MAX))
        .read_line(&mut reply)
        .map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&reply).map_err(|e| fail(format!("its answer means nothing: {e}")))
}
