//! Organisations that go: who has to approve, what has to be done before, and what is left of them.

use std::collections::{BTreeMap, BTreeSet};

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, execute_command};
use beacon::orgs::{self, Removed};
use beacon::{ClusterView, registry};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;
use proptest::prelude::*;

use crate::support::{NOW, State, admin, at, genesis, node, node_key, org, settle, state_of};

/// How long a command may wait for its turn, and so a proposal for its approvals.
const WITHIN_MS: u64 = 60_000;

struct Beacon {
    genesis: Genesis,
    state: State,
    now: u64,
    salt: u8,
}

impl Beacon {
    /// Organisations 1 to 3, who have all the seats, and these, who joined later.
    fn with(joined: &[u16]) -> Self {
        let genesis = genesis();
        let mut beacon = Self { state: state_of(&genesis), genesis, now: NOW, salt: 0 };
        for id in joined {
            let (members, join) = (beacon.orgs(), BeaconCommand::RegisterOrg(org(*id)));
            let majority = members.len() / 2 + 1;
            let outcomes: Vec<_> = members.into_iter().take(majority).map(|by| beacon.run(by, &join)).collect();
            assert_eq!(outcomes.last(), Some(&DONE));
        }
        beacon
    }

    fn run(&mut self, by: u16, command: &BeaconCommand) -> Result<CommandOutcome, Reject> {
        self.salt = self.salt.wrapping_add(1);
        let (salt, until) = ([self.salt; 16], TimeMs(self.now + WITHIN_MS));
        let signed =
            SignedCommand::sign(&self.genesis.cluster_id(), command, OrgId(by), salt, until, &admin(by)).encode();
        let mut outcome = Err(Reject::Storage);
        let next = settle(&self.state, |view| {
            let executed = execute_command(view, &at(&self.genesis, self.now), &signed);
            outcome = executed.map(|executed| executed.outcome).map_err(|refused| refused.reject);
        });
        assert!(outcome.is_ok() || next == self.state, "a refusal leaves no trace");
        self.state = next;
        outcome
    }

    fn remove(&mut self, by: u16, id: u16) -> Result<CommandOutcome, Reject> {
        self.run(by, &BeaconCommand::RemoveOrg { org: OrgId(id) })
    }

    fn register(&mut self, by: u16, node: NodeInfo) -> Result<CommandOutcome, Reject> {
        self.run(by, &BeaconCommand::RegisterNode(node))
    }

    fn capacity(&mut self, by: u16, node: u32, capacity: u16) {
        let command = BeaconCommand::SetNodeCapacity { node: NodeId(node), capacity };
        assert_eq!(self.run(by, &command), DONE);
    }

    fn view(&self) -> ClusterView {
        let view = ClusterView::read(&self.state).unwrap();
        assert!(view.well_formed());
        view
    }

    fn orgs(&self) -> BTreeSet<u16> {
        self.view().orgs.iter().map(|org| org.id.0).collect()
    }

    fn removed(&self, id: u16) -> Option<Removed> {
        orgs::removed(&mut View::new(&self.state), OrgId(id))
    }
}

fn waits(approvals: u16, needed: u16) -> Result<CommandOutcome, Reject> {
    Ok(CommandOutcome::Pending { approvals, needed })
}

const DONE: Result<CommandOutcome, Reject> = Ok(CommandOutcome::Applied);

#[test]
fn an_organisation_goes_with_its_nodes_when_more_than_half_approve() {
    let mut beacon = Beacon::with(&[4]);
    for id in [7, 6] {
        assert_eq!(beacon.register(4, node(id, 4, "zone-4")), DONE);
    }
    let lost = BeaconCommand::RevokeCredential { credential: Hash32([9; 32]) };
    assert_eq!(beacon.run(4, &lost), DONE);
    let before = beacon.view();

    assert_eq!(beacon.remove(1, 4), waits(1, 3));
    assert_eq!(beacon.remove(1, 4), waits(1, 3), "nobody counts twice");
    assert_eq!(beacon.remove(4, 4), waits(2, 3), "it may go of its own accord");
    assert_eq!(beacon.view(), before, "nothing has changed for anybody");
    assert_eq!(beacon.remove(3, 4), DONE);
    let after = beacon.view();
    let expected = ClusterView {
        revision: before.revision + 1,
        orgs: before.orgs.iter().filter(|org| org.id != OrgId(4)).cloned().collect(),
        nodes: before.nodes.iter().filter(|node| node.org != OrgId(4)).cloned().collect(),
        // What it had revoked nobody vouches for any more; its key counts nowhere.
        revoked: vec![(OrgId(4), sha256(&admin(4).public().0))],
        ..before
    };
    assert_eq!(after, expected);
    let nodes = vec![NodeId(6), NodeId(7)];
    let left = Removed { version: 1, name: "org-4".to_owned(), nodes, removed_ms: TimeMs(NOW) };
    assert_eq!(beacon.removed(4), Some(left));

    // It has no say any more, and nobody takes its place.
    assert_eq!(beacon.remove(4, 3), Err(Reject::Registry));
    assert_eq!(beacon.remove(1, 4), Err(Reject::Registry), "it is gone");
    assert_eq!(
        beacon.run(1, &BeaconCommand::RegisterOrg(org(4))),
        Err(Reject::Registry),
        "its number is not given again"
    );
    let key = node_key(60).public();
    let again = NodeInfo { key, tls_key_hash: Hash32([6; 32]), ..node(6, 1, "zone-1") };
    assert_eq!(beacon.register(1, again.clone()), Err(Reject::NodeGone), "nor those of its nodes");
    assert_eq!(beacon.register(1, NodeInfo { id: NodeId(8), ..again }), DONE);
    let anew = BeaconCommand::RegisterOrg(OrgInfo { id: OrgId(5), ..org(4) });
    assert_eq!(beacon.run(1, &anew), waits(1, 2), "it may come back as another one");
}

#[test]
fn who_has_a_seat_stays() {
    let mut beacon = Beacon::with(&[4]);
    for (id, expected) in [
        (1, Err(Reject::OrgSeated)),
        (2, Err(Reject::OrgSeated)),
        (3, Err(Reject::OrgSeated)),
        (4, waits(1, 3)),
        (9, Err(Reject::Registry)),
    ] {
        assert_eq!(beacon.remove(1, id), expected, "organisation {id}");
    }
    // A node that is about to get a seat: of all that are free, those of its organisation come first.
    beacon.register(4, node(6, 4, "zone-4")).unwrap();
    beacon.capacity(1, 1, 0);
    let coming = beacon.view().coming;
    assert!(coming.iter().any(|committee| committee.index_of(NodeId(6)).is_some()), "{coming:?}");
    assert_eq!(beacon.remove(2, 4), Err(Reject::OrgSeated));
    // It is not needed any more.
    beacon.capacity(1, 1, 1);
    assert_eq!(beacon.remove(2, 4), waits(2, 3), "what was approved before counts");
}

#[test]
fn a_proposal_lapses_with_the_deadline_of_its_first_approval() {
    let mut beacon = Beacon::with(&[4]);
    assert_eq!(beacon.remove(1, 4), waits(1, 3));
    beacon.now += WITHIN_MS;
    assert_eq!(beacon.remove(2, 4), waits(2, 3), "in its last moment");
    beacon.now += 1;
    assert_eq!(beacon.remove(3, 4), waits(1, 3), "it begins anew");
}

#[test]
fn nobody_counts_who_is_gone() {
    let mut beacon = Beacon::with(&[4, 5]);
    let join = BeaconCommand::RegisterOrg(org(6));
    assert_eq!(beacon.run(4, &join), waits(1, 3));
    assert_eq!(beacon.remove(4, 5), waits(1, 3));
    assert_eq!([1, 2, 3].map(|by| beacon.remove(by, 4)), [waits(1, 3), waits(2, 3), DONE]);
    assert_eq!(beacon.run(1, &join), waits(1, 3));
    assert_eq!(beacon.remove(1, 5), waits(1, 3));
    assert_eq!(beacon.remove(5, 5), waits(2, 3));
    assert_eq!(beacon.remove(2, 5), DONE);
    // Of three, two are enough: what was approved by one of them counts, and by nobody else.
    assert_eq!(beacon.run(1, &join), waits(1, 2));
    assert_eq!(beacon.run(2, &join), DONE);
}

/// What the tests themselves think of removals.
struct Model {
    orgs: BTreeSet<u16>,
    open: BTreeMap<u16, (u64, BTreeSet<u16>)>,
}

impl Model {
    fn remove(&mut self, by: u16, id: u16, now: u64) -> Result<CommandOutcome, Reject> {
        if !self.orgs.contains(&by) || !self.orgs.contains(&id) {
            return Err(Reject::Registry);
        }
        if id <= 3 {
            return Err(Reject::OrgSeated);
        }
        let open = self.open.remove(&id).filter(|(until, _)| *until >= now);
        let (until, mut approvals) = open.unwrap_or((now + WITHIN_MS, BTreeSet::new()));
        approvals.insert(by);
        approvals.retain(|org| self.orgs.contains(org));
        if approvals.len() * 2 > self.orgs.len() {
            self.orgs.remove(&id);
            return DONE;
        }
        let outcome = waits(approvals.len() as u16, (self.orgs.len() / 2 + 1) as u16);
        self.open.insert(id, (until, approvals));
        outcome
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is approved by whom and when: the outcome is that of the model, and no seat is left without its
    /// organisation and its node.
    #[test]
    fn every_outcome_is_that_of_the_model(steps in prop::collection::vec((1u16..=7, 1u16..=8, 0u64..40_000), 1..40)) {
        let mut beacon = Beacon::with(&[4, 5, 6]);
        let mut model = Model { orgs: beacon.orgs(), open: BTreeMap::new() };
        for id in [6, 7] {
            beacon.register(4, node(id, 4, "zone-4")).unwrap();
        }
        for (by, id, passes) in steps {
            beacon.now += passes;
            let expected = model.remove(by, id, beacon.now);
            prop_assert_eq!(beacon.remove(by, id), expected);
            let view = beacon.view();
            prop_assert_eq!(beacon.orgs(), model.orgs.clone());
            prop_assert!(view.nodes.iter().all(|node| view.org(node.org).is_some()));
            for member in view.committees.iter().chain(&view.coming).flat_map(|committee| &committee.members) {
                prop_assert!(view.node(member.node).is_some() && view.org(member.org).is_some());
            }
            prop_assert!((4..=6).all(|org| view.org(OrgId(org)).is_some() != beacon.removed(org).is_some()));
            let head = registry::audit(&mut View::new(&beacon.state));
            prop_assert!(head.changes > 0);
        }
    }
}
