//! The C ABI of Chronos: `include/chronos/chronos_c.h` is its contract and its documentation.
//!
//! # Invariants
//! * No call panics across the boundary, prints, or keeps a pointer it was given.
//! * A null pointer is an answer of -1, never a fault.

mod first;
mod second;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, TryLockError};

use chronos::api::{Order, Reply};
use chronos::os::{Fault, Session, Settings};
use chronos::refusal::Refusal;

pub use first::*;
pub use second::*;

/// A way to the partitions, shared by the threads of a program.
struct Partitioner {
    settings: Settings,
    session: Mutex<Session>,
}

/// Why a call has no result.
struct Failure {
    code: i32,
    message: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let hint = refusal.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self { code: -i32::from(refusal.exit_code()), message: format!("{refusal}{hint}") }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let code = if matches!(fault, Fault::Setting { .. }) { -78 } else { -74 };
        Self { code, message: chronos::os::session::chain(&fault) }
    }
}

impl Failure {
    fn new(message: &str) -> Self {
        Self { code: -1, message: message.to_owned() }
    }

    fn of(reply: Reply) -> Self {
        match reply {
            Reply::Refused { refusal } => (*refusal).into(),
            Reply::Failed { message, .. } => Self { code: -74, message },
            other => {
                Self { code: -1, message: format!("an answer to another question: {other:?}") }
            }
        }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn remember(message: &str) {
    let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
}

/// Runs `body`; a failure or a panic is remembered and becomes `failed`.
fn guarded<T>(failed: impl Fn(i32) -> T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => {
            remember(&failure.message);
            failed(failure.code)
        }
        Err(_) => {
            remember("a fault in the library; please report it");
            failed(-1)
        }
    }
}

/// # Safety
/// `handle` is null or from `chronos_partitioner_create` and not destroyed.
unsafe fn partitioner<'a>(handle: *mut c_void) -> Result<&'a Partitioner, Failure> {
    // SAFETY: as the caller promises.
    unsafe { handle.cast::<Partitioner>().as_ref() }.ok_or(Failure::new("the handle is NULL"))
}

/// # Safety
/// `text` is null or a string that ends with a zero.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure { code: -1, message: format!("{what} is NULL") });
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure { code: -2, message: format!("{what} is not UTF-8") })
}

/// # Safety
/// As for [`text`]; null is `None`.
unsafe fn optional<'a>(given: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if given.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { text(given, what) }.map(Some)
}

impl Partitioner {
    fn open() -> Result<Self, Failure> {
        let settings = Settings::read()?;
        let session = Mutex::new(Session::open(&settings)?);
        Ok(Self { settings, session })
    }

    /// Has `body` done. While another thread waits in the queue, or for the end of a partition, with
    /// the session of this handle, and in the child of a fork in the midst of a call, it gets a
    /// session of its own: no call waits for another.
    fn with<T>(&self, body: impl FnOnce(&mut Session) -> Result<T, Failure>) -> Result<T, Failure> {
        match self.session.try_lock() {
            Ok(mut session) => body(&mut session),
            // A thread that panicked has left a session that is read anew anyway.
            Err(TryLockError::Poisoned(left)) => body(&mut left.into_inner()),
            Err(TryLockError::WouldBlock) => body(&mut Session::open(&self.settings)?),
        }
    }

    fn ask(&self, order: &Order) -> Result<Reply, Failure> {
        self.with(|session| Ok(session.ask(order)?))
    }
}
