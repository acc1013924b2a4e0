//! One pod after another through the API server, by `kubectl proxy`: plain HTTP on loopback.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::control_plane::ControlPlane;
use tests::program::Program;

/// The scheduler answers in milliseconds; a machine under load takes seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Where pods are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// What the scheduler said of a pod.
pub enum Decision {
    /// It is bound to this node.
    Bound(String),
    /// It fits nowhere, in the scheduler's words.
    Refused(String),
}

/// A connection to the API server.
pub struct Dialogue {
    proxy: Child,
    // Held open, so that the proxy can write.
    _output: BufReader<ChildStdout>,
    stream: BufReader<TcpStream>,
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // It has ended already when this fails.
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

pub fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Dialogue {
    pub fn start(cluster: &ControlPlane) -> io::Result<Self> {
        let kubectl = Program::Kubectl.find().map_err(|missing| invalid(missing.to_string()))?;
        let mut proxy = Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .args(["proxy", "--port=0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = proxy.stdout.take().ok_or_else(|| invalid("kubectl proxy has no output"))?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or("").to_owned();
        let stream = BufReader::new(TcpStream::connect(&address)?);
        Ok(Self { proxy, _output: output, stream })
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
        write!(
            self.stream.get_mut(),
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid(format!("no status in `{line}`")))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().map_err(|_| invalid(header.clone()))?;
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                line.clear();
                self.stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid(&*line))?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            body = vec![0; length];
            self.stream.read_exact(&mut body)?;
        }
        Ok((status, serde_json::from_slice(&body)?))
    }

    /// Creates an object; returns it as the API server has it.
    pub fn create(&mut self, path: &str, manifest: &Value) -> io::Result<Value> {
        match self.call("POST", path, &manifest.to_string())? {
            (201, object) => Ok(object),
            (status, answer) => Err(invalid(format!("{status}: {answer}: {manifest}"))),
        }
    }

    /// Creates an object, unless one of its name is there.
    pub fn create_or_keep(&mut self, path: &str, manifest: &Value) -> io::Result<()> {
        match self.call("POST", path, &manifest.to_string())? {
            (201 | 409, _) => Ok(()),
            (status, answer) => Err(invalid(format!("{status}: {answer}: {manifest}"))),
        }
    }

    /// The object at `path`.
    pub fn get(&mut self, path: &str) -> io::Result<Value> {
        match self.call("GET", path, "")? {
            (200, object) => Ok(object),
            (status, answer) => Err(invalid(format!("{path}: {status}: {answer}"))),
        }
    }

    /// Waits for the scheduler's answer on the pod, and does `meanwhile` again and again.
    pub fn decision(
        &mut self,
        name: &str,
        mut meanwhile: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<Decision> {
        let end = Instant::now() + ANSWER_WITHIN;
        loop {
            let pod = self.get(&format!("{PODS}/{name}"))?;
            if let Some(node) = pod["spec"]["nodeName"].as_str() {
                return Ok(Decision::Bound(node.to_owned()));
            }
            let conditions = pod["status"]["conditions"].as_array();
            let refused = conditions.into_iter().flatten().find(|condition| {
                condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable"
            });
            if let Some(condition) = refused {
                let message = condition["message"].as_str().unwrap_or("").to_owned();
                return Ok(Decision::Refused(message));
            }
            if Instant::now() > end {
                return Err(invalid(format!("no answer for {name}: {pod}")));
            }
            meanwhile(self)?;
            std::thread::yield_now();
        }
    }

    /// Deletes the pod at once.
    pub fn delete(&mut self, name: &str) -> io::Result<()> {
        let path = format!("{PODS}/{name}?gracePeriodSeconds=0");
        let (status, answer) = self.call("DELETE", &path, "")?;
        if status == 200 { Ok(()) } else { Err(invalid(format!("{status}: {answer}"))) }
    }
}
