//! A cluster in memory for tests of the composed machine: a beacon, two shards, and channels that are
//! founded through the beacon. Every group executes real blocks; mail travels as certified bundles.

use std::collections::{BTreeMap, BTreeSet};

use beacon::command::{BeaconCommand, SignedCommand};
use bytes::Bytes;
use channel::opening::{PROMISE_VERSION, first_policies};
use channel::policy::Item;
use channel::{Change, Engine, FoundingAct, Hosting, Policy, Promise, Quorum, Role, SealedOpening, Subject, Terms};
use consensus::port::AppliedState;
use cross_shard::stream::{self, StreamLeaf};
use cross_shard::{AckProof, Bundle, InCursor};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Address, AssetId, ClusterId, Epoch, GroupId, Incarnation, LedgerId, NodeId, OrgId, TimeMs};
use ledger::merkle;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::tx::{Opening, ParsedTx, SignedTx, Slot, Submission, TxBody};
use ledger::view::View;
use ledger::{
    AssetSpec, Authorisation, Certificate, Committee, Header, Layout, Member, Move, Outcome, Receipt, SecretKey, schema,
};

use crate::core::applied::AppliedRecord;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::executor::{ExecutedBlock, GroupConstants, execute};
use crate::core::genesis::{GenesisState, genesis_state};
use crate::core::machine::CommandOutcome;
use crate::core::records::{BlockRecord, ReceiptPlace};

pub const NOW: u64 = 1_700_000_000_000;
pub const HOUR: u64 = 60 * 60 * 1000;
/// The shards; channels are numbered as they are founded.
pub const SHARDS: [GroupId; 2] = [GroupId::shard(0), GroupId::shard(1)];

pub type State = BTreeMap<Vec<u8>, Bytes>;

pub fn admin(org: u16) -> SecretKey {
    SecretKey::derive(b"admin", &org.to_be_bytes())
}

pub fn node_key(node: NodeId) -> SecretKey {
    SecretKey::derive(b"node", &node.0.to_be_bytes())
}

/// Nodes of an organisation: `10 o` to `10 o + 3`.
pub fn node_of(org: u16, index: u32) -> NodeId {
    NodeId(u32::from(org) * 10 + index)
}

pub fn org_info(org: u16) -> OrgInfo {
    let ca_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    OrgInfo { id: OrgId(org), name: format!("org-{org}"), ca_pem, admin_key: admin(org).public() }
}

pub fn node_info(org: u16, index: u32) -> NodeInfo {
    let id = node_of(org, index);
    NodeInfo {
        id,
        org: OrgId(org),
        zone: "z".to_owned(),
        capacity: 1,
        key: node_key(id).public(),
        tls_key_hash: sha256(&id.0.to_le_bytes()),
        peer_addr: format!("127.0.0.1:{}", 7000 + id.0),
        client_addr: format!("127.0.0.1:{}", 8000 + id.0),
    }
}

fn committee(group: GroupId, index: u32) -> Committee {
    let member = |org| {
        let node = node_of(org, index);
        Member { node, org: OrgId(org), key: node_key(node).public() }
    };
    Committee::majority(group, Incarnation(0), Epoch(0), [1, 2, 3].map(member).to_vec())
}

fn genesis() -> Genesis {
    let groups = [GroupId::BEACON, SHARDS[0], SHARDS[1]];
    Genesis {
        version: 1,
        name: "consortium".to_owned(),
        created_ms: TimeMs(NOW),
        seed: Hash32([1; 32]),
        orgs: (1..=4).map(org_info).collect(),
        nodes: (1..=4).flat_map(|org| (0..4).map(move |index| node_info(org, index))).collect(),
        committees: (0..).zip(groups).map(|(index, group)| committee(group, index)).collect(),
        layout: Layout::even(2),
        verify: VerifyMode::Ingest,
        policies: Default::default(),
    }
}

/// A block with the heads that its header commits to.
type Sealed = (Header, Vec<StreamLeaf>, Vec<StreamLeaf>);

/// One group from block 0 on.
pub struct Chain {
    constants: GroupConstants,
    pub state: State,
    tree: StateTree,
    pub applied: AppliedRecord,
    /// The last block, with the heads that its header commits to.
    last: Option<Sealed>,
    /// The blocks behind which another committee certifies.
    handed: Vec<Sealed>,
    /// Everything it ever mailed, with where to.
    pub mailed: Vec<(GroupId, Bytes)>,
    pub headers: Vec<Header>,
}

impl Chain {
    fn new(constants: GroupConstants, prefix: BitPrefix, start: GenesisState) -> Self {
        let state: State = start.writes.into_iter().map(|(key, value)| (key, value.into())).collect();
        let mut tree = StateTree::new(prefix);
        let leaves = state.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, value)));
        tree.apply(leaves.map(|(at, value)| (at, Some(value_hash(value))))).expect("the leaves make a tree");
        assert_eq!(tree.root(), start.applied.state_root.0, "block 0 commits to its leaves");
        let applied = start.applied;
        let (last, handed, mailed, headers) = (None, Vec::new(), Vec::new(), Vec::new());
        Self { constants, state, tree, applied, last, handed, mailed, headers }
    }

    pub fn read<T>(&self, read: impl FnOnce(&mut View<'_>) -> T) -> T {
        let mut view = View::new(&self.state);
        let found = read(&mut view);
        assert_eq!(view.fault(), None);
        found
    }

    fn execute(&mut self, commands: Vec<Command>, stamp_ms: u64) -> ExecutedBlock {
        let payload = Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms: TimeMs(stamp_ms), commands }.encode());
        let consensus = AppliedState::default();
        let executed = execute(&self.state, &mut self.tree, &self.constants, &self.applied, consensus, &payload);
        let block = executed.expect("it is executed").block().expect("a block");
        for (key, value) in &block.writes {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
        self.applied = block.applied.clone();
        let sealed = (block.header.clone(), block.outbox.clone(), block.inbox.clone());
        if block.header.next_committee_hash != block.header.committee_hash {
            self.handed.push(sealed.clone());
        }
        self.last = Some(sealed);
        self.mailed.extend(block.mail.iter().map(|mail| (mail.dest, mail.message.clone())));
        self.headers.push(block.header.clone());
        block
    }

    /// A header of this group with the signatures of all whom it names.
    pub fn certify(&self, header: &Header) -> Certificate {
        let digest = header.hash();
        let committee: Option<Committee> =
            self.read(|view| view.load(&schema::committee(self.constants.group, &header.committee_hash)));
        let signers = committee.expect("committees are kept").members;
        let signatures = signers.iter().map(|member| (member.node, node_key(member.node).sign(&digest))).collect();
        Certificate { version: 1, header: header.clone(), signatures }
    }

    /// What this group has for another one beyond its cursor, under what that one can judge: the first block behind the
    /// cursor that hands over to another committee, or the last one.
    fn bundle(&self, dest: GroupId, cursor: &InCursor) -> Option<Bundle> {
        let beyond =
            |(_, outbox, _): &&Sealed| outbox.iter().any(|leaf| leaf.peer == dest && leaf.next_seq > cursor.next_seq);
        self.bundle_under(self.handed.iter().chain(&self.last).find(beyond)?, dest, cursor)
    }

    /// The same under the last block, whoever certifies it.
    pub fn latest_bundle(&self, dest: GroupId, cursor: &InCursor) -> Option<Bundle> {
        self.bundle_under(self.last.as_ref()?, dest, cursor)
    }

    fn bundle_under(&self, (header, outbox, _): &Sealed, dest: GroupId, cursor: &InCursor) -> Option<Bundle> {
        let certificate = self.certify(header);
        let index = outbox.iter().position(|leaf| leaf.peer == dest)?;
        let hashes: Vec<Hash32> = outbox.iter().map(StreamLeaf::hash).collect();
        let until = outbox[index].next_seq;
        let messages = (cursor.next_seq..until).map(|seq| self.state[&schema::mail(dest, seq)].to_vec());
        Some(Bundle {
            version: 2,
            source: self.constants.group,
            dest,
            first_seq: cursor.next_seq,
            messages: messages.collect(),
            proof: Vec::new(),
            leaf: outbox[index],
            path: merkle::prove(&hashes, index)?,
            certificate,
        })
    }

    /// Proof of how far this group has taken another one's mail.
    fn proof(&self, source: GroupId) -> Option<AckProof> {
        let (header, _, inbox) = self.last.as_ref()?;
        let certificate = self.certify(header);
        let index = inbox.iter().position(|leaf| leaf.peer == source)?;
        let hashes: Vec<Hash32> = inbox.iter().map(StreamLeaf::hash).collect();
        Some(AckProof { version: 1, leaf: inbox[index], path: merkle::prove(&hashes, index)?, certificate })
    }

    pub fn receipt(&self, tx: &SignedTx) -> Option<Receipt> {
        let place: ReceiptPlace = self.read(|view| view.load(&schema::receipt(&tx.txid(&self.constants.cluster))))?;
        let record: BlockRecord = self.read(|view| view.load(&schema::block(place.height)))?;
        record.receipts.get(place.index as usize).cloned()
    }

    pub fn outcome(&self, tx: &SignedTx) -> Option<Outcome> {
        self.receipt(tx).map(|receipt| receipt.outcome)
    }

    pub fn balance(&self, key: &SecretKey, asset: AssetId) -> u128 {
        let record = self.read(|view| ledger::rules::load_account(view, &address(key)));
        let balances = record.into_iter().flat_map(|record| record.balances);
        balances.filter(|line| line.0 == asset).map(|line| line.1.posted).sum()
    }
}

pub fn borsh_of<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

pub fn address(key: &SecretKey) -> Address {
    Authorisation::Single(key.public()).address()
}

/// The client with this number.
pub fn client(number: u8) -> SecretKey {
    SecretKey::derive(&[number], b"client")
}

pub fn majority() -> Policy {
    Policy::members(Quorum::Majority, Role::Admin)
}

/// A policy of one organisation's admin.
pub fn only(org: u16) -> Policy {
    Policy::rule(Quorum::Any, vec![Item::Sub(Policy::one(OrgId(org), Role::Admin))])
}

/// All groups.
pub struct Consortium {
    pub genesis: Genesis,
    pub cluster: ClusterId,
    pub chains: BTreeMap<GroupId, Chain>,
    pub now: u64,
    salt: u8,
}

impl Consortium {
    pub fn new() -> Self {
        let genesis = genesis();
        let cluster = genesis.cluster_id();
        let chains = genesis.committees.iter().map(|committee| {
            let group = committee.group;
            let prefix = genesis.layout.prefix_of(group).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
            let constants = GroupConstants { cluster, group, verify: genesis.verify };
            let start = genesis_state(&genesis, None, group).expect("the genesis names it");
            (group, Chain::new(constants, prefix, start))
        });
        let chains = chains.collect();
        Self { cluster, chains, now: NOW, salt: 0, genesis }
    }

    /// With a channel of organisations 1 to 3, and one of 2 to 4.
    pub fn with_two_channels() -> (Self, GroupId, GroupId) {
        let mut world = Self::new();
        let first = world.found("steel", &[1, 2, 3]);
        let second = world.found("grain", &[2, 3, 4]);
        world.settle();
        (world, first, second)
    }

    fn next_salt(&mut self) -> [u8; 16] {
        self.salt += 1;
        [self.salt; 16]
    }

    pub fn chain(&self, group: GroupId) -> &Chain {
        &self.chains[&group]
    }

    pub fn block(&mut self, group: GroupId, commands: Vec<Command>) -> ExecutedBlock {
        self.now += 10;
        self.chains.get_mut(&group).expect("the group runs").execute(commands, self.now)
    }

    pub fn one(&mut self, group: GroupId, command: Command) -> CommandOutcome {
        self.block(group, vec![command]).outcomes.remove(0)
    }

    /// A command of an organisation's admin to the beacon.
    pub fn beacon_by(&mut self, org: u16, key: &SecretKey, command: &BeaconCommand) -> CommandOutcome {
        let (salt, until) = (self.next_salt(), TimeMs(self.now + HOUR));
        let signed = SignedCommand::sign(&self.cluster, command, OrgId(org), salt, until, key);
        self.one(GroupId::BEACON, Command::Registry(signed.encode()))
    }

    pub fn beacon(&mut self, org: u16, command: &BeaconCommand) -> CommandOutcome {
        self.beacon_by(org, &admin(org), command)
    }

    pub fn terms(name: &str, invited: &[u16]) -> Terms {
        Terms {
            name: name.to_owned(),
            invited: invited.iter().copied().map(OrgId).collect(),
            engine: Engine::Raft,
            founding: Policy::members(Quorum::All, Role::Admin),
            policies: first_policies(),
        }
    }

    /// What the founders of every channel here agree on without the beacon: a majority for everything.
    pub fn agreed() -> channel::Opening {
        channel::Opening::new([7; 32], Subject::ALL.map(|subject| (subject, majority())).to_vec())
    }

    /// What this organisation sends to propose a channel that promises that. Nobody opens the copies here, so there is nothing
    /// in them.
    pub fn proposal(&self, name: &str, by: u16, invited: &[u16]) -> BeaconCommand {
        let named: BTreeSet<u16> = invited.iter().copied().chain([by]).collect();
        let keys = named.into_iter().map(|org| (OrgId(org), [0; 48])).collect();
        let sealed = SealedOpening { sender: admin(by).public(), keys, body: vec![0; 528] };
        let promise = Promise { version: PROMISE_VERSION, hash: Self::agreed().hash(), sealed };
        let (terms, until_ms) = (Self::terms(name, invited), TimeMs(self.now + HOUR));
        BeaconCommand::ProposeSealedChannel { terms, promise, hosting: Self::hosting(by), until_ms }
    }

    pub fn hosting(org: u16) -> Hosting {
        Hosting { nodes: vec![node_of(org, 3)], anchors: vec![node_of(org, 3)] }
    }

    /// Founds a channel by its members' commands, starts its group, and gives it what was promised.
    pub fn found(&mut self, name: &str, orgs: &[u16]) -> GroupId {
        let group = self.start(name, orgs);
        let opening = Self::agreed();
        assert_eq!(self.govern(group, orgs[0], &channel::Command::Open { opening }), Ok(channel::Outcome::Done));
        group
    }

    /// The same up to its start: what was promised waits.
    pub fn start(&mut self, name: &str, orgs: &[u16]) -> GroupId {
        let propose = self.proposal(name, orgs[0], &orgs[1..]);
        assert_eq!(self.beacon(orgs[0], &propose), CommandOutcome::Registered);
        let all = self.chain(GroupId::BEACON).read(beacon::channels::foundings);
        let founding = all.iter().find(|founding| founding.terms.name == name).expect("it is kept").id;
        for org in &orgs[1..] {
            let act = FoundingAct::Approve(Self::hosting(*org));
            assert_eq!(
                self.beacon(*org, &BeaconCommand::ActOnChannel { founding, act }),
                CommandOutcome::Registered,
                "organisation {org}"
            );
        }
        let beacon = self.chain(GroupId::BEACON);
        let entry = beacon.read(beacon::channels::directory).into_iter().find(|entry| entry.name == name);
        let group = entry.expect("it is founded").group;
        let foundations = beacon.read(beacon::registry::foundations);
        let foundation = foundations.into_iter().find(|found| found.group == group).expect("it is how it began");
        let constants = GroupConstants { cluster: self.cluster, group, verify: VerifyMode::Ingest };
        let state = genesis_state(&self.genesis, Some(&foundation), group).expect("a charter makes a state");
        self.chains.insert(group, Chain::new(constants, BitPrefix::ROOT, state));
        group
    }

    /// Carries one group's mail to another and acknowledges it. Returns whether there was any.
    pub fn carry(&mut self, source: GroupId, dest: GroupId) -> bool {
        if !self.chains.contains_key(&dest) {
            return false;
        }
        let cursor = self.chain(dest).read(|view| stream::in_cursor(view, source));
        let Some(bundle) = self.chain(source).bundle(dest, &cursor) else { return false };
        let count = bundle.messages.len() as u64;
        let taken = self.one(dest, Command::Deliver(borsh_of(&bundle)));
        assert_eq!(taken, CommandOutcome::Delivered(source, count));
        let proof = self.chain(dest).proof(source).expect("it has taken mail");
        let acked = self.one(source, Command::Ack(borsh_of(&proof)));
        assert!(matches!(acked, CommandOutcome::Acked(..)), "{acked:?}");
        true
    }

    /// Carries mail until there is none.
    pub fn settle(&mut self) {
        let groups: Vec<GroupId> = self.chains.keys().copied().collect();
        loop {
            let mut any = false;
            for source in &groups {
                for dest in &groups {
                    any |= self.carry(*source, *dest);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// A command of a member to a channel.
    pub fn govern_by(
        &mut self,
        group: GroupId,
        org: u16,
        key: &SecretKey,
        command: &channel::Command,
    ) -> Result<channel::Outcome, channel::ChannelReject> {
        let (salt, until) = (self.next_salt(), TimeMs(self.now + HOUR));
        let signed = channel::SignedCommand::sign(&self.cluster, group, OrgId(org), command, salt, until, key);
        match self.one(group, Command::Channel(signed.encode())) {
            CommandOutcome::Governed { digest, verdict } => {
                assert_eq!(digest, signed.digest());
                verdict.map_err(|refusal| refusal.reject)
            }
            other => panic!("no verdict: {other:?}"),
        }
    }

    pub fn govern(
        &mut self,
        group: GroupId,
        org: u16,
        command: &channel::Command,
    ) -> Result<channel::Outcome, channel::ChannelReject> {
        self.govern_by(group, org, &admin(org), command)
    }

    /// Proposes a change, and lets another member approve it, which is a majority of three.
    pub fn enact(&mut self, group: GroupId, by: [u16; 2], change: Change) {
        let until_ms = TimeMs(self.now + HOUR);
        let made = self.govern(group, by[0], &channel::Command::Propose { change, until_ms });
        let Ok(channel::Outcome::Proposal { id, .. }) = made else { panic!("{made:?}") };
        let decided = self.govern(group, by[1], &channel::Command::Approve { proposal: id });
        let applied = channel::ProposalState::Applied;
        assert_eq!(decided, Ok(channel::Outcome::Proposal { id, state: applied }));
    }

    /// An asset of client 0, which is known everywhere.
    pub fn issue(&mut self, symbol: &str) -> AssetId {
        let spec =
            AssetSpec { issuer: address(&client(0)), symbol: symbol.to_owned(), name: "x".to_owned(), decimals: 0 };
        let (asset, slots) = (spec.id(), vec![clear(LedgerId::BEACON, Move::Issue(spec))]);
        let tx = self.sign(slots, &[&client(0)]);
        assert!(matches!(self.submit(GroupId::BEACON, &tx, &[]), CommandOutcome::Receipt(..)));
        self.settle();
        asset
    }

    pub fn home(&self, key: &SecretKey) -> GroupId {
        self.genesis.layout.locate(&address(key))
    }

    /// Mints to a client's account of the main ledger.
    pub fn mint(&mut self, to: &SecretKey, asset: AssetId, amount: u128) {
        let mv = Move::Mint { issuer: address(&client(0)), to: address(to), asset, amount };
        let tx = self.sign(vec![clear(LedgerId::MAIN, mv)], &[&client(0)]);
        let group = self.home(&client(0));
        assert!(matches!(self.submit(group, &tx, &[]), CommandOutcome::Receipt(..)));
        self.settle();
    }

    /// Brings an amount into a channel, to the same client's account there.
    pub fn bring(&mut self, who: &SecretKey, asset: AssetId, amount: u128, channel: GroupId) {
        self.mint(who, asset, amount);
        let (from, ledger) = (address(who), LedgerId::of_channel(channel));
        let mv = Move::Transfer { from, to: from, asset, amount, ledger };
        let tx = self.sign(vec![clear(LedgerId::MAIN, mv)], &[who]);
        let home = self.home(who);
        assert!(matches!(self.submit(home, &tx, &[]), CommandOutcome::Receipt(..)));
        self.settle();
        assert_eq!(
            self.chain(home).outcome(&tx).map(|outcome| matches!(outcome, Outcome::Committed { .. })),
            Some(true)
        );
    }

    pub fn sign(&mut self, slots: Vec<Slot>, keys: &[&SecretKey]) -> SignedTx {
        let body = TxBody {
            version: 1,
            cluster: self.cluster,
            valid_until_ms: TimeMs(self.now + 60_000),
            salt: self.next_salt(),
            slots,
            memo: Vec::new(),
        };
        SignedTx::sign(&body, keys)
    }

    pub fn submit(&mut self, group: GroupId, tx: &SignedTx, openings: &[Opening]) -> CommandOutcome {
        let bytes = part(&self.cluster, group, tx, openings);
        self.one(group, Command::Tx(bytes))
    }
}

/// What a router gives to a group that takes part: of a transaction that spans ledgers, the witnesses of its own.
pub fn part(cluster: &ClusterId, group: GroupId, tx: &SignedTx, openings: &[Opening]) -> Vec<u8> {
    let whole = Submission::encode(tx.encode(), openings.to_vec());
    let parsed = ParsedTx::decode(cluster, &whole).expect("it decodes");
    let mut given = whole;
    if parsed.body.spans_ledgers() {
        let dealt = parsed.deal(|_, _| None).expect("each witness is of a payer");
        let own = dealt.into_iter().find(|given| Some(given.ledger) == group.ledger());
        let signed = parsed.signed_with(own.map(|given| given.witnesses).unwrap_or_default());
        given = Submission::encode(signed, openings.to_vec());
    }
    ParsedTx::decode(cluster, &given).expect("it decodes").verify_signatures().expect("signatures hold");
    given
}

pub fn clear(ledger: LedgerId, mv: Move) -> Slot {
    Slot::Clear { ledger, mv }
}

/// A hidden slot for a group, and its opening.
pub fn hidden(index: u16, group: GroupId, mv: Move) -> (Slot, Opening) {
    let ledger = group.ledger().expect("the group keeps accounts");
    let opening = Opening { slot: index, salt: sha256(&borsh_of(&(index, &mv))), mv };
    (Slot::Hidden { ledger, group, hash: opening.hash() }, opening)
}
