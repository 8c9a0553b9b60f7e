//! Members of Byzantine groups that lie, each in its own way.
//!
//! A liar wraps the honest machine of its replica: what the machine says passes it on the way out, and it says more,
//! or something else, with the node's own key and no other. What it hears it may use later. Everything else about
//! its node is honest: its state, its disk, its other groups. So the machine inside comes to what its group decides.
//!
//! [`Lie`] names the kinds; `proposals`, `overdraft`, `votes`, `forger`, `mail`, `replayer` and `twin` carry them out, and
//! [`ruses`] has what was done of those that do several things. Which replicas lie is drawn from the seed before a run: no more of a group than it
//! tolerates, unless a run is about that.

mod forger;
mod mail;
mod overdraft;
mod proposals;
mod replayer;
pub mod ruses;
mod twin;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use consensus::bft::{Begin, Chain, Decided, Message, Settings};
use consensus::local::LocalEntry;
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, SignedBallot};
use ledger::committee::{Committee, Engine};
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, GroupKind, NodeId, Tick, TimeMs};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::mem::MemKv;

use crate::cluster::node_key;
use crate::schedule::Fault;
use crate::wire::Wire;
use crate::wire::bft::BftWire;

pub use ruses::{Deeds, Ruse};
use twin::Twin;

macro_rules! lies {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A way to lie.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Lie { $($(#[$doc])* $name,)* }

        impl Lie {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the command line and in logs.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

lies! {
    /// Proposes one value to some and another to others.
    Equivocator = "equivocator";
    /// Votes one way to some and another way to others.
    DoubleVoter = "double-voter";
    /// Says nothing in the group.
    Silent = "silent";
    /// Says everything late.
    Slow = "slow";
    /// Proposes what no honest member would: bad signatures, a wrong parent, time, place or proposer, garbage, too much, what
    /// nobody has.
    BadProposer = "bad-proposer";
    /// Makes up ballots of others, quorums, decided values, certificates and mail.
    Forger = "forger";
    /// Says again what was said long ago, by anybody, also as if under an incarnation that has ended.
    Replayer = "replayer";
    /// Runs twice with one key.
    Twins = "twins";
    /// Loses its records whenever the power goes, and is honest otherwise.
    Forgetful = "forgetful";
    /// Equivocates in proposals and votes together with others of its kind, so that each half of the honest members
    /// sees a group of its own. Only where there are too many liars.
    Conspirator = "conspirator";
    /// Says of its turn that it has only just begun, to lead for longer.
    Lingerer = "lingerer";
}

impl Lie {
    /// Whether whoever lies so signs ballots that exclude each other. Of the others nothing may ever be proved.
    #[must_use]
    pub const fn signs_twice(self) -> bool {
        !matches!(self, Self::Silent | Self::Slow | Self::Forgetful)
    }

    /// Whether a seed may draw it by itself. What came later is drawn only where it changes no earlier run.
    const fn usual(self, new: bool) -> bool {
        match self {
            Self::Conspirator => false,
            Self::Lingerer => new,
            _ => true,
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|lie| lie.name() == text);
        let names = || Self::ALL.iter().map(|lie| lie.name()).collect::<Vec<_>>().join(", ");
        found.copied().ok_or_else(|| format!("there is no way to lie '{text}'; use one of: {}", names()))
    }
}

/// The stream of a liar's seed from which it draws what it does of late.
const MORE_STREAM: u64 = 19;
/// A forger makes mail up in one of so many ticks.
const MAIL_EVERY_TICKS: u32 = 50;

/// What a liar sees of its replica.
pub(crate) struct Scene<'a> {
    pub(crate) now: Tick,
    /// Of the last block.
    pub(crate) time: TimeMs,
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) committee: &'a Committee,
    /// The stint that it runs in.
    pub(crate) stint: u64,
    pub(crate) chain: &'a Chain,
    /// The round that its machine is in.
    pub(crate) round: u32,
    pub(crate) log: &'a [LocalEntry],
    /// The state behind the last block.
    pub(crate) kv: &'a MemKv,
    /// Whether an honest member here would vote for a batch, and whether its time does not matter.
    pub(crate) fit: &'a dyn Fn(&[u8], bool) -> bool,
}

impl Scene<'_> {
    fn others(&self) -> Vec<NodeId> {
        self.committee.members.iter().map(|member| member.node).filter(|node| *node != self.node).collect()
    }

    /// Which half of the committee a member is in.
    fn odd(&self, node: NodeId) -> bool {
        self.committee.index_of(node).is_some_and(|seat| seat % 2 == 1)
    }

    /// A ballot of this node.
    fn ballot(&self, index: u64, round: u32, kind: BallotKind, value: Option<Hash32>) -> Ballot {
        Ballot {
            version: BALLOT_VERSION,
            cluster: self.cluster,
            group: self.committee.group,
            incarnation: self.committee.incarnation,
            committee: self.committee.hash(),
            index,
            round,
            kind,
            value,
            node: self.node,
        }
    }

    fn sign(&self, ballot: Ballot) -> SignedBallot {
        ballot.sign(node_key(self.node))
    }

    fn wire(&self, message: Message) -> Wire {
        self.bft(BftWire::Machine(message))
    }

    fn bft(&self, message: BftWire) -> Wire {
        Wire::Bft { group: self.committee.group, stint: self.stint, message: Box::new(message) }
    }
}

/// A value of this node's and what it says instead.
struct Instead {
    id: Hash32,
    encoded: Bytes,
}

/// A liar.
pub struct Liar {
    lie: Lie,
    rng: ChaCha8Rng,
    /// What is drawn about mail and money, which came later.
    more: ChaCha8Rng,
    /// What it does wherever it would do one thing or another.
    sought: Option<Ruse>,
    /// Others of its kind in its group.
    fellows: BTreeSet<NodeId>,
    /// What it has done since somebody asked last.
    deeds: Deeds,
    /// The entry that its machine has made values for.
    index: u64,
    /// These values, and others in their places.
    instead: BTreeMap<Hash32, Instead>,
    /// Values that were proposed for a round.
    proposed: BTreeMap<(u64, u32), BTreeSet<Hash32>>,
    /// Votes for the second half, whose value is not known yet.
    owed: Vec<Ballot>,
    /// What is said later.
    held: VecDeque<(Tick, NodeId, Wire)>,
    /// What was heard and said.
    heard: VecDeque<Message>,
    /// Committees of its group that were in force.
    former: Vec<Committee>,
    twin: Option<Twin>,
}

impl Liar {
    pub(crate) fn new(lie: Lie, seed: u64, fellows: BTreeSet<NodeId>) -> Self {
        let mut more = ChaCha8Rng::seed_from_u64(seed);
        more.set_stream(MORE_STREAM);
        Self {
            lie,
            rng: ChaCha8Rng::seed_from_u64(seed),
            more,
            sought: None,
            fellows,
            deeds: Deeds::default(),
            index: 0,
            instead: BTreeMap::new(),
            proposed: BTreeMap::new(),
            owed: Vec::new(),
            held: VecDeque::new(),
            heard: VecDeque::new(),
            former: Vec::new(),
            twin: None,
        }
    }

    /// One that does what somebody has to do for a bug to show that was put back, and otherwise would do now and then.
    pub(crate) fn seeking(self, sought: Option<Ruse>) -> Self {
        Self { sought, ..self }
    }

    /// It lies in the same way in a shard that its own was cut or joined into.
    pub(crate) fn child(&self, seed: u64) -> Self {
        Self::new(self.lie, seed, BTreeSet::new())
    }

    /// Whether it signs ballots that exclude each other.
    pub(crate) fn signs_twice(&self) -> bool {
        self.lie.signs_twice()
    }

    /// Whether it conspires against others, and a member is of their second half: that one is shown no header of the first
    /// half, and gets a signature under its own.
    pub(crate) fn keeps_apart(&self, committee: &Committee, own: NodeId, node: NodeId) -> bool {
        self.lie == Lie::Conspirator && self.second(committee, own, node)
    }

    /// Whether the records are lost with the power.
    pub(crate) fn forgets(&self) -> bool {
        self.lie == Lie::Forgetful
    }

    /// Its replica starts with this.
    pub(crate) fn begin(&mut self, settings: Settings, begin: Begin, now: Tick) {
        if self.lie == Lie::Twins {
            self.twin = Some(Twin::new(settings, begin, now));
        }
    }

    /// The power is gone.
    pub(crate) fn crash(&mut self) {
        self.held.clear();
        self.twin = None;
        self.deeds.lies += u64::from(self.lie == Lie::Forgetful);
    }

    /// Another engine takes over, under which nobody lies.
    pub(crate) fn rest(&mut self) {
        self.held.clear();
        self.twin = None;
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.rng.random_range(0..below)
    }

    /// Its machine says something.
    pub(crate) fn speak(&mut self, scene: &Scene<'_>, to: NodeId, message: Message, said: &mut Vec<(NodeId, Wire)>) {
        match self.lie {
            Lie::Equivocator | Lie::BadProposer => self.propose(scene, to, message, said),
            Lie::DoubleVoter => self.vote_twice(scene, to, message, said),
            Lie::Conspirator => self.conspire(scene, to, message, said),
            Lie::Lingerer => self.linger(scene, to, message, said),
            Lie::Silent => self.deeds.lies += 1,
            Lie::Slow => {
                self.deeds.lies += 1;
                let due = Tick(scene.now.0 + u64::from(100 + self.draw(700)));
                self.held.push_back((due, to, scene.wire(message)));
            }
            Lie::Replayer => {
                self.remember(&message);
                said.push((to, scene.wire(message)));
            }
            Lie::Forger | Lie::Twins | Lie::Forgetful => said.push((to, scene.wire(message))),
        }
    }

    /// Another member says something.
    pub(crate) fn hear(&mut self, scene: &Scene<'_>, from: NodeId, message: &Message, said: &mut Vec<(NodeId, Wire)>) {
        match self.lie {
            Lie::Equivocator | Lie::BadProposer | Lie::Lingerer => self.wanted(scene, from, message, said),
            Lie::Conspirator => {
                self.note_proposal(message);
                self.pay(scene, said);
                self.wanted(scene, from, message, said);
            }
            Lie::Replayer => self.remember(message),
            Lie::Twins => {
                if let Some(twin) = &mut self.twin {
                    self.deeds.lies += twin.hear(scene, from, message, said);
                }
            }
            Lie::DoubleVoter => self.note_proposal(message),
            Lie::Silent | Lie::Slow | Lie::Forger | Lie::Forgetful => {}
        }
    }

    /// Its node is told what was decided.
    pub(crate) fn told(&mut self, scene: &Scene<'_>, from: NodeId, values: &[Decided], said: &mut Vec<(NodeId, Wire)>) {
        if let Some(twin) = &mut self.twin {
            self.deeds.lies += twin.decided(scene, from, values, said);
        }
    }

    /// Somebody who is behind is answered.
    pub(crate) fn answer(&mut self, scene: &Scene<'_>, to: NodeId, answer: BftWire, said: &mut Vec<(NodeId, Wire)>) {
        let lie = self.lie;
        match lie {
            Lie::Silent => self.deeds.lies += 1,
            Lie::Forger if self.draw(2) == 0 => {
                let asked = if let BftWire::Answer { values, .. } = answer { values } else { None };
                self.forge_decided(scene, to, asked.into_iter().flatten().next(), said);
            }
            _ => said.push((to, scene.bft(answer))),
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) {
        // Delays differ, so it is not always the first.
        while let Some(at) = self.held.iter().position(|(due, _, _)| *due <= scene.now) {
            said.extend(self.held.remove(at).map(|(_, to, wire)| (to, wire)));
        }
        if self.lie == Lie::Forger && self.former.last() != Some(scene.committee) {
            self.former.push(scene.committee.clone());
        }
        if self.lie == Lie::Forger && self.more.random_range(0..MAIL_EVERY_TICKS) == 0 {
            self.forge_mail(scene, said);
        }
        let lie = self.lie;
        match lie {
            Lie::Forger if self.draw(25) == 0 => self.forge(scene, said),
            Lie::Replayer if self.draw(25) == 0 => self.replay(scene, said),
            Lie::Twins => {
                if let Some(twin) = &mut self.twin {
                    self.deeds.lies += twin.tick(scene, said);
                }
            }
            _ => {}
        }
    }

    /// Somebody of the others.
    fn anybody(&mut self, scene: &Scene<'_>) -> Option<NodeId> {
        scene.others().choose(&mut self.rng).copied()
    }
}

/// Who lies in a run: a replica, and how.
pub(crate) type Cast = Vec<(NodeId, GroupId, Lie)>;

/// Draws who lies. With `too_many`, one more of each group than it tolerates, all conspirators. A group that goes over
/// between engines (`switching`) may have liars, too, who lie under the Byzantine one; none that forgets its promises:
/// under Raft it would have no vote, which the simulator's Raft does not know. In the beacon nobody signs twice: whom it
/// accuses it takes the seats from, and those of the genesis do not move here.
pub(crate) fn cast(
    genesis: &Genesis,
    switching: Option<GroupId>,
    fixed: Option<Lie>,
    too_many: bool,
    rng: &mut ChaCha8Rng,
) -> Cast {
    let usual: Vec<Lie> = Lie::ALL.iter().copied().filter(|lie| lie.usual(switching.is_some())).collect();
    let mut all = Vec::new();
    let lied_in = |committee: &&Committee| committee.engine == Engine::Bft || switching == Some(committee.group);
    for committee in genesis.committees.iter().filter(lied_in) {
        let tolerated = Engine::Bft.tolerated(committee.members.len());
        // Every third group is of honest members alone.
        let some = rng.random_range(0..3) > 0 || fixed.is_some();
        let count = match (too_many, some) {
            (true, _) => tolerated + 1,
            (false, true) => rng.random_range(1..=tolerated.max(1)).min(tolerated),
            (false, false) => 0,
        };
        let mut nodes: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();
        nodes.shuffle(rng);
        let count = if too_many && committee.group == GroupId::BEACON { 0 } else { count };
        for node in nodes.into_iter().take(count) {
            let drawn = usual.choose(rng).copied().unwrap_or(Lie::Silent);
            let lie = if too_many { Lie::Conspirator } else { fixed.unwrap_or(drawn) };
            let lie = if lie == Lie::Forgetful && switching == Some(committee.group) { Lie::Silent } else { lie };
            let lie = if lie.signs_twice() && committee.group == GroupId::BEACON { Lie::Slow } else { lie };
            all.push((node, committee.group, lie));
        }
    }
    all
}

/// Ways to sign twice that are found out within a short run.
const ACCUSABLE: [Lie; 3] = [Lie::DoubleVoter, Lie::Equivocator, Lie::Twins];

/// Draws who votes twice in runs in which that costs all seats: so many members of Byzantine shards as far as these
/// bear it, each on a node of its own, spread over the shards.
pub(crate) fn accusable(genesis: &Genesis, count: u32, fixed: Option<Lie>, rng: &mut ChaCha8Rng) -> Cast {
    let shards = genesis.committees.iter().filter(|committee| committee.group.kind() == Some(GroupKind::Shard));
    let mut shards: Vec<&Committee> = shards.filter(|committee| committee.engine == Engine::Bft).collect();
    shards.shuffle(rng);
    let mut all = Cast::new();
    for _ in 0..count {
        let lies = |committee: &Committee| all.iter().filter(|(_, group, _)| *group == committee.group).count();
        let bear = shards.iter().filter(|shard| lies(shard) < Engine::Bft.tolerated(shard.members.len()));
        let Some(shard) = bear.min_by_key(|shard| lies(shard)) else { break };
        let nodes = shard.members.iter().map(|member| member.node);
        let free: Vec<NodeId> = nodes.filter(|node| all.iter().all(|(liar, ..)| liar != node)).collect();
        let (node, drawn) = (free.choose(rng).copied(), ACCUSABLE.choose(rng).copied());
        let lie = fixed.or(drawn).unwrap_or(Lie::DoubleVoter);
        let group = shard.group;
        all.extend(node.map(|node| (node, group, lie)));
    }
    all
}

/// When conspirators are to have it easy: the two halves of those whom they are against do not hear each other for half of the
/// time.
pub(crate) fn parting(genesis: &Genesis, liars: &[(NodeId, GroupId, Lie)], safety_ms: u64) -> Vec<(u64, Fault)> {
    let mut all = Vec::new();
    for committee in genesis.committees.iter().filter(|committee| committee.engine == Engine::Bft) {
        let lies = |node: NodeId| liars.iter().any(|(liar, group, _)| *liar == node && *group == committee.group);
        let nodes = committee.members.iter().map(|member| member.node);
        let honest: Vec<NodeId> = nodes.filter(|node| !lies(*node)).collect();
        for one in honest.iter().step_by(2) {
            let second = honest.iter().skip(1).step_by(2);
            all.extend(second.map(|other| (safety_ms / 8, Fault::Apart(*one, *other, safety_ms / 2))));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_lie_has_a_name_of_its_own() {
        for lie in Lie::ALL {
            assert_eq!(lie.name().parse(), Ok(*lie));
        }
        assert!("honest".parse::<Lie>().is_err());
    }
}
