//! A DCGM exporter for each measured node: the simulator's text over HTTP, in real time.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gpu_autoscaler_model::{NodeName, Timestamp};
use gpu_autoscaler_sim::World;

/// Time that a client has to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// Longest line of a request that is read.
const LINE_MAX: u64 = 8 << 10;

/// Maps real time to that of the world: one second is one second.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When the world began.
    pub began: Instant,
    /// Its first instant.
    pub start: Timestamp,
}

impl Clock {
    /// Lets the world go on until the present.
    pub fn advance(&self, world: &mut World) {
        world.advance(self.start.after(self.began.elapsed()));
        // Nobody here is told by a watch.
        drop(world.observe());
    }
}

/// The servers; they run as long as the process.
#[derive(Debug)]
pub struct Exporters {
    servers: Vec<(NodeName, SocketAddr)>,
}

impl Exporters {
    /// Starts one for each node that has an exporter. `dies` names one that answers no more after
    /// a time.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(
        world: &Arc<Mutex<World>>,
        clock: Clock,
        dies: Option<(NodeName, Duration)>,
    ) -> io::Result<Self> {
        let names: Vec<NodeName> = {
            let world = world.lock().map_err(|_| io::Error::other("the world is poisoned"))?;
            let measured = world.exporters().filter(|(_, exporter)| exporter.is_some());
            measured.map(|(name, _)| name.clone()).collect()
        };
        let mut servers = Vec::new();
        for node in names {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            servers.push((node.clone(), listener.local_addr()?));
            let dies = dies.clone().filter(|(dying, _)| *dying == node).map(|(_, after)| after);
            let exporter = Exporter { node, world: Arc::clone(world), clock, dies };
            thread::spawn(move || exporter.serve(&listener));
        }
        Ok(Self { servers })
    }

    /// Where each listens.
    pub fn addresses(&self) -> impl Iterator<Item = (&NodeName, SocketAddr)> {
        self.servers.iter().map(|(node, address)| (node, *address))
    }
}

struct Exporter {
    node: NodeName,
    world: Arc<Mutex<World>>,
    clock: Clock,
    dies: Option<Duration>,
}

impl Exporter {
    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            // A client that goes away takes only its own answer with it.
            let answered = stream.and_then(|stream| self.answer(stream));
            if let Err(error) = answered {
                eprintln!("exporter of {}: {error}", self.node);
            }
        }
    }

    fn answer(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_WITHIN))?;
        let mut request = BufReader::new(io::Read::take(stream.try_clone()?, LINE_MAX * 64));
        let mut first = String::new();
        request.read_line(&mut first)?;
        let mut line = String::new();
        while request.read_line(&mut line)? > 2 {
            line.clear();
        }
        let dead = self.dies.is_some_and(|after| self.clock.began.elapsed() >= after);
        if dead {
            // The connection is closed without an answer.
            return Ok(());
        }
        let text = {
            let mut world =
                self.world.lock().map_err(|_| io::Error::other("the world is poisoned"))?;
            self.clock.advance(&mut world);
            world.exposition(&self.node)
        };
        let found = text.filter(|_| first.starts_with("GET /metrics "));
        let (code, body) = match &found {
            Some(text) => ("200 OK", text.as_str()),
            None => ("404 Not Found", ""),
        };
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {code}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}
