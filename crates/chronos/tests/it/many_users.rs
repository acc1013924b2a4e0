//! A thousand users of one helper: real user numbers, as the kernel tells them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use chronos::api::{Order, Reply};
use chronos::lease::{Binding, Choice, GpuId, MemoryAsk, OnExpire, Priority, Request};
use chronos::quantity::{Ppm, Span};

use crate::sandbox::{Killed, Sandbox, await_some, is_root};

const USERS: u32 = 1_000;
const FIRST: u32 = 200_000;
/// The one user with an entry of its own.
const FAVORED: u32 = FIRST + 7;

/// Asks the helper as user `uid`: the effective user of this very thread, which is what the kernel
/// tells the other end.
fn ask(socket: &Path, uid: u32, order: &Order) -> Reply {
    let become_user = |uid: u32| {
        // SAFETY: the raw call changes this thread alone and takes numbers only; the saved user
        // stays root, so that the way back is open.
        let status = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, 0) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    };
    become_user(uid);
    let stream = UnixStream::connect(socket);
    become_user(0);
    let mut stream = stream.unwrap();
    let mut line = serde_json::to_vec(order).unwrap();
    line.push(b'\n');
    stream.write_all(&line).unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap()
}

fn create(ppm: u32) -> Order {
    let request = Request {
        choice: Choice::These(vec![GpuId("FAKE-0".into())]),
        memory: MemoryAsk::Part(Ppm::new(ppm).unwrap()),
        compute: None,
        duration: Span::from_secs(3_000),
        priority: Priority::Normal,
        on_expire: OnExpire::Term,
        grace: Span::ZERO,
        warn: None,
        warn_signal: None,
        name: None,
        reservation: None,
    };
    Order::Create { request, binding: Binding::Deadline, wait: None, holder: None, user: None }
}

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::Refused { refusal } => format!("{}: {refusal}", refusal.code()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_thousand_users_fill_a_gpu_and_nobody_gets_more_than_policy_says() {
    if !is_root() {
        println!("skipped: several users need root");
        return;
    }
    let sandbox = Sandbox::new("count=1,memory=80GiB").without_guardian();
    let policy = format!(
        "default: {{maxLeases: 1, maxMemory: 0.1%, maxDuration: 1h}}\n\
         users:\n  \"{FAVORED}\": {{maxLeases: 2, maxMemory: 0.1%}}\n"
    );
    std::fs::write(sandbox.root().join("policy.yaml"), policy).unwrap();
    let mut command = sandbox.command(&["helper"]);
    let _helper = Killed(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let socket = sandbox.runtime().join("helper.sock");
    await_some("the helper", || UnixStream::connect(&socket).ok());
    let mut leases = Vec::new();
    for uid in FIRST..FIRST + USERS - 1 {
        match ask(&socket, uid, &create(1_000)) {
            Reply::Lease { lease } => {
                assert_eq!((lease.owner.uid, &lease.owner.user), (uid, &uid.to_string()));
                leases.push(lease);
            }
            other => panic!("user {uid}: {other:?}"),
        }
    }
    // A user that holds what it may hold gets no more, the favored one does, and then it is full.
    let again = refusal(ask(&socket, FIRST, &create(1_000)));
    assert!(again.starts_with("policy: user `200000`: number of leases 2 exceeds"), "{again}");
    let larger = refusal(ask(&socket, FIRST + USERS, &create(2_000)));
    assert!(larger.starts_with("policy: "), "{larger}");
    assert!(matches!(ask(&socket, FAVORED, &create(1_000)), Reply::Lease { .. }));
    let full = refusal(ask(&socket, FIRST + USERS, &create(1_000)));
    assert!(full.starts_with("no_capacity"), "{full}");
    assert_eq!(sandbox.book().leases().len() as u32, USERS);
    let gpus = chronos::os::gpu::fake::Fake::new("count=1,memory=80GiB").gpus().unwrap();
    assert!(chronos::audit::check(sandbox.book().leases(), &gpus).is_empty());
    // Each gives back its own and nobody else's.
    for (position, lease) in leases.iter().enumerate().step_by(97) {
        let stranger = leases[(position + 1) % leases.len()].owner.uid;
        let order = Order::Release { id: lease.id.clone(), force: true, finished: false };
        let refused = refusal(ask(&socket, stranger, &order));
        assert!(refused.starts_with("not_yours"), "{refused}");
        assert!(matches!(ask(&socket, lease.owner.uid, &order), Reply::Released { .. }));
    }
    // The rest is void as after a reboot, and a guard removes what it finds without a lease.
    std::fs::remove_file(sandbox.runtime().join("journal")).unwrap();
    sandbox.ok(&["guard"]);
}

/// A user who opens connections and says nothing keeps nobody else out.
#[test]
fn a_user_who_takes_every_turn_leaves_some_to_others() {
    if !is_root() {
        println!("skipped: several users need root");
        return;
    }
    let sandbox = Sandbox::new("count=1,memory=10GiB").without_guardian();
    let mut helper = sandbox.command(&["helper"]);
    let helper = helper.stdout(std::process::Stdio::null()).spawn().unwrap();
    let _helper = Killed(helper);
    let socket = sandbox.runtime().join("helper.sock");
    await_some("the helper", || UnixStream::connect(&socket).ok());
    // More than it serves at a time, and all by one user: root, whom nothing else limits.
    let silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let answer = ask(&socket, FIRST, &create(100_000));
    assert!(matches!(answer, Reply::Lease { .. }), "{answer:?}");
    let mut refused = String::new();
    BufReader::new(silent.last().unwrap()).read_line(&mut refused).unwrap();
    assert!(refused.contains("the helper is busy"), "{refused}");
}
