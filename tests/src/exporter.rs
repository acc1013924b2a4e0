//! A stand-in for DCGM exporters: one address that tells of as many GPUs as a test wants, in the
//! exporter's own text.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A GPU as an exporter tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpu {
    /// Its node.
    pub node: String,
    /// Its index on the node.
    pub index: u32,
    /// Namespace and name of the pod that holds it.
    pub pod: Option<(String, String)>,
    /// `DCGM_FI_DEV_GPU_UTIL`, in percent.
    pub utilization: u32,
    /// `DCGM_FI_DEV_FB_USED`, in MiB, of 40,000.
    pub fb_used_mib: u32,
}

/// Serves `/metrics` on loopback until the process ends.
#[derive(Debug, Clone)]
pub struct Exporter {
    address: SocketAddr,
    gpus: Arc<Mutex<Vec<Gpu>>>,
}

impl Exporter {
    /// Starts to serve, with no GPU yet.
    ///
    /// # Errors
    /// No port could be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let this = Self { address: listener.local_addr()?, gpus: Arc::default() };
        let gpus = Arc::clone(&this.gpus);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let text = text(&gpus.lock().expect("no holder panics"));
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{text}", text.len());
            }
        });
        Ok(this)
    }

    /// Tells of `gpus` from now on, and of no others.
    pub fn set(&self, gpus: Vec<Gpu>) {
        *self.gpus.lock().expect("no holder panics") = gpus;
    }

    /// Tells of `gpu` as well.
    pub fn add(&self, gpu: Gpu) {
        self.gpus.lock().expect("no holder panics").push(gpu);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

fn text(gpus: &[Gpu]) -> String {
    let mut text = String::new();
    for gpu in gpus {
        let Gpu { node, index, pod, utilization, fb_used_mib } = gpu;
        let holder = pod.as_ref().map_or_else(String::new, |(namespace, name)| {
            format!(",namespace=\"{namespace}\",pod=\"{name}\",container=\"main\"")
        });
        let labels = format!(
            "gpu=\"{index}\",UUID=\"GPU-{node}-{index}\",modelName=\"NVIDIA A100-SXM4-40GB\",\
             Hostname=\"{node}\"{holder}"
        );
        let _ = writeln!(text, "DCGM_FI_DEV_GPU_UTIL{{{labels}}} {utilization}");
        let _ = writeln!(text, "DCGM_FI_DEV_FB_USED{{{labels}}} {fb_used_mib}");
        let _ = writeln!(text, "DCGM_FI_DEV_FB_FREE{{{labels}}} {}", 40_000 - fb_used_mib);
    }
    text
}
