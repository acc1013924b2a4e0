//! Loopback TCP ports that are free, and stay ours while their server is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, process};

/// Ports are taken from 20000 to 31999: below Linux's ephemeral ports (32768 to 60999 unless
/// `net.ipv4.ip_local_port_range` says otherwise), so that no outgoing connection takes the port
/// of a server that a test has killed and means to start again.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port on 127.0.0.1 that nobody listened on when it was taken, reserved until dropped.
///
/// The reservation is a bound UDP socket of the same number: the kernel gives it to one process of
/// the machine, releases it however that process ends, and it leaves the TCP port to the server.
#[derive(Debug)]
pub struct LoopbackPort {
    number: u16,
    _reservation: UdpSocket,
}

impl LoopbackPort {
    /// Reserves a port.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrNotAvailable`] when all 12,000 ports of the range are in use.
    pub fn reserve() -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes begin at places far apart, so that they rarely ask for the same port.
        let offset = process::id().wrapping_mul(997);
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let within = offset.wrapping_add(step) % u32::from(COUNT);
            let number = FIRST + u16::try_from(within).expect("a remainder below COUNT");
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        let range = format!("no free TCP port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT - 1);
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, range))
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:number`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_while_reserved() {
        let ports: Vec<_> = (0..200).map(|_| LoopbackPort::reserve().expect("a port")).collect();
        let numbers: BTreeSet<_> = ports.iter().map(LoopbackPort::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_listener_can_use_the_reserved_port() {
        let port = LoopbackPort::reserve().expect("a port");
        let listener = TcpListener::bind(port.address()).expect("the reservation leaves TCP free");
        assert_eq!(listener.local_addr().expect("bound"), port.address());
    }
}
