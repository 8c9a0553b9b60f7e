//! A small consortium and a channel for the tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use channel::opening::{PROMISE_VERSION, first_policies};
use channel::policy::Item;
use channel::{Change, Explanation, Opening, Promise, SealedOpening};
use channel::{
    ChannelReject, Charter, Command, Engine, Founding, FoundingAct, Hosting, Outcome, Policy, ProposalState, Quorum,
    Refusal, Registry, RegistryNode, RegistryOrg, Role, SignedCommand, Subject, Surroundings, Terms, UnderWay, execute,
};
use ledger::committee::Committee;
use ledger::crypto::SecretKey;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::view::View;

pub type State = BTreeMap<Vec<u8>, Bytes>;

pub const NOW: u64 = 1_700_000_000_000;
pub const DAY: u64 = 24 * 60 * 60 * 1000;
pub const CLUSTER: ClusterId = ClusterId(Hash32([1; 32]));
pub const GROUP: GroupId = GroupId::channel(7);

pub fn key(org: u16, purpose: &str) -> SecretKey {
    SecretKey::derive(&org.to_be_bytes(), purpose.as_bytes())
}

pub fn admin(org: u16) -> SecretKey {
    key(org, "admin")
}

pub fn node_key(node: u32) -> SecretKey {
    SecretKey::derive(b"node", &node.to_be_bytes())
}

/// Organisations 1 to 9; organisation `o` has the nodes `10 o` to `10 o + 3`.
pub struct Directory;

impl Registry for Directory {
    fn org(&self, org: OrgId) -> Option<RegistryOrg> {
        let found = RegistryOrg { name: format!("org-{org}"), admin_key: admin(org.0).public() };
        (1..=9).contains(&org.0).then_some(found)
    }

    fn node(&self, node: NodeId) -> Option<RegistryNode> {
        let org = OrgId(u16::try_from(node.0 / 10).ok()?);
        ((1..=9).contains(&org.0) && node.0 % 10 < 4).then(|| RegistryNode { org, key: node_key(node.0).public() })
    }
}

pub fn hosting(org: u16, nodes: u32) -> Hosting {
    let first = u32::from(org) * 10;
    Hosting { nodes: (first..first + nodes).map(NodeId).collect(), anchors: vec![NodeId(first)] }
}

pub fn majority() -> Policy {
    Policy::members(Quorum::Majority, Role::Admin)
}

pub fn everyone() -> Policy {
    Policy::members(Quorum::All, Role::Admin)
}

pub fn anyone() -> Policy {
    Policy::members(Quorum::Any, Role::Admin)
}

pub fn only(org: u16) -> Policy {
    Policy::one(OrgId(org), Role::Admin)
}

pub fn rule(quorum: Quorum, policies: &[Policy]) -> Policy {
    Policy::rule(quorum, policies.iter().cloned().map(Item::Sub).collect())
}

pub fn terms(invited: &[u16], policy: &Policy) -> Terms {
    Terms {
        name: "steel".to_owned(),
        invited: invited.iter().copied().map(OrgId).collect(),
        engine: Engine::Raft,
        founding: everyone(),
        policies: Subject::ALL.map(|subject| (subject, policy.clone())).to_vec(),
    }
}

pub fn found(terms: Terms, nodes: &[u32]) -> Charter {
    let until = TimeMs(NOW + DAY);
    let founding =
        Founding::propose(&CLUSTER, terms, OrgId(1), hosting(1, nodes[0]), until, &[1; 16], &Directory, TimeMs(NOW));
    approved(founding.unwrap(), nodes)
}

/// An opening with this policy for everything.
pub fn opening(policy: &Policy) -> Opening {
    Opening::new([7; 32], Subject::ALL.map(|subject| (subject, policy.clone())).to_vec())
}

/// A promise of this opening to organisations 1 to `orgs`. What is in the copies, no machine looks at.
pub fn promise(opening: &Opening, orgs: u16) -> Promise {
    let keys = (1..=orgs).map(|org| (OrgId(org), [0xcc; 48])).collect();
    let sealed = SealedOpening { sender: admin(1).public(), keys, body: vec![0xcc; 528] };
    Promise { version: PROMISE_VERSION, hash: opening.hash(), sealed }
}

/// Terms of a founding that promises what it is to go by.
pub fn sealed_terms(invited: &[u16]) -> Terms {
    Terms { policies: first_policies(), ..terms(invited, &everyone()) }
}

pub fn propose_sealed(terms: Terms, promise: Promise) -> Result<Founding, Refusal> {
    let (until, now) = (TimeMs(NOW + DAY), TimeMs(NOW));
    Founding::propose_sealed(&CLUSTER, terms, promise, OrgId(1), hosting(1, 1), until, &[1; 16], &Directory, now)
}

/// The charter, when those who are invited approve in turn with so many nodes each; who is left has not spoken.
pub fn approved(mut founding: Founding, nodes: &[u32]) -> Charter {
    let invited = founding.terms.invited.clone();
    for (org, nodes) in invited.into_iter().zip(&nodes[1..]) {
        let act = FoundingAct::Approve(hosting(org.0, *nodes));
        founding = founding.act(org, &act, &Directory, TimeMs(NOW)).unwrap();
    }
    founding.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW)).unwrap().1
}

/// A channel and everything around it.
pub struct World {
    pub state: State,
    pub height: u64,
    pub now: u64,
    pub committee: Committee,
    pub under_way: UnderWay,
    pub salt: u8,
}

impl World {
    /// A channel of organisations 1 to `nodes.len()`, each with so many nodes, with this policy for
    /// everything.
    pub fn with(nodes: &[u32], policy: &Policy) -> Self {
        let invited: Vec<u16> = (2..=u16::try_from(nodes.len()).unwrap()).collect();
        Self::of(&found(terms(&invited, policy), nodes))
    }

    /// A channel of organisations 1 to `orgs` with a node each, whose founding has promised this.
    pub fn promised(orgs: u16, opening: &Opening) -> Self {
        let invited: Vec<u16> = (2..=orgs).collect();
        let founding = propose_sealed(sealed_terms(&invited), promise(opening, orgs)).unwrap();
        Self::of(&approved(founding, &vec![1; usize::from(orgs)]))
    }

    /// The channel that starts from a charter.
    pub fn of(charter: &Charter) -> Self {
        Self {
            state: charter.genesis_writes().into_iter().map(|(key, value)| (key, Bytes::from(value))).collect(),
            height: 1,
            now: NOW,
            committee: charter.committee(),
            under_way: UnderWay::default(),
            salt: 0,
        }
    }

    /// Five organisations with a node each, deciding by majority.
    pub fn five() -> Self {
        Self::with(&[1; 5], &majority())
    }

    pub fn at(&self) -> BlockContext {
        BlockContext { cluster: CLUSTER, group: GROUP, height: Height(self.height), time_ms: TimeMs(self.now) }
    }

    pub fn around(&self) -> Surroundings<'_> {
        Surroundings { registry: &Directory, committee: &self.committee, under_way: self.under_way }
    }

    /// Executes bytes in a block of their own. A refusal must leave no trace.
    pub fn submit(&mut self, bytes: &[u8]) -> Result<Outcome, Refusal> {
        let mut view = View::new(&self.state);
        let outcome = execute(&mut view, &self.at(), &self.around(), bytes);
        let writes = view.into_writes().unwrap();
        assert!(outcome.is_ok() || writes.is_empty(), "{outcome:?} left {writes:?}");
        for (key, value) in writes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.height += 1;
        self.now += 1000;
        outcome
    }

    pub fn sign_with(&mut self, org: u16, secret: &SecretKey, command: &Command) -> SignedCommand {
        self.salt = self.salt.wrapping_add(1);
        let until = TimeMs(self.now + DAY / 2);
        SignedCommand::sign(&CLUSTER, GROUP, OrgId(org), command, [self.salt; 16], until, secret)
    }

    pub fn run_with(&mut self, org: u16, secret: &SecretKey, command: &Command) -> Result<Outcome, Refusal> {
        let bytes = self.sign_with(org, secret, command).encode();
        self.submit(&bytes)
    }

    pub fn run(&mut self, org: u16, command: &Command) -> Result<Outcome, Refusal> {
        self.run_with(org, &admin(org), command)
    }

    /// The code that a command of this organisation's admin is refused with.
    pub fn refused(&mut self, org: u16, command: &Command) -> ChannelReject {
        self.run(org, command).expect_err("it is refused").reject
    }

    pub fn propose(&mut self, org: u16, change: Change) -> (Hash32, ProposalState) {
        let until_ms = TimeMs(self.now + DAY);
        outcome_of(self.run(org, &Command::Propose { change, until_ms }).unwrap())
    }

    pub fn proposal_refused(&mut self, org: u16, change: Change) -> ChannelReject {
        let until_ms = TimeMs(self.now + DAY);
        self.refused(org, &Command::Propose { change, until_ms })
    }

    pub fn approve(&mut self, org: u16, proposal: Hash32) -> ProposalState {
        outcome_of(self.run(org, &Command::Approve { proposal }).unwrap()).1
    }

    pub fn reject(&mut self, org: u16, proposal: Hash32) -> ProposalState {
        outcome_of(self.run(org, &Command::Reject { proposal }).unwrap()).1
    }

    /// Proposes a change and lets organisations approve until it is in force.
    pub fn enact(&mut self, change: Change) -> Hash32 {
        let members = self.read(channel::state::members);
        let proposer = match &change {
            Change::Anchors { org, .. } => *org,
            Change::Remove { org } => members.iter().map(|member| member.org).find(|other| other != org).unwrap(),
            _ => members[0].org,
        };
        let (id, mut standing) = self.propose(proposer.0, change);
        for member in members.iter().filter(|member| member.org != proposer) {
            if standing == ProposalState::Open {
                standing = self.approve(member.org.0, id);
            }
        }
        assert_eq!(standing, ProposalState::Applied);
        id
    }

    pub fn explain(&self, id: &Hash32) -> Explanation {
        let mut view = View::new(&self.state);
        channel::explain(&mut view, &self.at(), &self.around(), id).unwrap()
    }

    pub fn read<T>(&self, read: impl FnOnce(&mut View<'_>) -> T) -> T {
        let mut view = View::new(&self.state);
        let found = read(&mut view);
        assert_eq!(view.fault(), None);
        found
    }

    /// Writes what the host applies for the beacon.
    pub fn follow(&mut self, write: impl FnOnce(&mut View<'_>, &BlockContext)) {
        let at = self.at();
        let mut view = View::new(&self.state);
        write(&mut view, &at);
        let writes = view.into_writes().unwrap();
        self.state.extend(writes.into_iter().map(|(key, value)| (key, value.expect("nothing is removed"))));
    }
}

pub fn outcome_of(outcome: Outcome) -> (Hash32, ProposalState) {
    match outcome {
        Outcome::Proposal { id, state } => (id, state),
        other => panic!("not about a proposal: {other:?}"),
    }
}
