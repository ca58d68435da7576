//! Avahi: the name of this device on the network, and who else has it.

use crate::{AvahiServerProxy, Bus, BusError, Tried};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

/// DNS numbers (RFC 1035, RFC 3596).
const IN: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;

/// What Avahi found: interface, protocol, name, class, type, content, flags.
type RecordItem = (i32, i32, String, u16, u16, Vec<u8>, u32);

/// The content of an A or AAAA record.
fn address(content: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)).ok()
}

/// Whether an address is this device's own: nobody can listen on another one's. A link-local one is asked for on its
/// interface.
fn is_ours(address: IpAddr, interface: u32) -> bool {
    let socket = match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, interface).into(),
    };
    UdpSocket::bind(socket).is_ok()
}

impl Bus {
    /// Avahi, if it runs. It takes the host name by itself when it starts.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn avahi(&self) -> Result<Option<AvahiServerProxy<'_>>, BusError> {
        if !self.has_owner("org.freedesktop.Avahi").await? {
            return Ok(None);
        }
        AvahiServerProxy::new(&self.0).await.map(Some).tried("cannot reach avahi")
    }

    /// Who, beside this device itself, answers for `<name>.local` on the network: an address, or nobody.
    ///
    /// # Errors
    /// When Avahi does not answer.
    pub async fn who_answers_for(&self, name: &str) -> Result<Option<IpAddr>, BusError> {
        use futures_util::StreamExt;
        const WHAT: &str = "cannot ask avahi for a name";
        // Avahi says itself when nothing more will come.
        const ANSWERS: Duration = Duration::from_secs(25);
        let Some(avahi) = self.avahi().await? else { return Ok(None) };
        // Subscribed before the call: what is known already comes at once.
        let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal);
        let rule = rule.interface("org.freedesktop.Avahi.RecordBrowser").build().tried(WHAT)?;
        let mut signals = zbus::MessageStream::for_match_rule(rule, &self.0, None).await.tried(WHAT)?;
        let kinds = [A, AAAA];
        for kind in kinds {
            avahi.record_browser_new(-1, -1, &format!("{name}.local"), IN, kind, 0).await.tried(WHAT)?;
        }
        let mut open = kinds.len();
        // Not the first answer: this device may have had the name itself a moment ago.
        while open > 0 {
            let next = tokio::time::timeout(ANSWERS, signals.next()).await;
            let Ok(Some(Ok(message))) = next else { return Ok(None) };
            match message.header().member().map(zbus::names::MemberName::as_str) {
                Some("ItemNew") => {
                    let (interface, .., content, _): RecordItem = message.body().deserialize().tried(WHAT)?;
                    let interface = u32::try_from(interface).unwrap_or(0);
                    if let Some(found) = address(&content).filter(|found| !is_ours(*found, interface)) {
                        return Ok(Some(found));
                    }
                }
                Some("AllForNow" | "Failure") => open -= 1,
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_record_has_four_bytes_or_sixteen() {
        assert_eq!(address(&[192, 0, 2, 7]), "192.0.2.7".parse().ok());
        assert_eq!(address(&[0; 16]), "::".parse().ok());
        assert_eq!(address(&[]), None);
    }

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_ours("127.0.0.1".parse().unwrap(), 1));
        // For documentation (RFC 5737, RFC 3849); nobody has them.
        assert!(!is_ours("192.0.2.7".parse().unwrap(), 1));
        assert!(!is_ours("2001:db8::7".parse().unwrap(), 1));
    }
}
