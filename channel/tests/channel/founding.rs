//! How a channel begins.

use channel::{
    ChannelReject as R, Engine, Founding, FoundingAct, Hosting, Phase, Policy, Quorum, Refusal, Residual, Role,
    Subject, Terms, state,
};
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};

use crate::support::{CLUSTER, DAY, Directory, GROUP, NOW, World, anyone, everyone, hosting, majority, only, terms};

fn propose(terms: Terms) -> Result<Founding, Refusal> {
    let until = TimeMs(NOW + DAY);
    Founding::propose(&CLUSTER, terms, OrgId(1), hosting(1, 1), until, &[1; 16], &Directory, TimeMs(NOW))
}

fn act(founding: &Founding, org: u16, act: &FoundingAct) -> Result<Founding, R> {
    founding.act(OrgId(org), act, &Directory, TimeMs(NOW)).map_err(|refusal| refusal.reject)
}

fn approve(founding: &Founding, org: u16) -> Result<Founding, R> {
    act(founding, org, &FoundingAct::Approve(hosting(org, 1)))
}

#[test]
fn each_invited_organisation_approves() {
    let founding = propose(terms(&[2, 3], &majority())).unwrap();
    assert_eq!((founding.phase, founding.approvals.len()), (Phase::Proposed, 1));
    let founding = approve(&founding, 3).unwrap();
    assert_eq!(founding.phase, Phase::Proposed);
    assert_eq!(founding.residual(), Residual::Open(only(2)));
    assert_eq!(approve(&founding, 3), Err(R::ProposalActed));
    assert_eq!(approve(&founding, 1), Err(R::ProposalActed));
    assert_eq!(act(&founding, 3, &FoundingAct::Reject), Err(R::ProposalActed));
    assert_eq!(approve(&founding, 4), Err(R::NotInvited));
    let founding = approve(&founding, 2).unwrap();
    assert_eq!(founding.phase, Phase::Approved);
    assert_eq!(approve(&founding, 2), Err(R::ProposalApplied));
    let (founding, charter) = founding.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW)).unwrap();
    assert_eq!(founding.phase, Phase::Running);
    assert_eq!(charter.members.len(), 3);
    assert_eq!(charter.committee().members.len(), 3);
    assert!(charter.committee().well_formed());
    let again = founding.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW));
    assert_eq!(again.unwrap_err().reject, R::Transition);
}

#[test]
fn terms_that_cannot_be_put_to_anybody() {
    let good = || terms(&[2, 3], &majority());
    let named = |name: &str| Terms { name: name.to_owned(), ..good() };
    let inviting = |orgs: &[u16]| Terms { invited: orgs.iter().copied().map(OrgId).collect(), ..good() };
    let mut short = good();
    short.policies.pop();
    let mut twice = good();
    twice.policies[1].0 = Subject::Membership;
    for (terms, expected) in [
        (inviting(&[1, 2]), R::InviteSelf),
        (inviting(&[2, 77]), R::OrgUnknown),
        (inviting(&[2, 2]), R::AlreadyInvited),
        (inviting(&[3, 2]), R::FoundingForm),
        (named(""), R::FoundingForm),
        (named("two words"), R::FoundingForm),
        (named(&"n".repeat(65)), R::FoundingForm),
        (short, R::FoundingForm),
        (twice, R::FoundingForm),
        (Terms { founding: only(4), ..good() }, R::PolicyUnsatisfiable),
        (Terms { founding: Policy::members(Quorum::Any, Role::Node), ..good() }, R::PolicyUnsatisfiable),
        (Terms { founding: Policy::members(Quorum::AtLeast(4), Role::Admin), ..good() }, R::PolicyUnsatisfiable),
        (terms(&[2], &only(3)), R::PolicyUnsatisfiable),
        (terms(&[2], &Policy::members(Quorum::Any, Role::Member)), R::PolicyUnsatisfiable),
    ] {
        assert_eq!(propose(terms.clone()).unwrap_err().reject, expected, "{terms:?}");
    }
    let at = |until| {
        Founding::propose(&CLUSTER, good(), OrgId(1), hosting(1, 1), TimeMs(until), &[1; 16], &Directory, TimeMs(NOW))
    };
    assert_eq!(at(NOW).unwrap_err().reject, R::ProposalDeadline);
    assert_eq!(at(NOW + 31 * DAY).unwrap_err().reject, R::ProposalDeadline);
}

#[test]
fn a_channel_without_nodes_is_refused() {
    let founding = propose(terms(&[2], &majority())).unwrap();
    let with = |nodes: &[u32], anchors: &[u32]| {
        let ids = |list: &[u32]| list.iter().copied().map(NodeId).collect();
        act(&founding, 2, &FoundingAct::Approve(Hosting { nodes: ids(nodes), anchors: ids(anchors) }))
    };
    assert_eq!(with(&[], &[]), Err(R::NodesForm));
    assert_eq!(with(&[21, 20], &[]), Err(R::NodesForm));
    assert_eq!(with(&[10], &[]), Err(R::NodeUnknown));
    assert_eq!(with(&[20], &[21]), Err(R::AnchorsForm));
    assert_eq!(with(&[20, 21], &[21]).unwrap().phase, Phase::Approved);
}

#[test]
fn rejected_withdrawn_or_too_late_it_is_abandoned() {
    let founding = propose(terms(&[2, 3], &majority())).unwrap();
    let rejected = act(&founding, 2, &FoundingAct::Reject).unwrap();
    assert_eq!(rejected.phase, Phase::Abandoned);
    assert_eq!(approve(&rejected, 3), Err(R::ProposalRejected));
    assert_eq!(act(&founding, 2, &FoundingAct::Withdraw), Err(R::NotProposer));
    let withdrawn = act(&founding, 1, &FoundingAct::Withdraw).unwrap();
    assert_eq!(withdrawn.phase, Phase::Abandoned);
    assert_eq!(approve(&withdrawn, 3), Err(R::ProposalWithdrawn));
    let late = TimeMs(founding.until_ms.0 + 1);
    assert_eq!(founding.phase_at(founding.until_ms), Phase::Proposed);
    assert_eq!(founding.phase_at(late), Phase::Abandoned);
    let found = founding.act(OrgId(2), &FoundingAct::Approve(hosting(2, 1)), &Directory, late);
    assert_eq!(found.unwrap_err().reject, R::ProposalExpired);
    let start = founding.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW));
    assert_eq!(start.unwrap_err().reject, R::Transition);
    // Approved and not started, it can still be withdrawn.
    let approved = approve(&approve(&founding, 2).unwrap(), 3).unwrap();
    assert_eq!(act(&approved, 2, &FoundingAct::Withdraw), Err(R::ProposalApplied));
    assert_eq!(act(&approved, 1, &FoundingAct::Withdraw).unwrap().phase, Phase::Abandoned);
}

#[test]
fn under_a_majority_whoever_is_late_is_invited() {
    let stated = Terms { founding: majority(), ..terms(&[2, 3, 4, 5], &anyone()) };
    let founding = propose(stated).unwrap();
    let founding = act(&founding, 5, &FoundingAct::Reject).unwrap();
    assert_eq!(founding.phase, Phase::Proposed);
    let founding = approve(&approve(&founding, 2).unwrap(), 3).unwrap();
    assert_eq!(founding.phase, Phase::Approved);
    let (_, charter) = founding.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW)).unwrap();
    assert_eq!(charter.members.iter().map(|member| member.org.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(charter.invited, [OrgId(4)]);
    assert!(charter.genesis_writes().iter().any(|(key, _)| *key == state::invitation_key(OrgId(4))));
}

#[test]
fn founders_must_be_able_to_govern() {
    let mut stated = Terms { founding: anyone(), ..terms(&[2, 3], &anyone()) };
    stated.policies[0].1 = only(3);
    let founding = propose(stated.clone()).unwrap();
    assert_eq!((founding.phase, founding.residual()), (Phase::Proposed, Residual::Met));
    assert_eq!(founding.ungovernable(), [Subject::Membership]);
    let two = approve(&founding, 2).unwrap();
    assert_eq!(two.phase, Phase::Proposed);
    assert_eq!(approve(&two, 3).unwrap().phase, Phase::Approved);
    assert_eq!(act(&two, 3, &FoundingAct::Reject).unwrap().phase, Phase::Abandoned);
}

/// With fewer than four nodes none may lie, so a Byzantine channel is not founded on them.
#[test]
fn an_engine_gets_the_nodes_that_it_needs() {
    let bft = |invited: &[u16], founding: Policy| Terms { engine: Engine::Bft, founding, ..terms(invited, &anyone()) };
    let bring =
        |founding: &Founding, org: u16, nodes: u32| act(founding, org, &FoundingAct::Approve(hosting(org, nodes)));
    // Whoever speaks last is told what is missing, and can bring it.
    let two = bring(&propose(bft(&[2, 3], everyone())).unwrap(), 2, 1).unwrap();
    assert_eq!(bring(&two, 3, 1), Err(R::EngineNodes));
    let whole = bring(&two, 3, 2).unwrap();
    assert_eq!((whole.phase, whole.nodes()), (Phase::Approved, 4));
    let committee = whole.start(&CLUSTER, GROUP, &Directory, TimeMs(NOW)).unwrap().1.committee();
    assert_eq!((committee.engine, committee.members.len(), committee.threshold), (Engine::Bft, 4, 3));
    assert!(committee.well_formed());
    // A policy that holds already waits for nodes while somebody could bring them.
    let open = bring(&propose(bft(&[2, 3], anyone())).unwrap(), 2, 1).unwrap();
    assert_eq!((open.phase, open.residual(), open.enough_nodes()), (Phase::Proposed, Residual::Met, false));
    assert_eq!(bring(&open, 3, 2).unwrap().phase, Phase::Approved);
    assert_eq!(act(&open, 3, &FoundingAct::Reject).unwrap().phase, Phase::Abandoned, "nobody is left to bring them");
    // One organisation alone brings all of them, or is refused at once.
    assert_eq!(propose(bft(&[], anyone())).unwrap_err().reject, R::EngineNodes);
    assert_eq!(propose(terms(&[], &anyone())).unwrap().phase, Phase::Approved, "raft orders on one node, too");
}

#[test]
fn it_starts_with_what_the_registry_has_then_under_an_id_of_a_channel() {
    struct Emptied;
    impl channel::Registry for Emptied {
        fn org(&self, _: OrgId) -> Option<channel::RegistryOrg> {
            None
        }
        fn node(&self, _: NodeId) -> Option<channel::RegistryNode> {
            None
        }
    }
    let approved = approve(&propose(terms(&[2], &everyone())).unwrap(), 2).unwrap();
    let wrong = approved.start(&CLUSTER, GroupId::shard(7), &Directory, TimeMs(NOW));
    assert_eq!(wrong.unwrap_err().reject, R::WrongChannel);
    let gone = approved.start(&CLUSTER, GROUP, &Emptied, TimeMs(NOW));
    assert_eq!(gone.unwrap_err().reject, R::OrgUnknown);
}

#[test]
fn the_first_state_is_that_of_a_running_channel() {
    let world = World::with(&[2, 1, 1], &majority());
    let record = world.read(state::channel).unwrap();
    assert_eq!((record.phase, record.engine, record.name.as_str()), (Phase::Running, Engine::Raft, "steel"));
    assert_eq!(world.read(state::members).len(), 3);
    for subject in Subject::ALL {
        assert_eq!(world.read(|view| state::policy(view, subject)), Some(majority()));
    }
    assert_eq!(world.committee.threshold, 3);
}
