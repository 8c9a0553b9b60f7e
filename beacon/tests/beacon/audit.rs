//! The audit: trails, value flows over all groups, and who goes into quarantine and comes out of it.

mod rounds;

use std::collections::BTreeMap;

use beacon::accused::removals;
use beacon::audit::flows::{StreamEnd, sent_key, took_key};
use beacon::audit::quarantine::{self, Held};
use beacon::audit::report::{AuditReport, ReportError};
use beacon::audit::status::{AuditStatus, alarms};
use beacon::audit::trail::audited;
use beacon::audit::{AUDIT_VERSION, AuditEntry, Divergent, Flaw, Trail, Twice, apply, evidence, findings};
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::limits::{AUDIT_PROOFS_MAX, AUDIT_TRAIL_BLOCKS_MAX};
use beacon::machine::{apply_checkpoint, execute_command};
use beacon::{ClusterView, CommandOutcome};
use cross_shard::stream::{InCursor, OutStream, StreamLeaf, root};
use ledger::certificate::Certificate;
use ledger::flow::FlowLine;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{AssetId, ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;
use proptest::prelude::*;

use crate::support::{NOW, State, admin, at, certified, genesis, node_key, settle, state_of};

const SHARDS: usize = 3;

/// What one block of a shard does.
#[derive(Clone, Debug, Default)]
struct Block {
    shard: usize,
    lines: Vec<FlowLine>,
    sends: Vec<(usize, u64)>,
    takes: Vec<(usize, u64)>,
}

/// Blocks of honest shards: totals and messages as they are.
#[derive(Default)]
struct Plan {
    blocks: Vec<Block>,
    totals: BTreeMap<(usize, u8), u128>,
    messages: u64,
}

fn group(shard: usize) -> GroupId {
    GroupId::shard(u32::try_from(shard).unwrap())
}

fn asset(number: u8) -> AssetId {
    AssetId([number; 16])
}

impl Plan {
    fn line(&mut self, shard: usize, number: u8, change: impl FnOnce(&mut FlowLine)) -> Vec<FlowLine> {
        let total = self.totals.entry((shard, number)).or_default();
        let mut line = FlowLine { asset: asset(number), opening: *total, ..FlowLine::default() };
        change(&mut line);
        let sum = |peers: &[(GroupId, u128)]| peers.iter().map(|(_, amount)| amount).sum::<u128>();
        line.closing = line.opening + line.minted + sum(&line.imported) - line.burned - sum(&line.exported);
        *total = line.closing;
        vec![line]
    }

    fn mint(&mut self, shard: usize, number: u8, amount: u128) {
        let lines = self.line(shard, number, |line| line.minted = amount);
        self.blocks.push(Block { shard, lines, ..Block::default() });
    }

    /// Pays as much of an amount as is there, and delivers it.
    fn pay(&mut self, from: usize, to: usize, number: u8, amount: u128) {
        let amount = amount.min(self.totals.get(&(from, number)).copied().unwrap_or(0));
        self.messages += 1;
        let message = self.messages;
        let lines = self.line(from, number, |line| line.exported = vec![(group(to), amount)]);
        self.blocks.push(Block { shard: from, lines, sends: vec![(to, message)], ..Block::default() });
        let lines = self.line(to, number, |line| line.imported = vec![(group(from), amount)]);
        self.blocks.push(Block { shard: to, lines, takes: vec![(from, message)], ..Block::default() });
    }

    fn rest(&mut self) {
        self.blocks.extend((0..SHARDS).map(|shard| Block { shard, ..Block::default() }));
    }
}

#[derive(Default)]
struct Chain {
    headers: Vec<Header>,
    outs: BTreeMap<GroupId, OutStream>,
    ins: BTreeMap<GroupId, InCursor>,
    /// Headers that were shown.
    shown: usize,
}

impl Chain {
    fn outbox(&self) -> Vec<StreamLeaf> {
        self.outs.iter().map(|(peer, stream)| stream.leaf(*peer)).collect()
    }

    fn inbox(&self) -> Vec<StreamLeaf> {
        self.ins.iter().map(|(peer, cursor)| cursor.leaf(*peer)).collect()
    }
}

/// Signed by all of its committee.
fn certify(genesis: &Genesis, header: Header) -> Certificate {
    let digest = header.hash();
    let members = &genesis.committee(header.group).unwrap().members;
    let signatures = members.iter().map(|member| (member.node, node_key(member.node.0).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}

struct World {
    genesis: Genesis,
    state: State,
    chains: Vec<Chain>,
    /// The beacon's time.
    now: u64,
}

impl World {
    fn new() -> Self {
        let genesis = genesis();
        let state = state_of(&genesis);
        let mut world = Self { genesis, state, chains: (0..SHARDS).map(|_| Chain::default()).collect(), now: NOW };
        world.build(&(0..SHARDS).map(|shard| Block { shard, ..Block::default() }).collect::<Vec<_>>());
        world
    }

    fn build(&mut self, blocks: &[Block]) {
        for block in blocks {
            let chain = &mut self.chains[block.shard];
            for (to, message) in &block.sends {
                chain.outs.entry(group(*to)).or_default().push(&message.to_be_bytes());
            }
            for (from, message) in &block.takes {
                chain.ins.entry(group(*from)).or_default().push(&message.to_be_bytes());
            }
            let height = chain.headers.len() as u64;
            let header = Header {
                parents: vec![chain.headers.last().map_or(Hash32::ZERO, Header::hash)],
                value_flow: block.lines.clone(),
                outbox_root: root(&chain.outbox()),
                inbox_cursors_root: root(&chain.inbox()),
                ..certified(&self.genesis, group(block.shard), height, 0).header
            };
            chain.headers.push(header);
        }
    }

    /// Everything of a shard that was not shown.
    fn trail(&self, shard: usize) -> Trail {
        let chain = &self.chains[shard];
        let mut headers = chain.headers[chain.shown..].to_vec();
        let certificate = certify(&self.genesis, headers.pop().unwrap());
        Trail { version: AUDIT_VERSION, headers, certificate, outbox: chain.outbox(), inbox: chain.inbox() }
    }

    fn take(&mut self, entry: &AuditEntry) -> Result<(), Reject> {
        let mut result = Ok(());
        let (genesis, now) = (&self.genesis, self.now);
        self.state = settle(&self.state, |view| result = apply(view, &at(genesis, now), entry).map(drop));
        result
    }

    fn show(&mut self, shard: usize) -> Result<(), Reject> {
        let trail = self.trail(shard);
        self.take(&AuditEntry::Trail(trail))?;
        self.chains[shard].shown = self.chains[shard].headers.len();
        Ok(())
    }

    /// Runs a plan, shows all of it, and shows another block of each, behind which nothing is in flight.
    fn run(&mut self, mut plan: Plan) {
        self.build(&plan.blocks);
        plan.blocks.clear();
        (0..SHARDS).for_each(|shard| self.show(shard).unwrap());
        plan.rest();
        self.build(&plan.blocks);
        (0..SHARDS).for_each(|shard| self.show(shard).unwrap());
    }

    fn flaws(&self) -> Vec<Flaw> {
        findings(&mut View::new(&self.state)).into_iter().map(|found| found.flaw).collect()
    }

    fn status(&self) -> AuditStatus {
        AuditStatus::read(&mut View::new(&self.state))
    }

    fn release(&mut self, org: u16, salt: u8, held: Held) -> Result<CommandOutcome, Reject> {
        let (cluster, until) = (self.genesis.cluster_id(), TimeMs(NOW + 60_000));
        let command = BeaconCommand::ReleaseQuarantine(held);
        let signed = SignedCommand::sign(&cluster, &command, OrgId(org), [salt; 16], until, &admin(org));
        let mut result = Err(Reject::Storage);
        let genesis = &self.genesis;
        self.state = settle(&self.state, |view| {
            let executed = execute_command(view, &at(genesis, NOW), &signed.encode());
            result = executed.map(|executed| executed.outcome).map_err(|refused| refused.reject);
        });
        result
    }

    /// A majority releases.
    fn release_by_two(&mut self, salt: u8, held: Held) {
        assert_eq!(self.release(1, salt, held), Ok(CommandOutcome::Pending { approvals: 1, needed: 2 }));
        assert_eq!(self.release(2, salt, held), Ok(CommandOutcome::Applied));
    }

    fn twice(&self, height: u64) -> AuditEntry {
        let [first, second] = [1, 2].map(|root| certified(&self.genesis, group(0), height, root));
        AuditEntry::Twice(Twice::of(first, second))
    }

    fn divergent(&self, node: NodeId, height: u64) -> AuditEntry {
        let own = certified(&self.genesis, group(0), height, 8).header;
        let theirs = certified(&self.genesis, group(0), height, 9);
        AuditEntry::Divergent(Divergent::sign(own, node, &node_key(node.0), theirs))
    }
}

#[test]
fn a_trail_moves_the_audit_on_and_its_flows_add_up() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.pay(0, 1, 1, 30);
    plan.pay(1, 2, 1, 10);
    plan.pay(2, 0, 1, 4);
    world.run(plan);
    assert_eq!(world.flaws(), []);
    let status = world.status();
    assert!(status.sound() && status.transits.is_empty());
    for shard in 0..SHARDS {
        let audit = audited(&mut View::new(&world.state), group(shard)).unwrap();
        let last = world.chains[shard].headers.last().unwrap();
        assert_eq!((audit.height, audit.header_hash), (last.height, last.hash()));
        assert_eq!(audit.compared, Some(last.height), "{shard}");
    }
    assert_eq!(status.groups.len(), 4, "also the shard that has shown nothing");
    assert!(alarms(&mut View::new(&world.state)).is_empty());
}

#[test]
fn what_is_in_flight_is_shown_and_not_held_against_anybody() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.pay(0, 1, 1, 30);
    // The payee's block is not there yet.
    let arrival = plan.blocks.pop().unwrap();
    world.build(&plan.blocks);
    (0..SHARDS).for_each(|shard| world.show(shard).unwrap());
    let [transit] = &world.status().transits[..] else { panic!("one amount is on its way") };
    assert_eq!((transit.from, transit.to, transit.exported, transit.imported), (group(0), group(1), 30, 0));
    assert_eq!(world.flaws(), []);
    assert_eq!(audited(&mut View::new(&world.state), group(1)).unwrap().compared, None);
    world.build(&[arrival]);
    world.show(1).unwrap();
    assert!(world.status().transits.is_empty());
    // The shard that had given it is compared at its end now, too, though it shows nothing more.
    for shard in [0, 1] {
        let audit = audited(&mut View::new(&world.state), group(shard)).unwrap();
        assert_eq!(audit.compared, Some(audit.height), "{shard}");
    }
}

/// Every way in which a trail is refused. None leaves a trace.
#[test]
fn a_trail_that_proves_nothing_is_refused() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.rest();
    plan.rest();
    world.build(&plan.blocks);
    let genesis = world.genesis.clone();
    let good = world.trail(0);
    let with = |change: &dyn Fn(&mut Trail)| {
        let mut trail = good.clone();
        change(&mut trail);
        trail
    };
    let resigned = |trail: &mut Trail| trail.certificate = certify(&genesis, trail.certificate.header.clone());
    let relinked = |trail: &mut Trail| {
        trail.certificate.header.parents = vec![trail.headers.last().unwrap().hash()];
        resigned(trail);
    };
    let long = vec![good.headers[0].clone(); AUDIT_TRAIL_BLOCKS_MAX];
    let cases: Vec<(&str, Trail, Reject)> = vec![
        (
            "another cluster",
            with(&|trail| trail.certificate.header.cluster = ClusterId::default()),
            Reject::WrongCluster,
        ),
        ("no start", with(&|trail| drop(trail.headers.remove(0))), Reject::AuditGap),
        ("a hole", with(&|trail| drop(trail.headers.remove(1))), Reject::AuditForm),
        ("another parent", with(&|trail| trail.headers[1].parents = vec![Hash32::ZERO]), Reject::AuditForm),
        ("no parent", with(&|trail| trail.headers[1].parents.clear()), Reject::AuditForm),
        ("another group", with(&|trail| trail.headers[1].group = group(1)), Reject::AuditForm),
        ("the end of numbers", with(&|trail| trail.headers[0].height = Height(u64::MAX)), Reject::AuditForm),
        ("time goes back", with(&|trail| trail.headers[1].time_ms = TimeMs(0)), Reject::AuditForm),
        ("too long", with(&|trail| trail.headers.clone_from(&long)), Reject::AuditForm),
        ("of the beacon", with(&|trail| trail.certificate.header.group = GroupId::BEACON), Reject::AuditForm),
        ("version", with(&|trail| trail.version = 9), Reject::AuditForm),
        (
            "other streams",
            with(&|trail| trail.outbox.push(StreamLeaf { peer: group(1), next_seq: 1, head: Hash32::ZERO })),
            Reject::AuditForm,
        ),
        ("too few signatures", with(&|trail| trail.certificate.signatures.truncate(1)), Reject::AuditForm),
        (
            "changed after it was signed",
            with(&|trail| trail.certificate.header.state_root = Hash32([9; 32])),
            Reject::AuditForm,
        ),
        (
            "a committee that nobody knows",
            with(&|trail| {
                let before = trail.headers.last_mut().unwrap();
                before.next_committee_hash = Hash32([9; 32]);
                trail.certificate.header.committee_hash = Hash32([9; 32]);
                relinked(trail);
            }),
            Reject::CommitteeUnknown,
        ),
        (
            "a committee that was not handed over to",
            with(&|trail| {
                trail.headers.last_mut().unwrap().next_committee_hash = Hash32([9; 32]);
                relinked(trail);
            }),
            Reject::AuditForm,
        ),
    ];
    for (what, trail, reject) in cases {
        let before = world.state.clone();
        assert_eq!(world.take(&AuditEntry::Trail(trail)), Err(reject), "{what}");
        assert_eq!(world.state, before, "{what}");
    }
    world.take(&AuditEntry::Trail(good.clone())).unwrap();
    let before = world.state.clone();
    assert_eq!(world.take(&AuditEntry::Trail(good)), Err(Reject::AuditGap), "it was taken");
    assert_eq!(world.state, before);
}

#[test]
fn what_a_shard_makes_up_puts_it_into_quarantine() {
    for (opened, raised, name) in [(0, 1, "unbalanced"), (5, 5, "discontinuous")] {
        let mut world = World::new();
        let mut plan = Plan::default();
        plan.mint(0, 1, 100);
        plan.mint(0, 1, 1);
        let line = &mut plan.blocks[1].lines[0];
        line.opening += opened;
        line.closing += raised;
        world.build(&plan.blocks);
        world.show(0).unwrap();
        assert_eq!(world.flaws().iter().map(Flaw::name).collect::<Vec<_>>(), [name]);
        let view = ClusterView::read(&world.state).unwrap();
        assert_eq!(view.quarantined, [group(0)]);
        assert!(view.well_formed());
        assert!(!world.status().sound());
        assert!(!alarms(&mut View::new(&world.state)).is_empty());
        // The others go on, and so does the audit of this one.
        world.show(1).unwrap();
        plan.blocks.clear();
        plan.rest();
        world.build(&plan.blocks);
        world.show(0).unwrap();
    }
}

#[test]
fn what_one_shard_gives_and_another_gets_are_compared() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.pay(0, 1, 1, 30);
    // The payee's header says five more, and its own books agree with that.
    let line = &mut plan.blocks.last_mut().unwrap().lines[0];
    (line.imported[0].1, line.closing) = (35, 35);
    world.run(plan);
    let differ = Flaw::FlowsDiffer { peer: group(1), asset: asset(1), exported: 30, imported: 35 };
    assert_eq!(world.flaws(), [differ]);
    assert!(ClusterView::read(&world.state).unwrap().quarantined.is_empty(), "nobody knows which of the two is wrong");
}

/// What a channel moves is sealed. What shards say of it is not.
#[test]
fn a_channel_brings_back_no_more_than_shards_have_given_it() {
    const CHANNEL: GroupId = GroupId::channel(4);
    for (back, found) in [(30, false), (31, true)] {
        let mut world = World::new();
        let mut plan = Plan::default();
        plan.mint(0, 1, 100);
        let lines = plan.line(0, 1, |line| line.exported = vec![(CHANNEL, 30)]);
        plan.blocks.push(Block { lines, ..Block::default() });
        let lines = plan.line(1, 1, |line| line.imported = vec![(CHANNEL, back)]);
        plan.blocks.push(Block { shard: 1, lines, ..Block::default() });
        world.chains[0].outs.entry(CHANNEL).or_default().push(&[1]);
        world.chains[1].ins.entry(CHANNEL).or_default().push(&[2]);
        world.build(&plan.blocks);
        // Of what has come back nobody has shown yet where it is from.
        world.show(1).unwrap();
        assert_eq!(world.flaws(), []);
        let end = |leaf: StreamLeaf| StreamEnd { version: AUDIT_VERSION, next_seq: leaf.next_seq, head: leaf.head };
        let given = end(world.chains[0].outs[&CHANNEL].leaf(CHANNEL));
        let returned = end(world.chains[1].ins[&CHANNEL].leaf(CHANNEL));
        // As a trail of the channel leaves it.
        world.state = settle(&world.state, |view| {
            view.store(took_key(CHANNEL, group(0)), &given);
            view.store(sent_key(group(1), CHANNEL), &returned);
        });
        world.show(0).unwrap();
        let overdrawn = Flaw::ChannelOverdrawn { asset: asset(1), given: 30, returned: back };
        assert_eq!(world.flaws(), if found { vec![overdrawn] } else { vec![] });
        let named = findings(&mut View::new(&world.state)).iter().all(|found| found.group == CHANNEL);
        assert!(named && ClusterView::read(&world.state).unwrap().quarantined.is_empty());
    }
}

#[test]
fn other_mail_than_was_sent_is_found() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.pay(0, 1, 1, 30);
    plan.blocks.last_mut().unwrap().takes[0].1 = 99;
    world.run(plan);
    assert_eq!(world.flaws(), [Flaw::OtherMail { peer: group(0) }]);
}

#[test]
fn a_chain_that_leaves_the_checkpoint_aside_puts_its_group_into_quarantine() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.rest();
    world.build(&plan.blocks);
    let genesis = world.genesis.clone();
    let other = certified(&genesis, group(0), 1, 7);
    world.state = settle(&world.state, |view| {
        assert_eq!(apply_checkpoint(view, &at(&genesis, NOW), &other), Ok(true));
    });
    assert_eq!(world.take(&AuditEntry::Trail(world.trail(0))), Ok(()));
    assert_eq!(ClusterView::read(&world.state).unwrap().quarantined, [group(0)]);
    assert_eq!(audited(&mut View::new(&world.state), group(0)), None, "neither of the two is believed");
    let [kept] = &evidence::kept(&mut View::new(&world.state))[..] else { panic!("one proof") };
    assert_eq!(kept.proof.name(), "fork");
}

/// Where a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Held,
    Released,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Evidence about block 5.
    Old,
    /// Evidence about block 9.
    New,
    /// One of three organisations releases.
    One,
    /// Two of them do.
    Two,
}

/// Every cell of the table of quarantines, for groups and for nodes.
#[test]
fn the_table_of_quarantines() {
    use Event::{New, Old, One, Two};
    use Mark::{Held as IsHeld, None as Nothing, Released};
    let refused = Err(Reject::NotQuarantined);
    let cells: [(Mark, Event, Mark, Result<(), Reject>); 12] = [
        (Nothing, Old, IsHeld, Ok(())),
        (Nothing, New, IsHeld, Ok(())),
        (Nothing, One, Nothing, refused),
        (Nothing, Two, Nothing, refused),
        (IsHeld, Old, IsHeld, Ok(())),
        (IsHeld, New, IsHeld, Ok(())),
        (IsHeld, One, IsHeld, Ok(())),
        (IsHeld, Two, Released, Ok(())),
        (Released, Old, Released, Ok(())),
        (Released, New, IsHeld, Ok(())),
        (Released, One, Released, refused),
        (Released, Two, Released, refused),
    ];
    let member = genesis().committee(group(0)).unwrap().members[0].node;
    for node in [None, Some(member)] {
        let held = Held { group: group(0), node };
        for (from, event, to, expected) in cells {
            let mut world = World::new();
            let evidence = |world: &World, height| match node {
                None => world.twice(height),
                Some(node) => world.divergent(node, height),
            };
            if from != Nothing {
                let first = evidence(&world, 5);
                world.take(&first).unwrap();
            }
            if from == Released {
                world.release_by_two(1, held);
            }
            let result = match event {
                Old => world.take(&evidence(&world, 5)),
                New => world.take(&evidence(&world, 9)),
                One => world.release(1, 2, held).map(drop),
                Two => world.release(1, 2, held).and_then(|_| world.release(2, 2, held)).map(drop),
            };
            assert_eq!(result, expected, "{held:?} {from:?} {event:?}");
            let view = &mut View::new(&world.state);
            let known = match node {
                None => quarantine::of_group(view, group(0)).map(|mark| mark.holds()),
                Some(node) => quarantine::of_node(view, node, group(0)).map(|mark| mark.holds()),
            };
            let now = match known {
                None => Nothing,
                Some(true) => IsHeld,
                Some(false) => Released,
            };
            assert_eq!(now, to, "{held:?} {from:?} {event:?}");
            let barred = removals(view).iter().any(|removal| removal.node == member);
            assert_eq!(barred, node.is_some() && to == IsHeld, "{held:?} {from:?} {event:?}");
            let view = ClusterView::read(&world.state).unwrap();
            assert_eq!(view.quarantined.contains(&group(0)), node.is_none() && to == IsHeld);
        }
    }
}

#[test]
fn evidence_that_proves_nothing_stops_nobody() {
    let mut world = World::new();
    let genesis = world.genesis.clone();
    let of = |height, root| certified(&genesis, group(0), height, root);
    let mut few = of(5, 2);
    few.signatures.truncate(1);
    let mut former = of(5, 2);
    former.header.committee_hash = Hash32([9; 32]);
    let twice = |first, second| AuditEntry::Twice(Twice::of(first, second));
    let member = genesis.committee(group(0)).unwrap().members[0].node;
    let mut ids = genesis.nodes.iter().map(|node| node.id);
    let outside = ids.find(|id| genesis.committee(group(0)).unwrap().index_of(*id).is_none()).unwrap();
    let confess = |header: Header, node: NodeId, signer: u32, certificate| {
        AuditEntry::Divergent(Divergent::sign(header, node, &node_key(signer), certificate))
    };
    let mut elsewhere = of(5, 1);
    elsewhere.header.cluster = ClusterId::default();
    for (what, entry, reject) in [
        ("the same twice", twice(of(5, 1), of(5, 1)), Reject::AuditForm),
        ("two heights", twice(of(5, 1), of(6, 2)), Reject::AuditForm),
        ("too few signatures", twice(of(5, 1), few), Reject::AuditForm),
        ("another committee", twice(former.clone(), former), Reject::CommitteeUnknown),
        ("another cluster", twice(elsewhere, of(5, 2)), Reject::WrongCluster),
        ("it has what was certified", confess(of(5, 1).header, member, member.0, of(5, 1)), Reject::AuditForm),
        ("another block", confess(of(6, 2).header, member, member.0, of(5, 1)), Reject::AuditForm),
        ("somebody else signed", confess(of(5, 2).header, member, outside.0, of(5, 1)), Reject::AuditForm),
        ("it is no member", confess(of(5, 2).header, outside, outside.0, of(5, 1)), Reject::AuditForm),
    ] {
        let before = world.state.clone();
        assert_eq!(world.take(&entry), Err(reject), "{what}");
        assert_eq!(world.state, before, "{what}");
    }
}

#[test]
fn two_certified_checkpoints_put_the_group_into_quarantine_and_the_proofs_kept_are_few() {
    let mut world = World::new();
    let genesis = world.genesis.clone();
    for root in 1..20 {
        let certificate = certified(&genesis, group(0), 5, root);
        world.state = settle(&world.state, |view| {
            apply_checkpoint(view, &at(&genesis, NOW), &certificate).unwrap();
        });
    }
    assert_eq!(ClusterView::read(&world.state).unwrap().quarantined, [group(0)]);
    for height in 6..40 {
        world.release_by_two(u8::try_from(height).unwrap(), Held { group: group(0), node: None });
        world.take(&world.twice(height)).unwrap();
    }
    assert_eq!(evidence::kept(&mut View::new(&world.state)).len(), AUDIT_PROOFS_MAX);
}

#[test]
fn a_report_proves_offline_what_it_says_of_signatures() {
    let mut world = World::new();
    let member = genesis().committee(group(0)).unwrap().members[0].node;
    world.take(&world.twice(5)).unwrap();
    world.take(&world.divergent(member, 7)).unwrap();
    let report = AuditReport::read(&mut View::new(&world.state), world.genesis.cluster_id());
    let file = report.to_file();
    assert_eq!(AuditReport::from_file(&file), Ok(report.clone()));
    let shown = report.verify(&world.genesis).unwrap();
    let mut kinds: Vec<&str> = shown.iter().map(|shown| shown.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["certified_twice", "divergent"]);
    assert!(shown.iter().all(|shown| shown.of_genesis && shown.group == group(0)));

    let mut forged = report.clone();
    forged.proofs[0].committee.members[0].key = node_key(77).public();
    assert!(matches!(forged.verify(&world.genesis), Err(ReportError::Proof(_))));
    let mut other = report;
    other.cluster = ClusterId::default();
    assert!(matches!(other.verify(&world.genesis), Err(ReportError::OtherCluster { .. })));
    for bad in [&file[1..], &file[..file.len() - 1], &[]] {
        assert!(matches!(AuditReport::from_file(bad), Err(ReportError::Malformed(_))));
    }
}

#[test]
fn entries_of_the_audit_are_bounded() {
    let world = World::new();
    let entry = world.twice(5);
    assert_eq!(AuditEntry::decode(&entry.encode()), Ok(entry.clone()));
    let mut longer = entry.encode();
    longer.push(0);
    assert_eq!(AuditEntry::decode(&longer), Err(Reject::Malformed));
    assert_eq!(AuditEntry::decode(&vec![0; beacon::limits::AUDIT_BYTES_MAX + 1]), Err(Reject::BodyTooLarge));
}

/// A payment of one of two assets between two shards, or one minted where both are the same.
fn acts() -> impl Strategy<Value = Vec<(usize, usize, u8, u128)>> {
    prop::collection::vec((0..SHARDS, 0..SHARDS, 1u8..3, 1u128..1_000), 1..20)
}

fn planned(acts: &[(usize, usize, u8, u128)]) -> Plan {
    let mut plan = Plan::default();
    for (from, to, number, amount) in acts {
        match from == to {
            true => plan.mint(*from, *number, *amount),
            false => plan.pay(*from, *to, *number, *amount),
        }
    }
    plan
}

/// Has a shard book more than has come to it, at one of the arrivals. Says whether there is one.
fn misbook(plan: &mut Plan, place: prop::sample::Index, by: u128) -> bool {
    let arrivals: Vec<usize> = (0..plan.blocks.len()).filter(|at| !plan.blocks[*at].takes.is_empty()).collect();
    if arrivals.is_empty() {
        return false;
    }
    let at = arrivals[place.index(arrivals.len())];
    let (shard, asset) = (plan.blocks[at].shard, plan.blocks[at].lines[0].asset);
    plan.blocks[at].lines[0].imported[0].1 += by;
    plan.blocks[at].lines[0].closing += by;
    // All that follows in this shard is consistent with it.
    for block in plan.blocks[at + 1..].iter_mut().filter(|block| block.shard == shard) {
        for line in block.lines.iter_mut().filter(|line| line.asset == asset) {
            line.opening += by;
            line.closing += by;
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn flows_that_balance_pass(acts in acts()) {
        let mut world = World::new();
        world.run(planned(&acts));
        prop_assert_eq!(world.flaws(), []);
        prop_assert!(world.status().sound() && world.status().transits.is_empty());
        for shard in 0..SHARDS {
            let audit = audited(&mut View::new(&world.state), group(shard)).unwrap();
            prop_assert_eq!(audit.compared, Some(audit.height));
        }
    }

    #[test]
    fn any_single_amount_that_was_altered_is_found(
        acts in acts(),
        place in any::<prop::sample::Index>(),
        field in 0..5usize,
        by in 1u128..1_000,
    ) {
        let mut plan = planned(&acts);
        let touched: Vec<usize> = (0..plan.blocks.len()).filter(|at| !plan.blocks[*at].lines.is_empty()).collect();
        let line = &mut plan.blocks[touched[place.index(touched.len())]].lines[0];
        let amount = match field {
            0 => &mut line.opening,
            1 => &mut line.closing,
            2 => &mut line.minted,
            3 => &mut line.burned,
            _ => match line.imported.first_mut().or(line.exported.first_mut()) {
                Some((_, amount)) => amount,
                None => &mut line.minted,
            },
        };
        *amount += by;
        let mut world = World::new();
        world.run(plan);
        prop_assert!(!world.flaws().is_empty());
    }

    #[test]
    fn an_amount_that_one_shard_books_otherwise_than_the_other_is_found(
        acts in acts(),
        place in any::<prop::sample::Index>(),
        by in 1u128..1_000,
    ) {
        let mut plan = planned(&acts);
        prop_assume!(misbook(&mut plan, place, by));
        let mut world = World::new();
        world.run(plan);
        let differ = world.flaws().iter().any(|flaw| matches!(flaw, Flaw::FlowsDiffer { .. }));
        prop_assert!(differ, "{:?}", world.flaws());
    }
}
