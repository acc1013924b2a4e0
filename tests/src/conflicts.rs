//! A way to the API server on which every second write is answered with a conflict.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::control_plane::ControlPlane;
use crate::port::LoopbackPort;
use crate::process::{CommandLine, Process};
use crate::program::Program;
use crate::wait::until;

/// Largest request that is passed on.
const REQUEST_BYTES_MAX: usize = 4 << 20;

const CONFLICT: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"message":"every second write"}"#;

/// Passes requests on to `kubectl proxy`, which holds the credentials.
#[derive(Debug)]
pub struct Conflicts {
    kubeconfig: PathBuf,
    refused: Arc<AtomicU32>,
    _kubectl: Process,
    _port: LoopbackPort,
}

impl Conflicts {
    /// Starts it for `cluster`, with its files in `folder`.
    ///
    /// # Errors
    /// No port, no `kubectl`, or no file could be had.
    pub fn start(
        cluster: &ControlPlane,
        folder: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let port = LoopbackPort::reserve()?;
        let kubectl = CommandLine::new(
            Program::Kubectl.find()?,
            [
                format!("--kubeconfig={}", cluster.kubeconfig().display()),
                "proxy".to_owned(),
                format!("--port={}", port.number()),
            ],
        );
        let kubectl = Process::start(kubectl, &folder.join("kubectl-proxy.log"))?;
        let upstream = port.address();
        until("kubectl proxy listens", Duration::from_secs(60), || {
            Ok::<_, io::Error>(TcpStream::connect(upstream).ok())
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = format!("http://{}", listener.local_addr()?);
        let (writes, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&refused);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (writes, count) = (Arc::clone(&writes), Arc::clone(&count));
                // What breaks here breaks the connection, which is what its client sees.
                thread::spawn(move || pass(stream, upstream, &writes, &count));
            }
        });
        let kubeconfig = folder.join("conflicts.kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&kubeconfig, text.to_string())?;
        Ok(Self { kubeconfig, refused, _kubectl: kubectl, _port: port })
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes that were answered with a conflict so far.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Passes one request on; the connection ends with its answer.
fn pass(
    mut client: TcpStream,
    upstream: SocketAddr,
    writes: &AtomicU32,
    refused: &AtomicU32,
) -> io::Result<()> {
    let Some((head, body)) = request(&mut client)? else { return Ok(()) };
    let write = ["POST ", "PATCH ", "PUT "].iter().any(|method| head.starts_with(method));
    if write && writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        refused.fetch_add(1, Ordering::Relaxed);
        let length = CONFLICT.len();
        return write!(
            client,
            "HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{CONFLICT}"
        );
    }
    let mut server = TcpStream::connect(upstream)?;
    let mut lines = head.lines();
    let mut passed = format!("{}\r\nConnection: close\r\n", lines.next().unwrap_or_default());
    for line in lines.filter(|line| !line.is_empty()) {
        // `kubectl proxy` serves its own name only.
        if !line.to_ascii_lowercase().starts_with("connection:") {
            passed.push_str(line);
            passed.push_str("\r\n");
        }
    }
    server.write_all(format!("{passed}\r\n").as_bytes())?;
    server.write_all(&body)?;
    io::copy(&mut server, &mut client)?;
    Ok(())
}

/// Head and body of a request; nothing when the client went away.
fn request(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end + 2]).into_owned();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0_usize);
            if read.len() >= end + 4 + length {
                return Ok(Some((head, read.split_off(end + 4))));
            }
        }
        let count = client.read(&mut chunk)?;
        if count == 0 || read.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        read.extend_from_slice(&chunk[..count]);
    }
}
