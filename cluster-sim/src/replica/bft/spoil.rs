//! Bugs of the Byzantine engine and its shell, put back around the production machine: what goes into it is altered
//! so that it does what a machine with the bug would do. The simulator has everybody's keys, so it can sign what the
//! bug would not have missed. Nothing here does anything unless a bug is put back.

use std::collections::VecDeque;

use consensus::bft::{Decided, Input, Message};
use consensus::port::Committed;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, SignedBallot};
use ledger::ids::NodeId;

use super::{Member, decided};
use crate::cluster::node_key;
use crate::replica::{Effect, Job, Replica};
use crate::sabotage::Sabotage;
use crate::seat;

/// Rounds that a proof may be of which is taken for one of another round.
const ROUNDS_TRIED: u32 = 16;

/// Votes of one kind for one value that a machine with a quorum that is off by one has counted.
#[derive(Default)]
pub(super) struct Count {
    of: Option<Ballot>,
    by: Vec<NodeId>,
}

impl Count {
    /// Counts a vote. Returns who else has to be counted for a quorum, when only one is missing.
    fn take(&mut self, member: &Member, own: NodeId, ballot: &Ballot) -> Option<NodeId> {
        let question = Ballot { node: NodeId(0), ..*ballot };
        if self.of != Some(question) {
            (self.of, self.by) = (Some(question), Vec::new());
        }
        if !self.by.contains(&ballot.node) {
            self.by.push(ballot.node);
        }
        let enough = self.by.len() + 1 == usize::from(member.committee.threshold);
        let mut others = member.committee.members.iter().map(|member| member.node);
        others.find(|node| enough && *node != own && !self.by.contains(node))
    }
}

impl Replica {
    /// What the machine is given in the place of an input.
    pub(super) fn spoil_input(&mut self, input: Input) -> Vec<Input> {
        match (self.sabotage, &input) {
            (Some(Sabotage::QuorumOffByOne), Input::Peer { from, message: Message::Ballot(signed) }) => {
                let extra = self.one_too_many(signed).map(Message::Ballot);
                let extra = extra.map(|message| Input::Peer { from: *from, message });
                std::iter::once(input).chain(extra).collect()
            }
            (Some(_), Input::Decided { from, decided }) if self.believes(decided) => {
                vec![Input::Decided { from: *from, decided: Box::new(self.proved(decided)) }]
            }
            _ => vec![input],
        }
    }

    /// A vote that nobody has cast, when it is the one that is missing.
    fn one_too_many(&mut self, signed: &SignedBallot) -> Option<SignedBallot> {
        let ballot = signed.ballot;
        if ballot.kind != BallotKind::Precommit || ballot.value.is_none() {
            return None;
        }
        let live = self.live.as_ref()?;
        let missing = self.beside.count.take(live.engine.member()?, self.node, &ballot)?;
        Some(Ballot { node: missing, ..ballot }.sign(node_key(missing)))
    }

    /// Whether a decided value is taken though its proof is none of it, by the bug that is put back: a proof that this
    /// replica has seen, of another entry; one of another round than it says; or one of a committee that was in force before.
    fn believes(&self, claimed: &Decided) -> bool {
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return false };
        if claimed.value.index != member.chain.index + 1 {
            return false;
        }
        match self.sabotage {
            Some(Sabotage::ForeignCertificate) => {
                let mut log = self.disk.durable().entries.iter().rev().filter_map(decided);
                log.any(|other| other.signatures == claimed.signatures && other.value.index != claimed.value.index)
            }
            Some(Sabotage::ForeignRound) => {
                let cluster = self.constants.cluster;
                let holds = |round: u32| {
                    let of_round = Decided { round, ..claimed.clone() };
                    of_round.verify(cluster, &member.committee).is_ok()
                };
                !holds(claimed.round) && (0..ROUNDS_TRIED).any(holds)
            }
            Some(Sabotage::ForeignCommittee) => {
                let cluster = self.constants.cluster;
                let known = seat::committees(&self.kv, self.group);
                claimed.verify(cluster, &member.committee).is_err()
                    && known.iter().any(|former| claimed.verify(cluster, former).is_ok())
            }
            _ => false,
        }
    }

    /// A decided value with the proof that the bug takes its proof for.
    fn proved(&self, claimed: &Decided) -> Decided {
        let claimed = claimed.clone();
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return claimed };
        let committee = &member.committee;
        let precommit = |node: NodeId| Ballot {
            version: BALLOT_VERSION,
            cluster: self.constants.cluster,
            group: committee.group,
            incarnation: committee.incarnation,
            committee: committee.hash(),
            index: claimed.value.index,
            round: claimed.round,
            kind: BallotKind::Precommit,
            value: Some(claimed.value.id()),
            node,
        };
        let signers: Vec<NodeId> = if self.sabotage == Some(Sabotage::ForeignCommittee) {
            let members = committee.members.iter().map(|member| member.node);
            members.take(usize::from(committee.threshold)).collect()
        } else {
            claimed.signatures.iter().map(|(node, _)| *node).collect()
        };
        let signed = signers.into_iter().map(|node| precommit(node).sign(node_key(node)));
        let signatures = signed.map(|signed| (signed.ballot.node, signed.signature)).collect();
        Decided { signatures, ..claimed }
    }

    /// A restarted replica executes the last entry of its log once more.
    pub(super) fn run_again(&mut self, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        if self.sabotage != Some(Sabotage::RunAgain) {
            return;
        }
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return };
        let (index, note) = (member.chain.index, member.chain.encode());
        let position = member.position(index);
        let Some(last) = self.disk.durable().entry(index).and_then(decided) else { return };
        let committed = Committed { position, payload: last.value.body.payload(), note: Some(note) };
        if let Err(why) = self.commit(committed, jobs, out) {
            out.push(Effect::Broken(why));
        }
    }
}
