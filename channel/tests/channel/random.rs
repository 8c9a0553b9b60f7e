//! Random commands against what must hold whatever happens.

use channel::{AuditGrant, Policy, Scope};
use channel::{Change, Command, Outcome, Phase, ProposalState, Quorum, Role, Seats, Subject, state};
use ledger::hash::Hash32;
use ledger::ids::{AssetId, NodeId, OrgId, TimeMs};
use proptest::prelude::*;

use crate::support::{DAY, World, admin, anyone, key, majority, only};

#[derive(Clone, Debug)]
struct Draw {
    org: u16,
    other: u16,
    kind: u8,
    pick: u8,
    rotated: bool,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let one = (1..=7u16, 1..=7u16, any::<u8>(), any::<u8>(), prop::bool::weighted(0.2))
        .prop_map(|(org, other, kind, pick, rotated)| Draw { org, other, kind, pick, rotated });
    prop::collection::vec(one, 1..60)
}

fn change(draw: &Draw, world: &World) -> Change {
    let org = OrgId(draw.other);
    let until_ms = TimeMs(world.now + DAY);
    let role = [Role::Admin, Role::Node, Role::Member][usize::from(draw.pick % 3)];
    match draw.kind % 13 {
        0 | 1 => Change::Invite { org, until_ms },
        2 | 3 => Change::Remove { org },
        4 => Change::Policy { subject: Subject::ALL[usize::from(draw.pick % 7)], policy: only(draw.other) },
        5 => Change::Policy {
            subject: Subject::ALL[usize::from(draw.pick % 7)],
            policy: Policy::members([Quorum::Any, Quorum::Majority, Quorum::All][usize::from(draw.pick % 3)], role),
        },
        6 => Change::Freeze,
        7 => Change::Thaw,
        8 if draw.pick < 20 => Change::Close,
        8 | 9 => Change::PermitAsset { asset: AssetId([draw.pick % 4; 16]) },
        10 => Change::GrantAudit(AuditGrant {
            org,
            credential: None,
            scope: Scope::Everything,
            until_ms,
            until_height: None,
        }),
        11 => Change::RevokeKey { org, key: admin(draw.other).public() },
        _ => Change::Anchors { org: OrgId(draw.org), nodes: vec![NodeId(u32::from(draw.org) * 10)] },
    }
}

fn command(draw: &Draw, world: &World) -> Command {
    let proposals = world.read(state::proposals);
    let proposal = match proposals.len() {
        0 => Hash32([draw.pick; 32]),
        n => proposals[usize::from(draw.pick) % n].id,
    };
    let first = u32::from(draw.org) * 10;
    match draw.kind {
        0..=79 => Command::Propose { change: change(draw, world), until_ms: TimeMs(world.now + DAY) },
        80..=179 => Command::Approve { proposal },
        180..=189 => Command::Reject { proposal },
        190..=194 => Command::Withdraw { proposal },
        195..=199 => Command::Settle { proposal },
        200..=219 => Command::Join { nodes: vec![NodeId(first)] },
        220..=224 => Command::Leave,
        225..=229 => Command::AddKey { key: key(draw.org, "second").public(), role: Role::Admin },
        230..=234 => Command::RevokeKey { key: admin(draw.org).public() },
        235..=239 => Command::SetNodes { nodes: (first..=first + u32::from(draw.pick % 3)).map(NodeId).collect() },
        240..=244 => Command::Decline,
        245..=249 => Command::RotateKey { old: admin(draw.org).public(), new: key(draw.org, "third").public() },
        250..=252 => Command::RevokeCertificate { credential: Hash32([draw.pick; 32]) },
        253..=255 => Command::FinishClose,
    }
}

fn check(world: &World, before: &World, outcome: Option<Outcome>) {
    let members = world.read(state::members);
    let roster = state::roster(&members);
    assert!(!members.is_empty(), "somebody is always left");
    for member in &members {
        assert!(member.count(Role::Admin) > 0, "{member:?} has no admin");
        assert!(!member.nodes.is_empty() && member.anchors.iter().all(|anchor| member.hosts(*anchor)));
        assert!(member.keys.windows(2).all(|pair| pair[0].key < pair[1].key));
        for key in &member.keys {
            let revoked = world.read(|view| state::revocation(view, member.org, &state::credential_of(&key.key)));
            assert_eq!(revoked, None, "a revoked key is in force");
        }
    }
    for subject in Subject::ALL {
        let policy = world.read(|view| state::policy(view, subject)).unwrap();
        assert_eq!(policy.check_satisfiable(&roster), Ok(()), "{subject:?}: {policy}");
    }
    // Whoever was a member and is none has an exclusion, and no member lost a seat it needed.
    for gone in before.read(state::members).iter().filter(|old| members.iter().all(|now| now.org != old.org)) {
        let exclusions = world.read(|view| state::exclusions(view, gone.org));
        assert_eq!(exclusions.last().map(|last| (last.joined, last.height.0)), Some((gone.joined, before.height)));
        let seats = Seats::of(&before.committee);
        let left = seats.total() - seats.by_org.get(&gone.org).copied().unwrap_or(0);
        assert!(left == seats.total() || (left >= seats.threshold && left > left / 2 + 1));
    }
    // What ended stays as it ended.
    let proposals = world.read(state::proposals);
    for old in before.read(state::proposals).iter().filter(|old| old.state != ProposalState::Open) {
        assert!(proposals.iter().all(|now| now.id != old.id || now == old));
    }
    if let Some(Outcome::Proposal { id, state: ProposalState::Applied }) = outcome {
        let proposal = proposals.iter().find(|proposal| proposal.id == id).unwrap();
        let policy = before.read(|view| state::policy(view, proposal.change.subject())).unwrap();
        let approvals = proposal.approvals.iter().map(|voice| voice.elector).collect();
        let by = before.read(state::members).iter().map(|member| member.org).collect();
        assert!(policy.holds(&by, &approvals), "{proposal:?} is in force against {policy}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_sent(draws in draws(), quick in any::<bool>()) {
        // Under `any` a channel comes much further in as many commands.
        let policy = if quick { anyone() } else { majority() };
        let mut world = World::with(&[1, 1, 1, 1, 2], &policy);
        let mut twin = World::with(&[1, 1, 1, 1, 2], &policy);
        for draw in draws {
            let command = command(&draw, &world);
            let secret = if draw.rotated { key(draw.org, "second") } else { admin(draw.org) };
            let bytes = world.sign_with(draw.org, &secret, &command).encode();
            let before = World {
                state: world.state.clone(),
                committee: world.committee.clone(),
                height: world.height,
                ..World::with(&[1], &majority())
            };
            let outcome = world.submit(&bytes);
            check(&world, &before, outcome.clone().ok());
            prop_assert_eq!(&twin.submit(&bytes), &outcome, "replicas agree");
            prop_assert_eq!(&twin.state, &world.state);
            if let Ok(first) = outcome {
                prop_assert_eq!(world.submit(&bytes), Ok(first), "sent again");
                prop_assert_eq!(twin.submit(&bytes), Ok(first));
            }
            // The committee follows the members, as a host makes it do.
            let seated: Vec<_> = world.read(state::members).iter().flat_map(|member| {
                member.nodes.iter().map(|node| ledger::committee::Member { node: node.node, org: member.org, key: node.key })
            }).collect();
            world.committee = ledger::committee::Committee::majority(
                world.committee.group, world.committee.incarnation, world.committee.epoch, seated,
            );
            twin.committee = world.committee.clone();
            if world.read(state::channel).map(|channel| channel.phase) == Some(Phase::Closed) {
                break;
            }
        }
    }
}
