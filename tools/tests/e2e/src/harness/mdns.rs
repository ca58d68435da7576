//! Asks for a name by multicast DNS (RFC 6762) on the wire itself, or says to have it.
//!
//! QEMU's user network carries no multicast, so the machine has a second card whose frames come as UDP datagrams.

use crate::harness::vm::PATIENCE;
use anyhow::{Result, bail};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;

/// The other end of the machine's second network card.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UdpSocket,
    machine: u16,
}

impl Wire {
    /// Takes two free ports: ours, and one for QEMU.
    pub(crate) fn new() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let machine = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { socket, machine })
    }

    /// QEMU's arguments for the card.
    pub(crate) fn arguments(&self, mac: &str) -> Result<Vec<String>> {
        let ours = self.socket.local_addr()?.port();
        Ok(vec![
            "-netdev".to_owned(),
            format!("socket,id=lan,udp=127.0.0.1:{ours},localaddr=127.0.0.1:{}", self.machine),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=lan,mac={mac},romfile="),
        ])
    }

    /// Says that another device has `name` at `address`, for so many seconds; 0 is a goodbye.
    pub(crate) fn claim(&self, name: &str, address: Ipv4Addr, seconds: u32) -> Result<()> {
        self.socket.send_to(&frame(&answer(name, address, seconds)), ("127.0.0.1", self.machine))?;
        Ok(())
    }

    /// Asks who has `name` until an answer with `address` comes.
    pub(crate) fn resolve(&self, name: &str, address: Ipv4Addr, limit: Duration) -> Result<()> {
        let query = frame(&question(name));
        let (start, limit) = (Instant::now(), limit * PATIENCE);
        let mut buffer = [0; 2048];
        let mut frames = 0;
        let mut asked = None::<Instant>;
        // What was said before is no answer.
        self.socket.set_nonblocking(true)?;
        while self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false)?;
        while start.elapsed() < limit {
            if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(2)) {
                self.socket.send_to(&query, ("127.0.0.1", self.machine))?;
                asked = Some(Instant::now());
            }
            let Ok(got) = self.socket.recv(&mut buffer) else { continue };
            frames += 1;
            if answers(buffer.get(..got).unwrap_or_default(), name, address) {
                return Ok(());
            }
        }
        bail!("nobody said that {name} is {address}; {frames} frames came in {} s", limit.as_secs())
    }
}

/// `a.local` in DNS form: length and label, ending with 0.
fn encode(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap_or(63));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// A DNS message that asks for the address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(encode(name));
    message.extend([0, 1, 0, 1]);
    message
}

/// A DNS message that gives a name an address which no other device has.
fn answer(name: &str, address: Ipv4Addr, seconds: u32) -> Vec<u8> {
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    message.extend(encode(name));
    message.extend([0, 1, 0x80, 1]);
    message.extend(seconds.to_be_bytes());
    message.extend([0, 4]);
    message.extend(address.octets());
    message
}

/// Ethernet, IPv4 and UDP around a multicast DNS message.
fn frame(message: &[u8]) -> Vec<u8> {
    let source = Ipv4Addr::new(10, 99, 0, 1);
    let udp_length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0];
    ip.extend((udp_length + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 255, 17, 0, 0]);
    ip.extend(source.octets());
    ip.extend(MULTICAST.octets());
    let sum = checksum(&ip).to_be_bytes();
    ip.splice(10..12, sum);
    let mut out = vec![0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00];
    out.extend(ip);
    out.extend(PORT.to_be_bytes());
    out.extend(PORT.to_be_bytes());
    out.extend(udp_length.to_be_bytes());
    // A UDP checksum of zero means: none (RFC 768).
    out.extend([0, 0]);
    out.extend(message);
    out
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// True when a frame is a DNS response that has the name and an A record with the address.
fn answers(frame: &[u8], name: &str, address: Ipv4Addr) -> bool {
    let Some(payload) = frame.get(42..) else { return false };
    let is_response = payload.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let name = encode(&name.to_lowercase());
    let lower: Vec<u8> = payload.to_ascii_lowercase();
    let mut record = vec![0, 4];
    record.extend(address.octets());
    is_response && lower.windows(name.len()).any(|w| w == name) && payload.windows(record.len()).any(|w| w == record)
}

/// The MAC address of the card as QEMU and NetworkManager write it.
pub(crate) const MAC: &str = "52:54:00:99:00:02";

/// A NetworkManager profile that gives the card its address.
pub(crate) fn profile(address: Ipv4Addr) -> String {
    format!(
        "[connection]\nid=wire\ntype=ethernet\n\n[ethernet]\nmac-address={MAC}\n\n[ipv4]\nmethod=manual\n\
         address1={address}/24\n\n[ipv6]\nmethod=disabled\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_a_question() {
        let address = Ipv4Addr::new(10, 99, 0, 2);
        assert!(!answers(&frame(&question("a.local")), "a.local", address));
        let said = frame(&answer("a.local", address, 120));
        assert!(answers(&said, "A.local", address));
        assert!(!answers(&said, "b.local", address));
        assert!(!answers(&said, "a.local", Ipv4Addr::new(10, 99, 0, 3)));
    }

    #[test]
    fn the_header_sums_to_nothing() {
        let frame = frame(&question("a.local"));
        assert_eq!(checksum(&frame[14..34]), 0);
    }
}
