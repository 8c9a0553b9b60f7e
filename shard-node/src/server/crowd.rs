//! Callers that have not shaken hands yet, counted by where they come from, so that one of them cannot take
//! all the turns of a port.
//!
//! An IPv4 address counts as a whole, one of IPv6 by its first 64 bits: the rest is its owner's to choose.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use ledger::limits::HANDSHAKES_PER_SOURCE_MAX;
use parking_lot::Mutex;

/// The callers before one port.
#[derive(Clone, Default)]
pub struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A caller's place among them; it is given up when this is dropped.
pub struct Place {
    crowd: Crowd,
    source: Option<IpAddr>,
}

impl Crowd {
    /// A place for a caller, whose address may not be known; `None` when there are as many as there may be
    /// from where it comes.
    #[must_use]
    pub fn join(&self, caller: Option<SocketAddr>) -> Option<Place> {
        let source = caller.map(|addr| source_of(addr.ip()));
        if let Some(source) = source {
            let mut counts = self.0.lock();
            let count = counts.entry(source).or_insert(0);
            if *count >= HANDSHAKES_PER_SOURCE_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Place { crowd: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut counts = self.crowd.0.lock();
        if let Some(count) = counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&source);
            }
        }
    }
}

fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn join(crowd: &Crowd, ip: &str) -> Option<Place> {
        crowd.join(Some(SocketAddr::new(ip.parse().unwrap(), 1)))
    }

    #[test]
    fn each_source_has_its_places_and_gives_them_back() {
        let crowd = Crowd::default();
        let mut places: Vec<Place> =
            (0..HANDSHAKES_PER_SOURCE_MAX).map(|_| join(&crowd, "10.0.0.1").unwrap()).collect();
        assert!(join(&crowd, "10.0.0.1").is_none());
        assert!(join(&crowd, "::ffff:10.0.0.1").is_none(), "the same, written otherwise");
        assert!(join(&crowd, "10.0.0.2").is_some());
        assert!(crowd.join(None).is_some(), "nothing is held against who cannot be told");
        places.pop();
        assert!(join(&crowd, "10.0.0.1").is_some());
        drop(places);
        assert!(crowd.0.lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn addresses_that_one_owner_can_choose_from_are_one_source() {
        let crowd = Crowd::default();
        let places: Vec<Place> =
            (0..HANDSHAKES_PER_SOURCE_MAX).map(|at| join(&crowd, &format!("2001:db8::{at:x}")).unwrap()).collect();
        assert!(join(&crowd, "2001:db8::ffff:1").is_none());
        assert!(join(&crowd, "2001:db8:0:1::1").is_some());
        drop(places);
    }
}
