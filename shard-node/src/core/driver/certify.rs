//! Gathers the signatures of replicas over headers into certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cross_shard::stream::StreamLeaf;
use ledger::certificate::{Attestation, Certificate};
use ledger::committee::Committee;
use ledger::crypto::{self, SecretKey, Signature};
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{Height, NodeId, Tick};

use crate::core::driver::system::{CertifiedBlock, RecentBlock};
use crate::core::driver::{CommittedBlock, DriverConfig};

/// Heights around the last block for which signatures are kept.
pub(super) const WINDOW: u64 = 256;
/// Blocks without a certificate are announced again this often.
pub(super) const ANNOUNCE_AGAIN_MS: u64 = 250;
/// Of so many blocks at a time, the oldest first, and of the last one.
const ANNOUNCED_MAX: usize = 8;

/// A certified header with the streams it commits to.
pub(super) struct Certified {
    pub(super) certificate: Certificate,
    pub(super) outbox: Vec<StreamLeaf>,
    pub(super) inbox: Vec<StreamLeaf>,
}

struct Block {
    header: Arc<Header>,
    hash: Hash32,
    outbox: Vec<StreamLeaf>,
    inbox: Vec<StreamLeaf>,
}

#[derive(Default)]
struct Pending {
    block: Option<Block>,
    signatures: BTreeMap<NodeId, (Hash32, Signature)>,
    own: Option<Attestation>,
    certificate: Option<Certificate>,
}

#[derive(Default)]
pub(super) struct Certifier {
    heights: BTreeMap<Height, Pending>,
    last: Height,
    latest: Option<Certified>,
    announced: Option<Tick>,
    /// What had no certificate when blocks were announced last.
    waiting: BTreeSet<Height>,
}

/// What an attestation led to.
pub(super) enum Gathered {
    Nothing,
    Divergence(NodeId, Height),
    Certificate(Box<Certificate>),
}

/// What a whole certificate led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adopted {
    /// Known, of a block that we do not have, or not valid.
    Nothing,
    /// Our block is certified now.
    News,
    /// A majority certified another block than ours: our state is wrong.
    Contradiction,
}

impl Certifier {
    pub(super) fn latest(&self) -> Option<&Certified> {
        self.latest.as_ref()
    }

    /// The last block.
    pub(super) fn last(&self) -> Height {
        self.last
    }

    /// Starts over from what is in state: the last block, those before it that have no certificate
    /// here, and the highest certificate. Signatures that are here already still count.
    pub(super) fn reset(&mut self, last: Height, recent: Vec<RecentBlock>, certified: Option<CertifiedBlock>) {
        let listed: BTreeSet<Height> = recent.iter().map(|block| block.header.height).collect();
        self.heights.retain(|height, _| *height > last || listed.contains(height));
        self.last = last;
        for RecentBlock { header, hash, outbox, inbox } in recent {
            let pending = self.heights.entry(header.height).or_default();
            if pending.block.as_ref().is_some_and(|known| known.hash != hash) {
                (pending.own, pending.certificate) = (None, None);
            }
            pending.block = Some(Block { header, hash, outbox, inbox });
        }
        if let Some(CertifiedBlock { certificate, outbox, inbox }) = certified {
            let height = certificate.header.height;
            if let Some(pending) = self.heights.get_mut(&height) {
                pending.certificate = Some(certificate.clone());
            }
            if self.latest.as_ref().is_none_or(|latest| latest.certificate.header.height < height) {
                self.latest = Some(Certified { certificate, outbox, inbox });
            }
        }
    }

    pub(super) fn committed(&mut self, block: CommittedBlock) {
        let height = block.header.height;
        self.last = self.last.max(height);
        let pending = self.heights.entry(height).or_default();
        pending.block =
            Some(Block { header: block.header, hash: block.header_hash, outbox: block.outbox, inbox: block.inbox });
        let oldest = Height(self.last.0.saturating_sub(WINDOW));
        self.heights = self.heights.split_off(&oldest);
    }

    /// Signs a block of ours with a key, which is that by which its committee names this replica.
    pub(super) fn attest(&mut self, height: Height, config: &DriverConfig, key: &SecretKey) -> Option<Attestation> {
        let pending = self.heights.get_mut(&height)?;
        let hash = pending.block.as_ref()?.hash;
        let attestation = Attestation {
            group: config.group,
            height,
            header_hash: hash,
            node: config.node,
            signature: key.sign(&hash),
        };
        pending.own = Some(attestation.clone());
        Some(attestation)
    }

    /// Takes a signature. It is verified before it counts, against our own header.
    pub(super) fn gather(&mut self, attestation: Attestation, committee: &Committee) -> Gathered {
        let height = attestation.height;
        if committee.index_of(attestation.node).is_none()
            || height.0 > self.last.0 + WINDOW
            || height.0 + WINDOW < self.last.0
        {
            return Gathered::Nothing;
        }
        let pending = self.heights.entry(height).or_default();
        if pending.certificate.is_some() {
            // Late agreement adds nothing; late disagreement is evidence all the same.
            let Attestation { node, header_hash, signature, .. } = &attestation;
            let differs = pending.block.as_ref().is_some_and(|block| block.hash != *header_hash);
            return if differs && signed(committee, *node, header_hash, signature) {
                Gathered::Divergence(*node, height)
            } else {
                Gathered::Nothing
            };
        }
        pending.signatures.insert(attestation.node, (attestation.header_hash, attestation.signature));
        self.complete(height, committee)
    }

    fn complete(&mut self, height: Height, committee: &Committee) -> Gathered {
        let Some(pending) = self.heights.get_mut(&height) else { return Gathered::Nothing };
        let (Some(block), Some(_)) = (&pending.block, &pending.own) else { return Gathered::Nothing };
        let agreeing = pending.signatures.values().filter(|(hash, _)| *hash == block.hash).count();
        if agreeing < usize::from(committee.threshold) {
            // Also those that came before our own block did.
            let mut others = pending.signatures.iter().filter(|(_, (hash, _))| *hash != block.hash);
            let other = others.find(|(node, (hash, signature))| signed(committee, **node, hash, signature));
            return other.map_or(Gathered::Nothing, |(node, _)| Gathered::Divergence(*node, height));
        }
        let hash = block.hash;
        let own = pending.own.as_ref().map(|attestation| attestation.node);
        pending.signatures.retain(|node, (claimed, signature)| {
            *claimed == hash && (own == Some(*node) || signed(committee, *node, claimed, signature))
        });
        if pending.signatures.len() < usize::from(committee.threshold) {
            return Gathered::Nothing;
        }
        let signatures = pending.signatures.iter().map(|(node, (_, signature))| (*node, *signature)).collect();
        let certificate = Certificate { version: 1, header: (*block.header).clone(), signatures };
        pending.certificate = Some(certificate.clone());
        self.promote(height, &certificate);
        Gathered::Certificate(Box::new(certificate))
    }

    fn promote(&mut self, height: Height, certificate: &Certificate) {
        let newer = self.latest.as_ref().is_none_or(|latest| latest.certificate.header.height < height);
        let Some(pending) = self.heights.get_mut(&height) else { return };
        if let (true, Some(block)) = (newer, &mut pending.block) {
            self.latest = Some(Certified {
                certificate: certificate.clone(),
                outbox: std::mem::take(&mut block.outbox),
                inbox: std::mem::take(&mut block.inbox),
            });
        }
    }

    /// Takes a whole certificate of a block that we have.
    pub(super) fn adopt(&mut self, certificate: &Certificate, committee: &Committee) -> Adopted {
        let height = certificate.header.height;
        let Some(pending) = self.heights.get_mut(&height) else { return Adopted::Nothing };
        let Some(block) = &pending.block else { return Adopted::Nothing };
        let fits = block.hash == certificate.header.hash();
        if (pending.certificate.is_some() && fits) || certificate.verify(committee).is_err() {
            return Adopted::Nothing;
        }
        if !fits {
            return Adopted::Contradiction;
        }
        pending.certificate = Some(certificate.clone());
        self.promote(height, certificate);
        Adopted::News
    }

    /// Whether a block is at hand, so that a certificate of it can be judged.
    pub(super) fn holds(&self, height: Height) -> bool {
        self.heights.get(&height).is_some_and(|pending| pending.block.is_some())
    }

    /// The certificate of a height that is still at hand.
    pub(super) fn certificate(&self, height: Height) -> Option<&Certificate> {
        self.heights.get(&height)?.certificate.as_ref()
    }

    /// A block that has just been certified, with the streams it commits to.
    pub(super) fn certified_at(&self, height: Height) -> Option<Certified> {
        let latest = self.latest.as_ref().filter(|latest| latest.certificate.header.height == height);
        let pending = self.heights.get(&height);
        let (outbox, inbox) = match (latest, pending.and_then(|pending| pending.block.as_ref())) {
            (Some(latest), _) => (&latest.outbox, &latest.inbox),
            (None, Some(block)) => (&block.outbox, &block.inbox),
            (None, None) => return None,
        };
        let certificate = self.certificate(height)?.clone();
        Some(Certified { certificate, outbox: outbox.clone(), inbox: inbox.clone() })
    }

    /// The header of a block that is at hand, and its hash.
    pub(super) fn header(&self, height: Height) -> Option<(&Header, Hash32)> {
        let block = self.heights.get(&height)?.block.as_ref()?;
        Some((&block.header, block.hash))
    }

    /// Our signature of a block that is still at hand.
    pub(super) fn own(&self, height: Height) -> Option<&Attestation> {
        self.heights.get(&height)?.own.as_ref()
    }

    /// Our signatures of blocks that have waited for their certificate since the last time: signatures
    /// get lost with the links, and a later certificate does not give a receipt of an earlier block
    /// its proof. The oldest come first, and the last block always.
    pub(super) fn uncertified(&mut self, now: Tick) -> Vec<Attestation> {
        if self.announced.is_some_and(|at| now.0 < at.0 + ANNOUNCE_AGAIN_MS) {
            return Vec::new();
        }
        self.announced = Some(now);
        let open = self.heights.iter().filter(|(_, pending)| pending.certificate.is_none());
        let open: BTreeMap<Height, Attestation> =
            open.filter_map(|(height, pending)| Some((*height, pending.own.clone()?))).collect();
        let before = std::mem::replace(&mut self.waiting, open.keys().copied().collect());
        let mut still = open.into_iter().filter(|(height, _)| before.contains(height));
        let mut announced: Vec<Attestation> = still.by_ref().take(ANNOUNCED_MAX).map(|(_, own)| own).collect();
        announced.extend(still.next_back().map(|(_, own)| own));
        announced
    }
}

fn signed(committee: &Committee, node: NodeId, hash: &Hash32, signature: &Signature) -> bool {
    committee.index_of(node).is_some_and(|index| crypto::verify(&committee.members[index].key, hash, signature).is_ok())
}

#[cfg(test)]
#[path = "certify_tests.rs"]
mod tests;
