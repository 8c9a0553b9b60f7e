//! Foundings of channels in the beacon, its directory, and what it tells channels.

use std::collections::BTreeSet;

use beacon::channels::{self, channel_key, founding_key};
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::limits::{CHANNELS_MAX, CHANNELS_PER_ORG_MAX, CLOSED_MAIL_MAX};
use beacon::machine::{CommandOutcome, Executed, Refused, execute_command};
use beacon::{ClusterView, RegistryHead, registry};
use channel::opening::{PROMISE_VERSION, first_policies};
use channel::{
    ChannelReject, Engine, Founding, FoundingAct, Hosting, Opening, Phase, Policy, Promise, Quorum, Role,
    SealedOpening, Subject, Terms,
};
use cross_shard::message::Message;
use cross_shard::notice::{ChannelStatus, ChannelUpdate};
use ledger::crypto::SecretKey;
use ledger::genesis::Genesis;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Epoch, GroupId, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;
use ledger::{FoundedGroup, schema};

use crate::support::{NOW, State, admin, at, genesis, node, settle, state_of};

const DAY: u64 = 24 * 60 * 60 * 1000;

pub fn terms(name: &str, invited: &[u16]) -> Terms {
    Terms {
        name: name.to_owned(),
        invited: invited.iter().copied().map(OrgId).collect(),
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: first_policies(),
    }
}

/// What founders agree on without the beacon: a majority for everything.
fn agreed() -> Opening {
    let majority = Policy::members(Quorum::Majority, Role::Admin);
    Opening::new([7; 32], Subject::ALL.map(|subject| (subject, majority.clone())).to_vec())
}

/// That, promised to this organisation and to whom it invites. The beacon opens no copy, so there is nothing in them.
fn promise(org: u16, invited: &[u16]) -> Promise {
    let named: BTreeSet<u16> = invited.iter().copied().chain([org]).collect();
    let keys = named.into_iter().map(|org| (OrgId(org), [0xcc; 48])).collect();
    let sealed = SealedOpening { sender: admin(1).public(), keys, body: vec![0xcc; 528] };
    Promise { version: PROMISE_VERSION, hash: agreed().hash(), sealed }
}

/// What this organisation sends to propose a channel.
fn proposal(org: u16, name: &str, invited: &[u16], hosting: Hosting, until_ms: TimeMs) -> BeaconCommand {
    let (terms, promise) = (terms(name, invited), promise(org, invited));
    BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms }
}

/// Nodes 1 to 5 are dealt to organisations 1 to 3 in turn.
pub fn hosting(org: u16) -> Hosting {
    Hosting { nodes: vec![NodeId(org.into())], anchors: vec![NodeId(org.into())] }
}

pub struct Beacon {
    pub genesis: Genesis,
    pub state: State,
    now: u64,
    salt: u8,
}

impl Beacon {
    pub fn new() -> Self {
        let genesis = genesis();
        Self { state: state_of(&genesis), genesis, now: NOW, salt: 0 }
    }

    fn run_with(&mut self, org: u16, key: &SecretKey, command: &BeaconCommand) -> Result<Executed, Refused> {
        self.salt += 1;
        let (salt, until) = ([self.salt; 16], TimeMs(self.now + 60_000));
        let signed = SignedCommand::sign(&self.genesis.cluster_id(), command, OrgId(org), salt, until, key);
        self.execute(&signed)
    }

    /// Runs what an organisation's admin has signed, be it a command or not.
    pub fn run_bytes(&mut self, org: u16, command: Vec<u8>) -> Result<Executed, Refused> {
        self.salt += 1;
        let (cluster, salt, until) = (self.genesis.cluster_id(), [self.salt; 16], TimeMs(self.now + 60_000));
        let any = SignedCommand::sign(&cluster, &BeaconCommand::Rebalance, OrgId(org), salt, until, &admin(org));
        let mut signed = SignedCommand { command, ..any };
        signed.signature = admin(org).sign(&signed.digest(&cluster));
        self.execute(&signed)
    }

    fn execute(&mut self, signed: &SignedCommand) -> Result<Executed, Refused> {
        let mut outcome = Err(Reject::Storage.into());
        let next = settle(&self.state, |view| {
            outcome = execute_command(view, &at(&self.genesis, self.now), &signed.encode());
        });
        assert!(outcome.is_ok() || next == self.state, "a refusal leaves no trace");
        self.state = next;
        outcome
    }

    pub fn run(&mut self, org: u16, command: &BeaconCommand) -> Result<Executed, Refused> {
        self.run_with(org, &admin(org), command)
    }

    fn propose(&mut self, org: u16, name: &str, invited: &[u16]) -> Result<Executed, Refused> {
        self.propose_by(NOW + DAY, org, name, invited)
    }

    fn propose_by(&mut self, until_ms: u64, org: u16, name: &str, invited: &[u16]) -> Result<Executed, Refused> {
        let until_ms = TimeMs(until_ms);
        self.run(org, &proposal(org, name, invited, hosting(org), until_ms))
    }

    fn proposed(&mut self, org: u16, name: &str, invited: &[u16]) -> Hash32 {
        self.proposed_by(NOW + DAY, org, name, invited)
    }

    fn proposed_by(&mut self, until_ms: u64, org: u16, name: &str, invited: &[u16]) -> Hash32 {
        match self.propose_by(until_ms, org, name, invited).expect("it is proposed").outcome {
            CommandOutcome::Founding { id, phase: Phase::Proposed } => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn act(&mut self, org: u16, founding: Hash32, act: FoundingAct) -> Result<Executed, Refused> {
        self.run(org, &BeaconCommand::ActOnChannel { founding, act })
    }

    /// Organisations 1 to 3 found a channel; what the last approval executes.
    pub fn found(&mut self, name: &str) -> (GroupId, Executed) {
        self.found_by(NOW + DAY, name)
    }

    /// The same, with this deadline.
    fn found_by(&mut self, until_ms: u64, name: &str) -> (GroupId, Executed) {
        let id = self.proposed_by(until_ms, 1, name, &[2, 3]);
        self.act(2, id, FoundingAct::Approve(hosting(2))).expect("it is approved");
        let last = self.act(3, id, FoundingAct::Approve(hosting(3))).expect("it is founded");
        match last.outcome {
            CommandOutcome::Founded { id: founded, group } if founded == id => (group, last),
            other => panic!("{other:?}"),
        }
    }

    pub fn read<T>(&self, read: impl FnOnce(&mut View<'_>) -> T) -> T {
        let mut view = View::new(&self.state);
        let found = read(&mut view);
        assert_eq!(view.fault(), None);
        found
    }
}

pub fn refused_by(outcome: Result<Executed, Refused>) -> ChannelReject {
    let refused = outcome.expect_err("it is refused");
    assert_eq!(refused.reject, Reject::ChannelRefused);
    refused.channel.expect("the rules of channels say why").reject
}

/// What a command makes the beacon tell the channels of its registry.
fn told(executed: &Executed) -> Vec<GroupId> {
    let updates = executed.mail.iter().filter(|(_, message)| matches!(message, Message::RegistryUpdate(_)));
    updates.map(|(group, _)| *group).collect()
}

#[test]
fn the_approval_that_decides_founds_the_channel_and_tells_everybody() {
    let mut beacon = Beacon::new();
    let (group, last) = beacon.found("steel");
    assert_eq!(group, GroupId::channel(0));
    assert_eq!(last.committees.len(), 1);
    let committee = &last.committees[0];
    assert_eq!((committee.group, committee.members.len()), (group, 3));
    for shard in &beacon.genesis.layout.shards {
        let hears = |(dest, message): &(GroupId, Message)| {
            *dest == shard.group && *message == Message::CommitteeUpdate(committee.clone())
        };
        assert!(last.mail.iter().any(hears), "{}", shard.group);
    }
    // Its own first mail: every committee, the layout, the registry last.
    let own: Vec<&Message> = last.mail.iter().filter(|(dest, _)| *dest == group).map(|(_, message)| message).collect();
    let committees = own.iter().filter(|message| matches!(message, Message::CommitteeUpdate(_))).count();
    assert_eq!(committees, beacon.genesis.committees.len() + 1);
    assert!(own.iter().any(|message| matches!(message, Message::LayoutUpdate(_))));
    let Some(Message::RegistryUpdate(update)) = own.last() else { panic!("{own:?}") };
    assert_eq!((update.orgs.len(), update.nodes.len(), update.revoked.len()), (3, 5, 0));
    assert!(update.well_formed());
    let charter = beacon.read(|view| channels::charter(view, group)).expect("it is kept");
    assert_eq!(charter.committee(), *committee);
    // Its first committee can be proved by a certified header of the beacon.
    let leaf: FoundedGroup = beacon.read(|view| view.load(&schema::founded(group))).expect("it is kept");
    let foundation = beacon.read(registry::foundations).remove(0);
    assert_eq!((leaf.group, leaf.committee, leaf.foundation), (group, committee.hash(), foundation.hash()));
    assert!(schema::tree_position(&schema::founded(group)).is_some(), "it is a leaf of the state tree");
    // Everybody is shown that leaf, and nothing of what the channel agreed on.
    let shown = ClusterView::read(&beacon.state).unwrap();
    assert_eq!(shown.founded(group), Some(&leaf));
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let promised = charter.promise.expect("it has what was promised");
    assert_eq!((&charter.policies, promised), (&first_policies(), agreed().hash()));
    assert!(holds(&foundation.charter, &promised.0), "the search finds what is there");
    assert!(!holds(&shown.encode(), &promised.0), "what was promised is shown to everybody");
    let opening = borsh::to_vec(&agreed()).unwrap();
    for (subject, policy) in &agreed().policies {
        let policy = borsh::to_vec(&(subject, policy)).unwrap();
        assert!(holds(&opening, &policy), "the search finds what is there");
        assert!(!holds(&shown.encode(), &policy), "the policy of {} is shown to everybody", subject.word());
    }
    let [entry] = &beacon.read(channels::directory)[..] else { panic!("one channel") };
    assert_eq!((entry.name.as_str(), entry.shown.status), ("steel", ChannelStatus::Running));
    assert_eq!(entry.shown.members, [1, 2, 3].map(OrgId));
    // Another one has another group, and the founding is over.
    assert_eq!(beacon.found("grain").0, GroupId::channel(1));
    let again = beacon.act(2, charter.founding, FoundingAct::Approve(hosting(2)));
    assert_eq!(refused_by(again), ChannelReject::ProposalApplied);
}

#[test]
fn a_founding_is_rejected_withdrawn_or_ends() {
    let mut beacon = Beacon::new();
    let id = beacon.proposed(1, "a", &[2, 3]);
    let rejected = beacon.act(2, id, FoundingAct::Reject).expect("it is taken").outcome;
    assert_eq!(rejected, CommandOutcome::Founding { id, phase: Phase::Abandoned });
    assert_eq!(refused_by(beacon.act(3, id, FoundingAct::Approve(hosting(3)))), ChannelReject::ProposalRejected);

    let id = beacon.proposed(1, "b", &[2, 3]);
    assert_eq!(refused_by(beacon.act(2, id, FoundingAct::Withdraw)), ChannelReject::NotProposer);
    assert!(beacon.act(1, id, FoundingAct::Withdraw).is_ok());
    assert_eq!(refused_by(beacon.act(2, id, FoundingAct::Reject)), ChannelReject::ProposalWithdrawn);

    let id = beacon.proposed(1, "c", &[2, 3]);
    beacon.now += DAY + 1;
    assert_eq!(refused_by(beacon.act(2, id, FoundingAct::Reject)), ChannelReject::ProposalExpired);
    assert_eq!(refused_by(beacon.act(2, Hash32([9; 32]), FoundingAct::Reject)), ChannelReject::ProposalUnknown);
}

#[test]
fn foundings_are_bounded_and_forgotten_after_their_deadline() {
    let mut beacon = Beacon::new();
    beacon.found("founded");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        beacon.proposed(1, name, &[2]);
    }
    assert_eq!(refused_by(beacon.propose(1, "i", &[2])), ChannelReject::ProposalsFull);
    assert_eq!(refused_by(beacon.propose(2, "a", &[3])), ChannelReject::FoundingForm, "the name is taken");
    let first = beacon.read(channels::foundings)[0].id;
    beacon.now += DAY + 1;
    let again = proposal(2, "a", &[3], hosting(2), TimeMs(beacon.now + DAY));
    assert!(beacon.run(2, &again).is_ok());
    assert!(beacon.read(|view| view.load::<Founding>(&founding_key(&first))).is_none());
    assert_eq!(beacon.read(channels::foundings).len(), 1);
    // Those that have founded a channel count with the channels, and with no founding.
    for at in 0..9 {
        beacon.found_by(NOW + 2 * DAY, &format!("more-{at}"));
    }
}

#[test]
fn channels_are_told_of_what_they_go_by_and_of_nothing_else() {
    let mut beacon = Beacon::new();
    let join = BeaconCommand::RegisterNode(node(6, 2, "zone-2"));
    assert!(told(&beacon.run(2, &join).unwrap()).is_empty(), "there is no channel");
    let (first, _) = beacon.found("steel");
    let (second, _) = beacon.found("grain");
    let capacity = BeaconCommand::SetNodeCapacity { node: NodeId(6), capacity: 3 };
    assert!(told(&beacon.run(2, &capacity).unwrap()).is_empty());
    let join = BeaconCommand::RegisterNode(node(7, 2, "zone-2"));
    assert_eq!(told(&beacon.run(2, &join).unwrap()), [first, second]);
    let revoke = BeaconCommand::RevokeCredential { credential: Hash32([7; 32]) };
    let executed = beacon.run(2, &revoke).unwrap();
    let Some((_, Message::RegistryUpdate(update))) = executed.mail.first() else { panic!("{executed:?}") };
    assert_eq!(update.revoked, [(OrgId(2), Hash32([7; 32]))]);
    assert_eq!(beacon.run(2, &revoke), Err(Reject::Registry.into()), "it is revoked already");
    // Nodes and routers follow it as well: it is in what the state's head proves.
    let shown = ClusterView::read(&beacon.state).unwrap();
    assert_eq!(shown.revoked, [(OrgId(2), Hash32([7; 32]))]);
    let head = borsh::to_vec(&RegistryHead::of(shown.revision, &shown.encode())).unwrap();
    assert_eq!(beacon.state[&registry::head_key()], head);
}

#[test]
fn a_rotated_admin_key_is_revoked_and_does_not_come_back() {
    let mut beacon = Beacon::new();
    let (group, _) = beacon.found("steel");
    let fresh = SecretKey::derive(b"fresh", b"key");
    let executed = beacon.run(1, &BeaconCommand::RotateAdminKey { key: fresh.public() }).unwrap();
    assert_eq!(told(&executed), [group]);
    let old = sha256(&admin(1).public().0);
    let Some((_, Message::RegistryUpdate(update))) = executed.mail.first() else { panic!("{executed:?}") };
    assert_eq!(update.revoked, [(OrgId(1), old)]);
    assert_eq!(update.org(OrgId(1)).map(|entry| entry.admin_key), Some(fresh.public()));
    assert!(beacon.read(|view| beacon::extract::is_revoked(view, OrgId(1), &old)));
    for key in [admin(1).public(), fresh.public()] {
        let rotate = BeaconCommand::RotateAdminKey { key };
        assert_eq!(beacon.run_with(1, &fresh, &rotate), Err(Reject::Registry.into()));
    }
    let own = BeaconCommand::RevokeCredential { credential: sha256(&fresh.public().0) };
    assert_eq!(beacon.run_with(1, &fresh, &own), Err(Reject::Registry.into()), "it could sign nothing any more");
}

#[test]
fn a_channel_speaks_for_itself_and_in_order() {
    let mut beacon = Beacon::new();
    let (group, _) = beacon.found("steel");
    let entry = beacon.read(channels::directory).remove(0);
    let shown = ChannelUpdate { status: ChannelStatus::Frozen, ..entry.shown.clone() };
    beacon.state = settle(&beacon.state, |view| {
        assert_eq!(channels::apply_update(view, group, shown.clone()), []);
    });
    assert_eq!(beacon.read(channels::directory)[0].shown, shown);
    let disordered = ChannelUpdate { members: vec![OrgId(2), OrgId(1)], ..shown.clone() };
    let stranger = ChannelUpdate { anchors: vec![NodeId(99)], ..shown.clone() };
    for (source, update) in
        [(group, disordered), (group, stranger), (GroupId::channel(5), shown.clone()), (GroupId::shard(0), shown)]
    {
        let next = settle(&beacon.state, |view| {
            assert_eq!(channels::apply_update(view, source, update), []);
        });
        assert_eq!(next, beacon.state, "nothing of {source} is taken");
    }
    assert!(beacon.state.contains_key(&channel_key(group)));
}

/// Who is told of which channel's anchors, in the order of the mail.
fn anchors_told(mail: &[(GroupId, Message)]) -> Vec<(GroupId, GroupId, Vec<u32>)> {
    let told = mail.iter().filter_map(|(dest, message)| match message {
        Message::AnchorsUpdate(update) => {
            assert!(update.well_formed(), "{update:?}");
            Some((*dest, update.channel, update.anchors.iter().map(|anchor| anchor.0).collect()))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn everybody_hears_who_carries_a_channels_mail() {
    let mut beacon = Beacon::new();
    let (steel, last) = beacon.found("steel");
    let mut all: Vec<GroupId> = beacon.genesis.layout.shards.iter().map(|shard| shard.group).collect();
    all.push(steel);
    let of_steel = |anchors: &[u32]| -> Vec<_> { all.iter().map(|dest| (*dest, steel, anchors.to_vec())).collect() };
    assert_eq!(anchors_told(&last.mail), of_steel(&[1, 2, 3]));
    // A change is told, and nothing else is. A channel that ends is carried by all of it.
    let entry = beacon.read(channels::directory).remove(0);
    let nodes = vec![NodeId(1), NodeId(2), NodeId(3)];
    let running = ChannelUpdate { nodes, anchors: vec![NodeId(2)], ..entry.shown };
    let frozen = ChannelUpdate { status: ChannelStatus::Frozen, ..running.clone() };
    let closing = ChannelUpdate { status: ChannelStatus::Closing, ..running.clone() };
    let turns =
        [(running.clone(), of_steel(&[2])), (frozen, vec![]), (closing, of_steel(&[])), (running, of_steel(&[2]))];
    for (shown, told) in turns {
        let mut mail = Vec::new();
        beacon.state = settle(&beacon.state, |view| mail = channels::apply_update(view, steel, shown.clone()));
        assert_eq!(anchors_told(&mail), told, "{shown:?}");
    }
    // Who comes later hears of those that are there.
    let (coal, last) = beacon.found("coal");
    let told = anchors_told(&last.mail);
    let own: Vec<_> = told.iter().filter(|(dest, ..)| *dest == coal).cloned().collect();
    assert_eq!(own, [(coal, steel, vec![2]), (coal, coal, vec![1, 2, 3])]);
    assert_eq!(told.iter().filter(|(_, channel, _)| *channel == coal).count(), all.len() + 1);
    assert_eq!(told.len(), all.len() + 2, "the others know of steel");
}

/// Whoever joins or leaves, and whoever changes its nodes: the channel says so, and the beacon prepares the
/// committee for it, one step at a time.
#[test]
fn a_channels_committee_follows_the_nodes_that_it_names() {
    let mut beacon = Beacon::new();
    let (group, _) = beacon.found("steel");
    let first = beacon.read(|view| registry::committee(view, group)).expect("it is in force");
    let entry = beacon.read(channels::directory).remove(0);
    let plan = |beacon: &Beacon| {
        let coming = beacon.read(|view| registry::coming_of(view, group));
        coming.map(|coming| (coming.epoch, coming.members.iter().map(|member| member.node.0).collect::<Vec<_>>()))
    };
    for (named, expected) in [
        (&[1, 2, 3, 4, 5][..], Some((Epoch(1), vec![1, 2, 3, 4]))),
        // Node 4, which may have begun to fetch the state, is wanted still.
        (&[2, 4], Some((Epoch(1), vec![1, 2, 3, 4]))),
        (&[1, 2, 3], None),
        (&[1, 2], Some((Epoch(2), vec![1, 2]))),
        (&[2, 5], Some((Epoch(2), vec![1, 2]))),
    ] {
        let nodes: Vec<NodeId> = named.iter().map(|node| NodeId(*node)).collect();
        let shown = ChannelUpdate { anchors: nodes[..1].to_vec(), nodes, ..entry.shown.clone() };
        let (before, mut mail) = (plan(&beacon), Vec::new());
        beacon.state = settle(&beacon.state, |view| mail = channels::apply_update(view, group, shown.clone()));
        mail.retain(|(_, message)| !matches!(message, Message::AnchorsUpdate(_)));
        assert_eq!(plan(&beacon), expected, "{named:?}");
        let coming = beacon.read(|view| registry::coming_of(view, group));
        let told = match before == expected {
            true => vec![],
            // The committee in force in the place of a plan cancels it.
            false => vec![(group, Message::CommitteePlan(coming.unwrap_or_else(|| first.clone())))],
        };
        assert_eq!(mail, told, "{named:?}");
        let picture = ClusterView::read(&beacon.state).unwrap();
        let head: Option<RegistryHead> = beacon.read(|view| view.load(&registry::head_key()));
        assert_eq!(head, Some(RegistryHead::of(picture.revision, &picture.encode())), "what is followed is proved");
    }
    // A node of a channel is not drained: where the channel goes, its members say.
    let drain = BeaconCommand::SetNodeCapacity { node: NodeId(2), capacity: 0 };
    assert_eq!(beacon.run(2, &drain), Err(Reject::Quorum.into()));
}

#[test]
fn a_founder_whose_node_is_not_its_own_is_refused() {
    let mut beacon = Beacon::new();
    let id = beacon.proposed(1, "steel", &[2, 3]);
    let foreign = Hosting { nodes: vec![NodeId(1)], anchors: Vec::new() };
    assert_eq!(refused_by(beacon.act(2, id, FoundingAct::Approve(foreign))), ChannelReject::NodeUnknown);
    assert!(beacon.act(2, id, FoundingAct::Approve(hosting(2))).is_ok());
}

#[test]
fn an_organisation_that_is_in_a_channel_stays() {
    let mut beacon = Beacon::new();
    let join = BeaconCommand::RegisterOrg(crate::support::org(4));
    for by in [1, 2] {
        beacon.run(by, &join).expect("it is approved");
    }
    let (group, _) = beacon.found("steel");
    let shown = beacon.read(channels::directory).remove(0).shown;
    let with = |beacon: &mut Beacon, members: &[u16]| {
        let update = ChannelUpdate { members: members.iter().copied().map(OrgId).collect(), ..shown.clone() };
        beacon.state = settle(&beacon.state, |view| drop(channels::apply_update(view, group, update)));
    };
    with(&mut beacon, &[1, 2, 3, 4]);
    let remove = BeaconCommand::RemoveOrg { org: OrgId(4) };
    for by in 1..=4 {
        let refused = beacon.run(by, &remove).expect_err("it is a member");
        assert_eq!(refused.reject, Reject::OrgInChannels);
    }
    with(&mut beacon, &[1, 2, 3]);
    for by in [1, 2] {
        assert_eq!(told(&beacon.run(by, &remove).expect("it is approved")), [], "nothing has changed yet");
    }
    // Channels hear of it, and that its key counts no more, should one have taken it in meanwhile.
    let last = beacon.run(3, &remove).expect("it is gone");
    assert_eq!((last.outcome, told(&last)), (CommandOutcome::Applied, vec![group]));
    let updates = last.mail.iter().filter_map(|(_, message)| match message {
        Message::RegistryUpdate(update) => Some(update),
        _ => None,
    });
    for update in updates {
        assert!(update.org(OrgId(4)).is_none());
        assert_eq!(update.revoked, [(OrgId(4), sha256(&admin(4).public().0))]);
    }
}

/// Organisations 4 and 5 join, with nodes 6 and 7.
fn with_five(beacon: &mut Beacon) {
    for id in [4, 5] {
        let join = BeaconCommand::RegisterOrg(crate::support::org(id));
        for by in 1..=id / 2 + 1 {
            drop(beacon.run(by, &join));
        }
        let info = node(u32::from(id) + 2, id, "zone-4");
        beacon.run(id, &BeaconCommand::RegisterNode(info)).expect("it is registered");
    }
}

impl Beacon {
    /// An organisation founds a channel with whom it names, or alone, on this node of its own.
    fn found_on(&mut self, org: u16, on: u32, name: &str, invited: &[u16]) -> Result<CommandOutcome, Refused> {
        let hosting = Hosting { nodes: vec![NodeId(on)], anchors: Vec::new() };
        let until_ms = TimeMs(self.now + DAY);
        self.run(org, &proposal(org, name, invited, hosting, until_ms)).map(|executed| executed.outcome)
    }

    /// A channel says that it is closed.
    fn close(&mut self, group: GroupId) {
        let entry = self.read(channels::directory).into_iter().find(|entry| entry.group == group);
        let shown = ChannelUpdate { status: ChannelStatus::Closed, ..entry.expect("it is there").shown };
        self.state = settle(&self.state, |view| drop(channels::apply_update(view, group, shown)));
    }
}

fn founded(outcome: Result<CommandOutcome, Refused>) -> GroupId {
    match outcome {
        Ok(CommandOutcome::Founded { group, .. }) => group,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_has_more_than_its_share_and_closed_channels_count_no_more() {
    let mut beacon = Beacon::new();
    with_five(&mut beacon);
    let reject = |outcome: Result<CommandOutcome, Refused>| outcome.expect_err("it is refused").reject;
    let waits = beacon.found_on(1, 1, "waits", &[2]);
    assert!(matches!(waits, Ok(CommandOutcome::Founding { phase: Phase::Proposed, .. })), "{waits:?}");
    let mut groups = Vec::new();
    for at in 1..CHANNELS_PER_ORG_MAX {
        groups.push(founded(beacon.found_on(1, 1, &format!("one-{at}"), &[])));
    }
    assert_eq!(reject(beacon.found_on(1, 1, "more", &[])), Reject::ChannelShare, "what waits counts");
    // Being a member of what another one has proposed costs nothing.
    let second = match beacon.found_on(2, 2, "second", &[1]).expect("it is proposed") {
        CommandOutcome::Founding { id, .. } => id,
        other => panic!("{other:?}"),
    };
    assert!(beacon.act(1, second, FoundingAct::Approve(hosting(1))).is_ok());
    let first = groups[0];
    beacon.close(first);
    founded(beacon.found_on(1, 1, "more", &[]));
    assert_eq!(reject(beacon.found_on(1, 1, "yet-more", &[])), Reject::ChannelShare);
    assert_eq!(refused_by(beacon.propose(3, "one-1", &[])), ChannelReject::FoundingForm, "the name stays with it");
    // A closed one stays as it is, whatever is said in its name.
    let before = beacon.state.clone();
    let open = beacon.read(channels::directory).into_iter().find(|entry| !entry.is_closed()).expect("there is one");
    beacon.state = settle(&beacon.state, |view| drop(channels::apply_update(view, first, open.shown)));
    assert_eq!(beacon.state, before);
}

#[test]
fn the_cluster_has_so_many_channels_at_a_time() {
    let mut beacon = Beacon::new();
    with_five(&mut beacon);
    let mut last = GroupId::channel(0);
    for (org, on) in [(1, 1), (2, 2), (3, 3), (4, 6)] {
        for at in 0..CHANNELS_PER_ORG_MAX {
            last = founded(beacon.found_on(org, on, &format!("{org}-{at}"), &[]));
        }
    }
    assert_eq!(last, GroupId::channel(u32::try_from(CHANNELS_MAX).expect("a few") - 1));
    let refused = beacon.found_on(5, 7, "late", &[]).expect_err("there are as many as may be");
    assert_eq!(refused.reject, Reject::ChannelsFull);
    beacon.close(last);
    assert_eq!(
        founded(beacon.found_on(5, 7, "late", &[])),
        GroupId::channel(last.ordinal() + 1),
        "none is given twice"
    );
}

#[test]
fn a_closed_channel_that_takes_no_mail_is_told_nothing_more_and_stops_nobody() {
    let mut beacon = Beacon::new();
    let (gone, _) = beacon.found("gone");
    let (other, _) = beacon.found("other");
    let waiting = |pending: u64| cross_shard::OutStream { next_seq: pending, ..cross_shard::OutStream::default() };
    let revoke = |byte: u8| BeaconCommand::RevokeCredential { credential: Hash32([byte; 32]) };
    let full = waiting(ledger::limits::MAIL_WINDOW_MESSAGES);
    beacon.state = settle(&beacon.state, |view| view.store(schema::outbox(gone), &full));
    let refused = beacon.run(1, &revoke(1)).expect_err("it is waited for");
    assert_eq!(refused.reject, Reject::PeerBusy);
    beacon.close(gone);
    assert_eq!(told(&beacon.run(1, &revoke(1)).expect("nobody waits for it")), [other]);
    for (pending, expected) in [(CLOSED_MAIL_MAX, vec![other]), (CLOSED_MAIL_MAX - 1, vec![gone, other])] {
        beacon.state = settle(&beacon.state, |view| view.store(schema::outbox(gone), &waiting(pending)));
        let byte = u8::try_from(pending % 200).expect("a byte");
        assert_eq!(told(&beacon.run(1, &revoke(byte)).expect("it is noted")), expected, "{pending}");
    }
}

#[test]
fn an_organisation_goes_from_closed_channels_and_with_those_that_have_nobody_else() {
    let mut beacon = Beacon::new();
    with_five(&mut beacon);
    let remove = BeaconCommand::RemoveOrg { org: OrgId(4) };
    let refused = |outcome: Result<Executed, Refused>| outcome.expect_err("it is refused").reject;
    // A channel of two: as long as it is not closed, its member leaves it first.
    let shared = match beacon.found_on(1, 1, "shared", &[4]).expect("it is proposed") {
        CommandOutcome::Founding { id, .. } => id,
        other => panic!("{other:?}"),
    };
    let own = Hosting { nodes: vec![NodeId(6)], anchors: Vec::new() };
    let shared = founded(beacon.act(4, shared, FoundingAct::Approve(own)).map(|executed| executed.outcome));
    assert_eq!(refused(beacon.run(1, &remove)), Reject::OrgInChannels);
    beacon.close(shared);
    // A channel of its own: it is asked to close that one, and cannot hold up the others by not doing so.
    let alone = founded(beacon.found_on(4, 6, "alone", &[]));
    assert_eq!(refused(beacon.run(4, &remove)), Reject::OrgAlone);
    for by in [1, 2] {
        assert!(matches!(beacon.run(by, &remove).expect("it counts").outcome, CommandOutcome::Pending { .. }));
    }
    let last = beacon.run(3, &remove).expect("it is gone");
    assert_eq!(last.outcome, CommandOutcome::Applied);
    let view = ClusterView::read(&beacon.state).unwrap();
    assert!(view.well_formed() && view.org(OrgId(4)).is_none() && view.node(NodeId(6)).is_none());
    let entries = beacon.read(channels::directory);
    assert!(entries.iter().all(|entry| entry.is_closed()), "{entries:?}");
    assert!(
        entries.iter().any(|entry| entry.group == alone && entry.shown.members == [OrgId(4)]),
        "its history is kept"
    );
    // What was closed before goes on with the nodes of its other member.
    let coming = beacon.read(|view| registry::coming_of(view, shared)).expect("it is prepared");
    assert_eq!(coming.members.iter().map(|member| member.node).collect::<Vec<_>>(), [NodeId(1)]);
    assert!(last.mail.contains(&(shared, Message::CommitteePlan(coming))));
    assert_eq!(beacon.read(|view| registry::coming_of(view, alone)), None);
}

#[test]
fn a_node_of_a_closed_channel_can_be_drained() {
    let mut beacon = Beacon::new();
    let (group, _) = beacon.found("steel");
    let drain = |node: u32| BeaconCommand::SetNodeCapacity { node: NodeId(node), capacity: 0 };
    let planned = |beacon: &Beacon| {
        let coming = beacon.read(|view| registry::coming_of(view, group)).expect("it is prepared");
        coming.members.iter().map(|member| member.node.0).collect::<Vec<_>>()
    };
    assert_eq!(beacon.run(3, &drain(3)), Err(Reject::Quorum.into()), "its members say where it is");
    beacon.close(group);
    assert!(beacon.run(3, &drain(3)).is_ok());
    assert_eq!(planned(&beacon), [1, 2]);
}

#[test]
fn somebody_keeps_a_closed_channel() {
    let named = [1, 2, 3].map(NodeId).to_vec();
    for (drained, kept) in [(&[][..], &[1, 2, 3][..]), (&[2], &[1, 3]), (&[1, 3], &[2]), (&[1, 2, 3], &[1, 2, 3])] {
        let stay = channels::keepers(named.clone(), |node| drained.contains(&node.0));
        assert_eq!(stay.iter().map(|node| node.0).collect::<Vec<_>>(), kept, "{drained:?}");
    }
}
