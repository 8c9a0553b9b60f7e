//! Gathers the signatures of replicas over headers into certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use cross_shard::stream::StreamLeaf;
use ledger::certificate::{Attestation, Certificate};
use ledger::committee::Committee;
use ledger::crypto::{self, Signature};
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{Height, NodeId, Tick};

use crate::core::driver::{CommittedBlock, DriverConfig};

/// Heights around the last block for which signatures are kept.
const WINDOW: u64 = 256;
/// An uncertified last block is announced again after this long.
const ANNOUNCE_AGAIN_MS: u64 = 250;

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
    done: bool,
}

#[derive(Default)]
pub(super) struct Certifier {
    heights: BTreeMap<Height, Pending>,
    last: Height,
    latest: Option<Certified>,
    announced: Option<Tick>,
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

    /// Starts over from the last block in state.
    pub(super) fn reset(&mut self, header: Arc<Header>, hash: Hash32, outbox: Vec<StreamLeaf>, inbox: Vec<StreamLeaf>) {
        let height = header.height;
        if self.last == height && self.heights.get(&height).is_some_and(|pending| pending.block.is_some()) {
            return;
        }
        self.heights.retain(|at, _| *at > height);
        self.last = height;
        self.heights.entry(height).or_default().block = Some(Block { header, hash, outbox, inbox });
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

    /// Signs a block of ours.
    pub(super) fn attest(&mut self, height: Height, config: &DriverConfig) -> Option<Attestation> {
        let pending = self.heights.get_mut(&height)?;
        let hash = pending.block.as_ref()?.hash;
        let attestation = Attestation {
            group: config.group,
            height,
            header_hash: hash,
            node: config.node,
            signature: config.key.sign(&hash),
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
        if pending.done {
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
        pending.done = true;
        let signatures = pending.signatures.iter().map(|(node, (_, signature))| (*node, *signature)).collect();
        let certificate = Certificate { version: 1, header: (*block.header).clone(), signatures };
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
        if (pending.done && fits) || certificate.verify(committee).is_err() {
            return Adopted::Nothing;
        }
        if !fits {
            return Adopted::Contradiction;
        }
        pending.done = true;
        self.promote(height, certificate);
        Adopted::News
    }

    /// Our signature of the last block, if it has been waiting for its certificate.
    pub(super) fn uncertified(&mut self, now: Tick) -> Option<Attestation> {
        let pending = self.heights.get(&self.last)?;
        if pending.done {
            self.announced = None;
            return None;
        }
        let own = pending.own.clone()?;
        match self.announced {
            Some(at) if now.0 < at.0 + ANNOUNCE_AGAIN_MS => None,
            Some(_) => {
                self.announced = Some(now);
                Some(own)
            }
            None => {
                self.announced = Some(now);
                None
            }
        }
    }
}

fn signed(committee: &Committee, node: NodeId, hash: &Hash32, signature: &Signature) -> bool {
    committee.index_of(node).is_some_and(|index| crypto::verify(&committee.members[index].key, hash, signature).is_ok())
}

#[cfg(test)]
#[path = "certify_tests.rs"]
mod tests;
