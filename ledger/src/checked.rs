//! A bounded memory of certificates that were found to hold.
//!
//! The driver of the replica that leads judges a certificate before it is sequenced, and the machine judges it again when
//! it is executed; a proof of what was taken comes under the certificate that mail came under a moment ago. Both ask the
//! same question of the same bytes. Owns the answers that were yes, by the hash of everything that was asked: the
//! whole certificate, signatures included, and the committee. Never answers for another certificate of the same header,
//! and never remembers a no. [`crate::view::View::checked`] brings it to the machine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashSet;

use crate::certificate::{Certificate, CertificateError};
use crate::committee::Committee;
use crate::hash::{Hash32, tagged};
use crate::limits::CERTIFICATES_KNOWN_MAX;

/// Certificates that hold. Clones share one memory; what is lost with it is checked again.
#[derive(Clone, Debug, Default)]
pub struct Checked(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    known: HashSet<Hash32>,
    /// The same, the oldest first.
    order: VecDeque<Hash32>,
}

impl Checked {
    /// What a certificate is remembered by, when the committee with this hash judges it: all bytes that the verdict
    /// depends on.
    #[must_use]
    pub fn name(certificate: &Certificate, committee: &Hash32) -> Hash32 {
        let bytes = borsh::to_vec(certificate).expect("writing to memory does not fail");
        tagged(b"seamark/checked/v1", &[&committee.0, &bytes])
    }

    /// As [`Certificate::verify`], whose verdict depends on nothing but the certificate and the committee: so it is
    /// given once for each two of them that hold.
    ///
    /// # Errors
    /// As [`Certificate::verify`].
    pub fn verify(&self, certificate: &Certificate, committee: &Committee) -> Result<(), CertificateError> {
        let name = Self::name(certificate, &committee.hash());
        if self.knows(&name) {
            return Ok(());
        }
        certificate.verify(committee)?;
        self.remember(name);
        Ok(())
    }

    /// Whether the certificate of this name was found to hold, and is remembered.
    #[must_use]
    pub fn knows(&self, name: &Hash32) -> bool {
        self.names().known.contains(name)
    }

    /// Remembers a certificate that holds, in the place of the oldest where there is no room. Returns whether that is
    /// news.
    pub fn remember(&self, name: Hash32) -> bool {
        let mut names = self.names();
        if !names.known.insert(name) {
            return false;
        }
        names.order.push_back(name);
        if names.order.len() > CERTIFICATES_KNOWN_MAX
            && let Some(oldest) = names.order.pop_front()
        {
            names.known.remove(&oldest);
        }
        true
    }

    /// A thread that panicked with the lock has left whole names behind, or one that is forgotten late.
    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    #[test]
    fn the_oldest_makes_room() {
        let checked = Checked::default();
        let name = |number: usize| sha256(&number.to_be_bytes());
        for number in 0..=CERTIFICATES_KNOWN_MAX {
            assert!(checked.remember(name(number)));
        }
        assert!(!checked.knows(&name(0)), "one too many");
        assert!(checked.knows(&name(1)) && checked.knows(&name(CERTIFICATES_KNOWN_MAX)));
        assert!(!checked.clone().remember(name(1)), "clones share it");
        assert!(checked.remember(name(0)) && !checked.knows(&name(1)));
    }
}
