//! Epochs: what counts in which phase, the seed that follows, the deals of seats, and what proves all of it.

use std::collections::BTreeMap;

use beacon::assign::{Candidate, Seated, redeal};
use beacon::command::BeaconCommand;
use beacon::epochs::{
    self, Contribution, Deal, EPOCH_PROOF_FORMAT, EpochRecord, Fate, Part, Phase, apply_contribution, commitment_of,
    next_deadline, step_towards,
};
use beacon::limits::EPOCHS_KEPT;
use beacon::machine::CommandOutcome;
use beacon::risk::of_lot;
use beacon::seating::Why;
use beacon::seats::{apply_ready, joining};
use beacon::{Constraints, EpochBook, EpochPolicy, EpochProof, GroupSeats, assign, registry};
use cross_shard::message::Message;
use ledger::Engine;
use ledger::committee::{Committee, Member};
use ledger::crypto::SecretKey;
use ledger::genesis::NodeInfo;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{ClusterId, Epoch, GroupId, Height, Incarnation, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::view::View;
use proptest::prelude::*;

use crate::nodes::World;
use crate::proof::{committees, signed_by, step};
use crate::seats::{readiness, run};
use crate::support::{at, certified, dealt, node, node_key, settle};

const LENGTH_MS: u64 = 10_000;
const POLICY: EpochPolicy = EpochPolicy { length_ms: LENGTH_MS, ..EpochPolicy::DEFAULT };

type Mail = Vec<(GroupId, Message)>;

fn secret(node: u32, epoch: u64) -> Hash32 {
    sha256(&[&node.to_be_bytes()[..], &epoch.to_be_bytes()[..]].concat())
}

impl World {
    fn agree(&mut self, command: &BeaconCommand) {
        let waits = CommandOutcome::Pending { approvals: 1, needed: 2 };
        assert_eq!(self.command(1, command).unwrap().outcome, waits);
        assert_eq!(self.command(2, command).unwrap().outcome, CommandOutcome::Applied);
    }

    fn with_epochs() -> Self {
        let mut world = Self::new();
        world.agree(&BeaconCommand::SetEpochs(POLICY));
        world
    }

    pub fn book(&self) -> EpochBook {
        EpochBook::read(&mut View::new(&self.state))
    }

    /// The members of the beacon.
    fn members(&self) -> Vec<u32> {
        let beacon = self.genesis.committee(GroupId::BEACON).unwrap();
        beacon.members.iter().map(|member| member.node.0).collect()
    }

    fn turn(&mut self) -> Mail {
        let mut mail = Mail::new();
        self.state = settle(&self.state, |view| mail = epochs::turn(view, &at(&self.genesis, self.now)));
        mail
    }

    fn hear(&mut self, given: &Contribution) -> Result<bool, Reject> {
        let mut taken = Err(Reject::Storage);
        let next = settle(&self.state, |view| taken = apply_contribution(view, &at(&self.genesis, self.now), given));
        assert!(taken == Ok(true) || next == self.state, "what counts for nothing leaves no trace");
        self.state = next;
        taken
    }

    fn give(&mut self, by: u32, epoch: u64, part: Part) -> Result<bool, Reject> {
        let given = Contribution::sign(self.genesis.cluster_id(), epoch, NodeId(by), part, &node_key(by));
        self.hear(&given)
    }

    fn commitment(&self, by: u32, epoch: u64) -> Part {
        Part::Commitment(commitment_of(&self.genesis.cluster_id(), epoch, NodeId(by), &secret(by, epoch)))
    }

    /// Goes to the end of the epoch that runs, in which these commit themselves and those reveal. What is mailed then.
    fn pass(&mut self, committing: &[u32], revealing: &[u32]) -> Mail {
        let round = self.book().round.unwrap();
        for by in committing {
            assert_eq!(self.give(*by, round.epoch, self.commitment(*by, round.epoch)), Ok(true));
        }
        self.now = round.reveal_ms.0;
        for by in revealing {
            assert_eq!(self.give(*by, round.epoch, Part::Secret(secret(*by, round.epoch))), Ok(true));
        }
        self.now = round.ends_ms.0;
        self.turn()
    }

    pub fn pass_all(&mut self) -> Mail {
        let members = self.members();
        self.pass(&members, &members)
    }

    fn last(&self) -> EpochRecord {
        self.book().records.last().unwrap().clone()
    }

    /// Brings the proof that what is prepared in a group can take over.
    fn ready(&mut self, coming: &Committee) -> Result<(), Reject> {
        let current = self.view().committee(coming.group).unwrap().clone();
        let ready = readiness(&self.genesis, &current, coming, 5);
        let at = at(&self.genesis, self.now);
        run(&mut self.state, |view| apply_ready(view, &at, &ready)).map(drop)
    }
}

fn fates(record: &EpochRecord) -> Vec<Fate> {
    record.entrants.iter().map(epochs::Entrant::fate).collect()
}

#[test]
fn every_contribution_in_every_phase() {
    use Reject::{ContributionForm, ContributionMismatch, ContributionPhase, ContributionTwice};
    let by = World::new().members()[0];
    let other = Part::Commitment(Hash32([9; 32]));
    // Before: nothing, a commitment, a commitment and the secret. Then what a block in this phase makes of it.
    for (phase, before, results) in [
        (Phase::Commit, 0, [Ok(true), Ok(true), Err(ContributionPhase), Err(ContributionPhase)]),
        (Phase::Commit, 1, [Ok(false), Err(ContributionTwice), Err(ContributionPhase), Err(ContributionPhase)]),
        (
            Phase::Reveal,
            0,
            [Err(ContributionPhase), Err(ContributionPhase), Err(ContributionMismatch), Err(ContributionMismatch)],
        ),
        (Phase::Reveal, 1, [Err(ContributionPhase), Err(ContributionPhase), Ok(true), Err(ContributionMismatch)]),
        (Phase::Reveal, 2, [Err(ContributionPhase), Err(ContributionPhase), Ok(false), Err(ContributionMismatch)]),
        (Phase::Over, 0, [Err(ContributionPhase); 4]),
        (Phase::Over, 1, [Err(ContributionPhase); 4]),
        (Phase::Over, 2, [Err(ContributionPhase); 4]),
    ] {
        for (at, expected) in results.into_iter().enumerate() {
            let mut world = World::with_epochs();
            let round = world.book().round.unwrap();
            let parts = [world.commitment(by, 1), other, Part::Secret(secret(by, 1)), Part::Secret(Hash32([8; 32]))];
            if before > 0 {
                world.give(by, 1, parts[0]).unwrap();
            }
            if before > 1 {
                world.now = round.reveal_ms.0;
                world.give(by, 1, parts[2]).unwrap();
            }
            world.now = match phase {
                Phase::Commit => round.reveal_ms.0 - 1,
                Phase::Reveal => round.ends_ms.0 - 1,
                Phase::Over => round.ends_ms.0,
            };
            assert_eq!(round.phase_at(TimeMs(world.now)), phase);
            assert_eq!(world.give(by, 1, parts[at]), expected, "{phase:?}, after {before}, part {at}");
        }
    }
    // Who, and for what.
    let mut world = World::with_epochs();
    let (cluster, part) = (world.genesis.cluster_id(), world.commitment(by, 1));
    let good = Contribution::sign(cluster, 1, NodeId(by), part, &node_key(by));
    let outside = world.outside().id;
    let sign = |epoch, node: NodeId, key: &SecretKey| Contribution::sign(cluster, epoch, node, part, key);
    for (what, given, expected) in [
        ("another key", sign(1, NodeId(by), &node_key(77)), ContributionForm),
        ("altered", Contribution { part: other, ..good.clone() }, ContributionForm),
        ("another version", Contribution { version: 9, ..good.clone() }, ContributionForm),
        ("no member of the beacon", sign(1, outside, &node_key(outside.0)), ContributionForm),
        ("the epoch before", sign(0, NodeId(by), &node_key(by)), ContributionPhase),
        ("the epoch after", sign(2, NodeId(by), &node_key(by)), ContributionPhase),
        ("foreign", Contribution { cluster: ClusterId(Hash32([1; 32])), ..good.clone() }, Reject::WrongCluster),
    ] {
        assert_eq!(world.hear(&given), Err(expected), "{what}");
    }
    assert_eq!(world.hear(&good), Ok(true));
    assert_eq!(World::new().hear(&good), Err(ContributionForm), "there are no epochs");
}

#[test]
fn a_seed_follows_from_the_one_before_and_from_what_was_revealed() {
    let mut world = World::with_epochs();
    let members = world.members();
    let genesis_seed = world.genesis.seed;
    let deadline = |world: &World| next_deadline(&mut View::new(&world.state), TimeMs(world.now)).map(|at| at.0);
    let began = world.now;
    assert_eq!(deadline(&world), Some(began + LENGTH_MS / 2), "a block closes commitments");
    world.now = began + LENGTH_MS / 2;
    assert_eq!(deadline(&world), Some(began + LENGTH_MS), "and one the epoch");
    assert_eq!(world.turn(), []);
    world.now = began;
    world.pass_all();
    let record = world.last();
    assert_eq!((record.epoch, record.fresh, record.previous), (1, true, genesis_seed));
    assert_eq!(fates(&record), [Fate::Revealed; 3]);
    let mut bytes = b"seamark/epoch-seed/v1".to_vec();
    bytes.extend([&genesis_seed.0[..], &1u64.to_be_bytes()].concat());
    for member in &members {
        bytes.extend([&member.to_be_bytes()[..], &secret(*member, 1).0].concat());
    }
    assert_eq!(record.seed, sha256(&bytes), "anyone can compute it");
    assert_eq!((world.book().seed, registry::seed(&mut View::new(&world.state))), (record.seed, Some(record.seed)));
    assert_eq!(world.book().round.map(|round| (round.epoch, round.began_ms.0)), Some((2, began + LENGTH_MS)));
    assert!(world.view().coming.is_empty(), "nobody moves without need");

    // The order in which they come has no influence; another secret has.
    let (mut same, mut backwards) = (World::with_epochs(), World::with_epochs());
    let turned: Vec<u32> = members.iter().rev().copied().collect();
    same.pass_all();
    backwards.pass(&turned, &turned);
    assert_eq!(same.state, world.state);
    assert_eq!(backwards.last().seed, record.seed);
    world.pass_all();
    assert_ne!(world.last().seed, record.seed);
    assert_eq!(world.last().previous, record.seed);
}

#[test]
fn one_that_withholds_is_named_left_out_and_sits_the_next_epoch_out() {
    let mut world = World::with_epochs();
    let members = world.members();
    let [a, b, c] = members[..] else { panic!("three members") };
    world.pass(&members, &[a, b]);
    let record = world.last();
    assert_eq!((fates(&record), record.fresh), (vec![Fate::Revealed, Fate::Revealed, Fate::Withheld], true));
    let tally = |world: &World, node: u32| {
        let found = world.book().tallies.into_iter().find(|tally| tally.node == NodeId(node)).unwrap();
        (found.revealed, found.withheld, found.absent, found.withheld_last)
    };
    assert_eq!(tally(&world, c), (0, 1, 0, 1));
    assert_eq!(world.give(c, 2, world.commitment(c, 2)), Err(Reject::ContributionBarred));
    world.pass(&[a, b], &[a, b]);
    assert_eq!(fates(&world.last()), [Fate::Revealed, Fate::Revealed, Fate::Barred]);
    assert_eq!(tally(&world, c), (0, 1, 0, 1));
    world.pass(&members, &members);
    assert_eq!(fates(&world.last()), [Fate::Revealed; 3], "and takes part again");
    assert_eq!((tally(&world, c), tally(&world, a)), ((1, 1, 0, 1), (3, 0, 0, 0)));
    world.pass(&[a, b], &[a, b]);
    assert_eq!((fates(&world.last())[2], tally(&world, c)), (Fate::Absent, (1, 1, 1, 1)));
}

#[test]
fn with_too_few_secrets_the_seed_stays_and_nothing_is_dealt() {
    let mut world = World::with_epochs();
    let members = world.members();
    world.agree(&BeaconCommand::Rebalance);
    world.pass(&members, &members[..1]);
    let record = world.last();
    assert_eq!((record.fresh, record.deal, record.seed), (false, None, world.genesis.seed));
    assert!(world.book().deals.is_empty() && world.book().rebalance, "the deal waits for a new seed");
    // The two that withheld sit this one out: one alone makes no seed either.
    world.pass(&members[..1], &members[..1]);
    assert!(!world.last().fresh);
    world.pass_all();
    assert!(world.last().fresh && !world.book().rebalance);
}

#[test]
fn so_many_epochs_are_kept_and_a_pause_ends_one_late() {
    let mut world = World::with_epochs();
    for _ in 0..EPOCHS_KEPT + 2 {
        world.pass_all();
    }
    let book = world.book();
    let kept: Vec<u64> = book.records.iter().map(|record| record.epoch).collect();
    assert_eq!(kept, (3..=EPOCHS_KEPT as u64 + 2).collect::<Vec<_>>());
    assert_eq!(book.deals.iter().map(|deal| deal.epoch).collect::<Vec<_>>(), kept);
    world.now += 20 * LENGTH_MS;
    world.turn();
    let record = world.last();
    assert_eq!((record.epoch, record.ended_ms.0, record.fresh), (EPOCHS_KEPT as u64 + 3, world.now, false));
    assert_eq!(world.book().round.unwrap().began_ms.0, world.now);
}

#[test]
fn what_epochs_are_is_decided_by_most_organisations() {
    let mut world = World::new();
    assert_eq!(world.book().policy, EpochPolicy::DEFAULT);
    assert_eq!(world.command(1, &BeaconCommand::Rebalance), Err(Reject::EpochsOff));
    let set = |length_ms, bad_nodes, risk_max_ppb| {
        BeaconCommand::SetEpochs(EpochPolicy { length_ms, bad_nodes, risk_max_ppb, ..EpochPolicy::DEFAULT })
    };
    for (length_ms, bad, risk, expected) in [
        (3_999, 0, 0, Reject::EpochForm),
        (31 * 24 * 3_600_000, 0, 0, Reject::EpochForm),
        (LENGTH_MS, 1, 0, Reject::EpochForm),
        (LENGTH_MS, 0, 1, Reject::EpochForm),
        (LENGTH_MS, 2, 1_000_000_000, Reject::EpochForm),
        // Of five nodes two are bad: three of ten committees of three have both.
        (LENGTH_MS, 2, 299_999_999, Reject::LayoutRisk),
    ] {
        assert_eq!(world.command(1, &set(length_ms, bad, risk)), Err(expected), "{length_ms} {bad} {risk}");
    }
    world.agree(&set(LENGTH_MS, 2, 300_000_000));
    assert_eq!(world.book().round.unwrap().epoch, 1);
    let again = world.command(3, &set(LENGTH_MS, 2, 300_000_000)).unwrap();
    assert_eq!(again.outcome, CommandOutcome::Applied, "it is in force");
    // Another length counts from the next epoch on.
    world.agree(&set(2 * LENGTH_MS, 0, 0));
    let first = world.book().round.unwrap();
    assert_eq!(first.ends_ms.0 - first.began_ms.0, LENGTH_MS);
    world.pass_all();
    let second = world.book().round.unwrap();
    assert_eq!(second.ends_ms.0 - second.began_ms.0, 2 * LENGTH_MS);
    world.agree(&set(0, 0, 0));
    assert_eq!(world.book().round, None);
    assert_eq!((world.last().epoch, world.turn()), (1, vec![]), "what was kept stays");
    world.agree(&set(LENGTH_MS, 0, 0));
    assert_eq!(world.book().round.unwrap().epoch, 3, "no number is given twice");
}

/// A world in which a node takes seats with the next deal: node 3 is alone in its organisation, and has a seat everywhere.
pub fn to_rebalance() -> World {
    let mut world = World::with_epochs();
    world.command(3, &BeaconCommand::RegisterNode(node(6, 3, "zone-3"))).unwrap();
    world.agree(&BeaconCommand::Rebalance);
    world
}

#[test]
fn a_deal_is_decided_prepared_and_in_force_in_one_epoch_after_the_other() {
    let mut world = to_rebalance();
    assert!(world.view().coming.is_empty(), "nothing before the seed is known");
    let mail = world.pass_all();
    let deal = world.book().deals[0].clone();
    assert_eq!((deal.epoch, deal.even, deal.seed), (1, true, world.last().seed));
    assert_eq!(deal.moves.len(), 2, "three of five seats stay with node 3, with that in the beacon");
    let view = world.view();
    assert_eq!(mail.len(), 2);
    for (coming, (group, members)) in view.coming.iter().zip(&deal.moves) {
        let current = view.committee(*group).unwrap();
        assert_eq!((joining(current, coming), joining(coming, current)), (vec![NodeId(6)], vec![NodeId(3)]));
        assert_eq!(coming.members.iter().map(|member| member.node).collect::<Vec<_>>(), *members);
        assert_eq!(world.ready(coming), Err(Reject::EpochEarly), "prepared in epoch 2");
    }
    assert_eq!(world.pass_all(), [], "what is prepared stays prepared");
    assert_eq!(world.view().coming, view.coming);
    for coming in &view.coming {
        world.ready(coming).unwrap();
    }
    let view = world.view();
    assert!(view.coming.is_empty());
    assert_eq!(view.groups_of(NodeId(6)).count(), 2);
    let lives = world.lives();
    let mut seats = lives.seats.iter().flat_map(|group| &group.seats).filter(|seat| seat.node == NodeId(6));
    assert!(seats.all(|seat| (seat.from, seat.why) == (Some(NodeId(3)), Why::Deal(1))), "{:?}", lives.seats);
    world.pass_all();
    assert!(world.book().targets.is_empty() && world.view().coming.is_empty(), "it is so, and nobody moves again");
}

#[test]
fn a_need_comes_before_a_deal_and_waits_for_no_epoch() {
    let mut world = to_rebalance();
    world.pass_all();
    let coming = world.view().coming[0].clone();
    // Node 3 is drained: exactly what the deal has prepared is needed by now.
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 0 }).unwrap();
    let kept = world.view().coming.into_iter().find(|plan| plan.group == coming.group).unwrap();
    assert_eq!(kept, coming);
    world.ready(&coming).unwrap();
    assert!(world.view().committee(coming.group).unwrap().index_of(NodeId(3)).is_none());
}

#[test]
fn without_epochs_what_a_deal_wants_is_given_up() {
    let mut world = to_rebalance();
    world.pass_all();
    let plans = world.view().coming.len();
    let off = BeaconCommand::SetEpochs(EpochPolicy::DEFAULT);
    world.command(1, &off).unwrap();
    let executed = world.command(2, &off).unwrap();
    assert_eq!((executed.mail.len(), world.view().coming.len()), (plans, 0));
    assert!(world.book().targets.is_empty());
}

#[test]
fn a_step_moves_as_many_seats_as_are_tolerated_and_within_an_organisation_first() {
    let nodes = dealt(12, 3);
    let committee = |ids: &[u32]| {
        let member = |id: &u32| {
            let info = nodes.iter().find(|node| node.id.0 == *id).unwrap();
            Member { node: info.id, org: info.org, key: info.key }
        };
        Committee::majority(GroupId::shard(0), Incarnation(0), Epoch(0), ids.iter().map(member).collect())
    };
    let next = |ids: &[u32], target: &[u32], nodes: &[NodeInfo]| {
        let target: Vec<NodeId> = target.iter().copied().map(NodeId).collect();
        let members = step_towards(&committee(ids), &target, nodes)?;
        Some(members.iter().map(|member| member.node.0).collect::<Vec<_>>())
    };
    assert_eq!(next(&[1, 2, 3], &[1, 2, 3], &nodes), None);
    // Node 4 is of the organisation of 1, 5 of that of 2, 6 of that of 3.
    assert_eq!(next(&[1, 2, 3], &[4, 5, 6], &nodes), Some(vec![2, 3, 4]));
    assert_eq!(next(&[2, 3, 4], &[4, 5, 6], &nodes), Some(vec![3, 4, 5]));
    assert_eq!(next(&[1, 2, 3], &[1, 5, 6], &nodes), Some(vec![1, 3, 5]));
    assert_eq!(next(&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 10], &nodes), Some(vec![3, 4, 5, 7, 8]), "five tolerate two");
    let mut drained = nodes.clone();
    drained[3].capacity = 0;
    assert_eq!(next(&[1, 2, 3], &[2, 3, 4], &drained), None, "nobody who is wanted may come");
}

fn tree_of(world: &World) -> StateTree {
    let leaf = |(key, value): (&Vec<u8>, &bytes::Bytes)| Some((schema::tree_position(key)?, value_hash(value)));
    let mut leaves: Vec<_> = world.state.iter().filter_map(leaf).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    StateTree::from_sorted(BitPrefix::ROOT, leaves).unwrap()
}

/// The proof of a world's epochs, under a header that the beacon certified.
fn proof_of(world: &World) -> EpochProof {
    let mut tree = tree_of(world);
    let mut certificate = certified(&world.genesis, GroupId::BEACON, 9, 0);
    certificate.header.state_root = Hash32(tree.root());
    let digest = certificate.header.hash();
    for (node, signature) in &mut certificate.signatures {
        *signature = node_key(node.0).sign(&digest);
    }
    let path = tree.prove(&schema::tree_position(&registry::epochs_key()).unwrap()).unwrap();
    let book = world.book();
    EpochProof {
        version: EPOCH_PROOF_FORMAT,
        records: book.records,
        deals: book.deals,
        path,
        certificate,
        committee: world.genesis.committee(GroupId::BEACON).unwrap().clone(),
        handovers: Vec::new(),
    }
}

#[test]
fn anyone_recomputes_seeds_and_seats_and_finds_what_was_altered() {
    let mut world = to_rebalance();
    world.pass_all();
    world.pass_all();
    let good = proof_of(&world);
    let cluster = world.genesis.cluster_id();
    let beacon = world.genesis.committee(GroupId::BEACON).unwrap();
    assert_eq!(good.verify(&cluster, beacon), Ok(Height(9)));
    assert_eq!(EpochProof::of_file(&good.to_file()), Ok(good.clone()));
    let mut file = good.to_file();
    file[20] ^= 1;
    for bad in [file, good.to_file()[1..].to_vec(), Vec::new(), good.encode()] {
        assert_eq!(EpochProof::of_file(&bad).unwrap_err().code(), "epoch_malformed");
    }
    type Spoil = fn(&mut EpochProof);
    // What is altered in a deal is altered in the record, too, as far as that is what names it.
    fn renamed(proof: &mut EpochProof, change: fn(&mut Deal)) {
        change(&mut proof.deals[0]);
        proof.records[0].deal = Some(proof.deals[0].hash());
    }
    let table: [(&str, Spoil); 18] = [
        ("epoch_secret", |p| p.records[0].entrants[0].secret = Some(Hash32([1; 32]))),
        ("epoch_secret", |p| p.records[0].entrants[0].commitment = None),
        ("epoch_secret", |p| p.records[0].entrants[0].barred = true),
        ("epoch_seed", |p| p.records[0].entrants[0].secret = None),
        ("epoch_seed", |p| p.records[0].previous = Hash32([1; 32])),
        ("epoch_seed", |p| p.records[1].seed = Hash32([1; 32])),
        ("epoch_seed", |p| p.records[1].needed = 4),
        ("epoch_record_form", |p| p.records[0].entrants.reverse()),
        ("epoch_record_form", |p| p.records.reverse()),
        ("epoch_deal", |p| p.records[0].deal = None),
        ("epoch_deal", |p| drop(p.deals.remove(0))),
        ("epoch_deal", |p| p.deals[0].nodes[0].capacity = 7),
        ("epoch_assignment", |p| renamed(p, |deal| deal.moves.clear())),
        ("epoch_assignment", |p| renamed(p, |deal| deal.moves[0].1[0] = NodeId(5))),
        ("epoch_assignment", |p| renamed(p, |deal| deal.even = false)),
        ("epoch_assignment", |p| renamed(p, |deal| deal.nodes[5].capacity = 0)),
        ("epoch_not_in_state", |p| p.records[1].ended_ms.0 += 1),
        ("epoch_not_in_state", |p| {
            p.records.remove(0);
            p.deals.remove(0);
        }),
    ];
    for (at, (code, spoil)) in table.into_iter().enumerate() {
        let mut spoiled = good.clone();
        spoil(&mut spoiled);
        assert_eq!(spoiled.verify(&cluster, beacon).unwrap_err().code(), code, "case {at}");
    }
    let mut alone = good.clone();
    alone.certificate.signatures.truncate(1);
    assert_eq!(alone.verify(&cluster, beacon).unwrap_err().code(), "epoch_certificate");
    assert!(good.verify(&ClusterId(Hash32([1; 32])), beacon).is_err());
}

#[test]
fn the_genesis_is_enough_when_the_beacon_has_handed_over_since() {
    let mut world = to_rebalance();
    world.pass_all();
    let genesis = world.genesis.clone();
    let cluster = genesis.cluster_id();
    let [first, second, third] = committees(&genesis);
    let mut good = proof_of(&world);
    let root = good.certificate.header.state_root;
    good.certificate = signed_by(&genesis, &third, &third, 9, root);
    good.committee = third.clone();
    good.handovers = vec![step(&genesis, &first, &second, 5), step(&genesis, &second, &third, 8)];
    assert_eq!(good.verify(&cluster, &first), Ok(Height(9)));
    assert_eq!(EpochProof::of_file(&good.to_file()).as_ref(), Ok(&good));
    type Change<'a> = &'a dyn Fn(&mut EpochProof);
    let of = |change: Change<'_>| {
        let mut proof = good.clone();
        change(&mut proof);
        proof.verify(&cluster, &first).map_err(|error| error.code())
    };
    let wrong: [(&str, Change<'_>); 5] = [
        ("nothing leads there", &|proof| proof.handovers.clear()),
        ("a step is missing", &|proof| drop(proof.handovers.remove(0))),
        ("signed by too few", &|proof| proof.handovers[1].certificate.signatures.truncate(1)),
        ("another one shows itself", &|proof| proof.committee = first.clone()),
        ("steps go beyond it", &|proof| proof.certificate = signed_by(&genesis, &third, &third, 8, root)),
    ];
    for (what, change) in wrong {
        assert_eq!(of(change), Err("epoch_handover"), "{what}");
    }
    let other = of(&|proof| proof.certificate = signed_by(&genesis, &second, &third, 9, root));
    assert_eq!(other, Err("epoch_certificate"), "the one before certifies nothing behind its last block");
}

#[test]
fn the_risk_of_a_committee_drawn_by_lot() {
    // Parts of a thousand million, from the binomial coefficients.
    for ((nodes, bad, seats, tolerated), expected) in [
        ((64, 8, 16, 5), 2_167_794),
        ((64, 8, 16, 7), 2_908),
        ((5, 1, 3, 1), 0),
        ((5, 2, 3, 1), 300_000_000),
        ((10, 3, 4, 1), 333_333_333),
        ((100, 30, 7, 2), 350_490_341),
        ((1024, 256, 64, 21), 53_721_158),
        ((4096, 1024, 64, 21), 58_160_913),
        ((4, 4, 4, 1), 1_000_000_000),
        ((4, 0, 4, 1), 0),
        ((3, 9, 5, 2), 1_000_000_000),
        ((0, 0, 0, 0), 0),
    ] {
        assert_eq!(of_lot(nodes, bad, seats, tolerated), expected, "{bad} of {nodes}, {seats} seats");
    }
}

fn candidates(nodes: &[NodeInfo]) -> Vec<Candidate> {
    nodes.iter().map(Candidate::from).collect()
}

#[test]
fn a_deal_mends_what_breaks_a_rule_and_leaves_the_rest() {
    let nodes = candidates(&dealt(6, 3));
    let seated = |members: &[u32]| Seated {
        group: GroupId::shard(0),
        engine: Engine::Raft,
        members: members.iter().copied().map(NodeId).collect(),
    };
    let deal = |members: &[u32], nodes: &[Candidate]| {
        let dealt = redeal(&Hash32([3; 32]), nodes, &[seated(members)], &BTreeMap::new(), false).unwrap();
        dealt[0].1.iter().map(|node| node.0).collect::<Vec<_>>()
    };
    assert_eq!(deal(&[1, 2, 3], &nodes), [1, 2, 3]);
    // Nodes 1 and 4 are of one organisation: one of them goes, and somebody of the third comes.
    let mended = deal(&[1, 2, 4], &nodes);
    let stays = |node: u32| mended.contains(&node);
    assert!(stays(2) && (stays(1) != stays(4)) && (stays(3) != stays(6)), "{mended:?}");
    let mut drained = nodes.clone();
    drained[0].capacity = 0;
    assert_eq!(deal(&[1, 2, 3], &drained), [2, 3, 4]);
    assert_eq!(deal(&[1, 2, 3], &nodes[..2]), [1, 2, 3], "who cannot be filled stays");
}

proptest! {
    #[test]
    fn a_deal_is_sticky_within_the_rules_and_independent_of_order(
        seed in any::<[u8; 32]>(), count in 3u32..14, orgs in 1u16..5, shards in 1u32..6, gone in 0usize..14, even in any::<bool>(),
    ) {
        let mut infos = dealt(count, orgs);
        let groups: Vec<GroupSeats> =
            (0..shards).map(|at| GroupSeats { group: GroupId::shard(at), seats: 3, engine: Engine::Raft }).collect();
        let seated: Vec<Seated> = assign(&Hash32(seed), &infos, &groups, &Constraints::default())
            .unwrap()
            .into_iter()
            .map(|(group, members)| Seated { group, engine: Engine::Raft, members })
            .collect();
        let next = Hash32(sha256(&seed).0);
        let as_was: Vec<(GroupId, Vec<NodeId>)> = seated.iter().map(|one| (one.group, one.members.clone())).collect();
        let same = redeal(&next, &candidates(&infos), &seated, &BTreeMap::new(), false).unwrap();
        prop_assert_eq!(&same, &as_was, "an assignment needs no mending, whatever the seed");

        if let Some(node) = infos.get_mut(gone) {
            node.capacity = 0;
        }
        let nodes = candidates(&infos);
        let dealt = redeal(&next, &nodes, &seated, &BTreeMap::new(), even).unwrap();
        let (mut turned_nodes, mut turned) = (nodes.clone(), seated.clone());
        turned_nodes.reverse();
        turned.reverse();
        prop_assert_eq!(&redeal(&next, &turned_nodes, &turned, &BTreeMap::new(), even).unwrap(), &dealt);
        let usable = nodes.iter().filter(|node| node.capacity > 0).count();
        for (group, members) in &dealt {
            prop_assert_eq!(members.len(), 3, "{}", group);
            prop_assert!(members.windows(2).all(|pair| pair[0] < pair[1]));
            if usable >= 3 {
                let without = nodes.iter().find(|node| node.capacity == 0).map(|node| node.node);
                prop_assert!(without.is_none_or(|node| !members.contains(&node)));
                let orgs: std::collections::BTreeSet<OrgId> = nodes.iter().filter(|node| node.capacity > 0).map(|node| node.org).collect();
                let most = orgs.iter().map(|org| {
                    members.iter().filter(|member| nodes.iter().any(|node| node.node == **member && node.org == *org)).count()
                }).max().unwrap();
                prop_assert!(orgs.len() < 3 || most == 1, "{:?}", members);
            }
        }
    }
}
