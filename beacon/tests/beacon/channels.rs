//! Foundings of channels in the beacon, its directory, and what it tells channels.

use beacon::channels::{self, channel_key, founding_key};
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, Executed, Refused, execute_command};
use beacon::{ClusterView, RegistryHead, registry};
use channel::{ChannelReject, Engine, Founding, FoundingAct, Hosting, Phase, Policy, Quorum, Role, Subject, Terms};
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
    let majority = Policy::members(Quorum::Majority, Role::Admin);
    Terms {
        name: name.to_owned(),
        invited: invited.iter().copied().map(OrgId).collect(),
        engine: Engine::Raft,
        founding: Policy::members(Quorum::All, Role::Admin),
        policies: Subject::ALL.map(|subject| (subject, majority.clone())).to_vec(),
    }
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
        let mut outcome = Err(Reject::Storage.into());
        let next = settle(&self.state, |view| {
            outcome = execute_command(view, &at(&self.genesis, self.now), &signed.encode());
        });
        assert!(outcome.is_ok() || next == self.state, "a refusal leaves no trace");
        self.state = next;
        outcome
    }

    fn run(&mut self, org: u16, command: &BeaconCommand) -> Result<Executed, Refused> {
        self.run_with(org, &admin(org), command)
    }

    fn propose(&mut self, org: u16, name: &str, invited: &[u16]) -> Result<Executed, Refused> {
        self.propose_by(NOW + DAY, org, name, invited)
    }

    fn propose_by(&mut self, until_ms: u64, org: u16, name: &str, invited: &[u16]) -> Result<Executed, Refused> {
        let until_ms = TimeMs(until_ms);
        self.run(org, &BeaconCommand::ProposeChannel { terms: terms(name, invited), hosting: hosting(org), until_ms })
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

    fn act(&mut self, org: u16, founding: Hash32, act: FoundingAct) -> Result<Executed, Refused> {
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

fn refused_by(outcome: Result<Executed, Refused>) -> ChannelReject {
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
    let terms = terms("a", &[3]);
    let until_ms = TimeMs(beacon.now + DAY);
    assert!(beacon.run(2, &BeaconCommand::ProposeChannel { terms, hosting: hosting(2), until_ms }).is_ok());
    assert!(beacon.read(|view| view.load::<Founding>(&founding_key(&first))).is_none());
    assert_eq!(beacon.read(channels::foundings).len(), 1);
    // However many an organisation has founded, the next is not refused for it.
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
    let closed = ChannelUpdate { status: ChannelStatus::Closed, ..running.clone() };
    for (shown, told) in
        [(running, of_steel(&[2])), (frozen, vec![]), (closing, of_steel(&[])), (closed.clone(), vec![])]
    {
        let mut mail = Vec::new();
        beacon.state = settle(&beacon.state, |view| mail = channels::apply_update(view, steel, shown.clone()));
        assert_eq!(anchors_told(&mail), told, "{shown:?}");
    }
    let open = ChannelUpdate { status: ChannelStatus::Running, ..closed };
    beacon.state = settle(&beacon.state, |view| drop(channels::apply_update(view, steel, open)));
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
