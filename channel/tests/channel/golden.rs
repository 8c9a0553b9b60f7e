//! Golden vectors: these bytes are signed, hashed, stored or recomputed by others. A change here is
//! a new format version, never an edit.

#[path = "../../../ledger/tests/support/vectors.rs"]
mod vectors;

use channel::exclusion::{Departure, EXCLUSION_VERSION};
use channel::founding::founding_id;
use channel::proposal::{Voice, proposal_id};
use channel::state::{self, ChannelRecord, GrantRecord, Invitation, MemberNode, MemberRecord, Revocation, RoleKey};
use channel::{
    AuditGrant, Change, ChannelReject, Command, Elector, Engine, Exclusion, Founding, FoundingAct, Hosting, Outcome,
    Phase, Policy, PromiseRecord, PromiseStanding, Proposal, ProposalState, Quorum, Role, Scope, SignedCommand,
    Subject, Target,
};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Address, AssetId, Height, NodeId, OrgId, TimeMs};

use crate::support::{
    CLUSTER, Directory, GROUP, NOW, admin, approved, everyone, found, hosting, majority, node_key, opening, promise,
    propose_sealed, sealed_terms, terms,
};
use vectors::Vectors;

const H: Hash32 = Hash32([7; 32]);
const AT: TimeMs = TimeMs(NOW);

fn nested() -> Policy {
    let text = "k-of(2, #1.admin, #2.node, all(#3.admin, any(#1.member, #2.auditor)), majority(members.admin))";
    Policy::parse(text, &|_| None).unwrap()
}

fn grant(scope: Scope) -> AuditGrant {
    AuditGrant { org: OrgId(9), credential: Some(H), scope, until_ms: AT, until_height: Some(Height(5)) }
}

fn changes() -> Vec<Change> {
    let org = OrgId(2);
    vec![
        Change::Invite { org, until_ms: AT },
        Change::Remove { org },
        Change::Anchors { org, nodes: vec![NodeId(20), NodeId(21)] },
        Change::Policy { subject: Subject::Freeze, policy: majority() },
        Change::Freeze,
        Change::Thaw,
        Change::Close,
        Change::PermitAsset { asset: AssetId([3; 16]) },
        Change::GrantAudit(grant(Scope::Everything)),
        Change::GrantAudit(grant(Scope::Accounts(vec![Address([1; 20])]))),
        Change::GrantAudit(grant(Scope::Assets(vec![AssetId([1; 16])]))),
        Change::RevokeAudit { org, grant: H },
        Change::RevokeKey { org, key: admin(2).public() },
        Change::Engine { engine: Engine::Bft },
    ]
}

/// A change without a vector does not compile here.
fn name_of(change: &Change) -> &'static str {
    match change {
        Change::Invite { .. } => "invite",
        Change::Remove { .. } => "remove",
        Change::Anchors { .. } => "anchors",
        Change::Policy { .. } => "policy",
        Change::Freeze => "freeze",
        Change::Thaw => "thaw",
        Change::Close => "close",
        Change::PermitAsset { .. } => "permit asset",
        Change::GrantAudit(grant) => match grant.scope {
            Scope::Everything => "grant everything",
            Scope::Accounts(_) => "grant accounts",
            Scope::Assets(_) => "grant assets",
        },
        Change::RevokeAudit { .. } => "revoke audit",
        Change::RevokeKey { .. } => "revoke key",
        Change::Engine { .. } => "engine",
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let key = admin(2).public();
    vec![
        ("propose", Command::Propose { change: Change::Freeze, until_ms: AT }),
        ("approve", Command::Approve { proposal: H }),
        ("reject", Command::Reject { proposal: H }),
        ("withdraw", Command::Withdraw { proposal: H }),
        ("settle", Command::Settle { proposal: H }),
        ("join", Command::Join { nodes: vec![NodeId(20)] }),
        ("decline", Command::Decline),
        ("leave", Command::Leave),
        ("add key", Command::AddKey { key, role: Role::Member }),
        ("rotate key", Command::RotateKey { old: key, new: admin(3).public() }),
        ("revoke key", Command::RevokeKey { key }),
        ("revoke certificate", Command::RevokeCertificate { credential: H }),
        ("set nodes", Command::SetNodes { nodes: vec![NodeId(20), NodeId(21)] }),
        ("finish close", Command::FinishClose),
        ("open", Command::Open { opening: opening(&majority()) }),
    ]
}

#[test]
fn policies() {
    let mut vectors = Vectors::open("policies.json");
    vectors.format("one", &Policy::one(OrgId(258), Role::Admin), "");
    for (name, quorum) in
        [("any", Quorum::Any), ("all", Quorum::All), ("majority", Quorum::Majority), ("k-of", Quorum::AtLeast(2))]
    {
        vectors.format(name, &Policy::members(quorum, Role::Node), "");
    }
    vectors.format("nested", &nested(), "");
    vectors.finish();
}

#[test]
fn signed_commands() {
    let mut vectors = Vectors::open("commands.json");
    for (name, command) in commands() {
        let signed = SignedCommand::sign(&CLUSTER, GROUP, OrgId(2), &command, [7; 16], AT, &admin(2));
        vectors.format(name, &command, "");
        vectors.format(&format!("{name}, signed"), &signed, &signed.digest().to_string());
    }
    for change in changes() {
        let id = proposal_id(&CLUSTER, GROUP, 3, OrgId(2), AT, &[7; 16], &change);
        vectors.format(&format!("change: {}", name_of(&change)), &change, &id.to_string());
    }
    vectors.finish();
}

#[test]
fn records() {
    let mut vectors = Vectors::open("state.json");
    let record = ChannelRecord {
        version: 1,
        cluster: CLUSTER,
        group: GROUP,
        name: "steel".to_owned(),
        engine: Engine::Bft,
        phase: Phase::Frozen,
        founding: H,
        started_ms: AT,
    };
    vectors.format("channel", &record, "");
    let member = MemberRecord {
        version: 1,
        org: OrgId(2),
        name: "globex".to_owned(),
        joined: Height(4),
        keys: vec![RoleKey { key: admin(2).public(), role: Role::Admin }],
        nodes: vec![MemberNode { node: NodeId(20), key: node_key(20).public() }],
        anchors: vec![NodeId(20)],
    };
    vectors.format("member", &member, "");
    vectors.format("invitation", &Invitation { version: 1, org: OrgId(2), by: H, until_ms: AT }, "");
    vectors.format("grant", &GrantRecord { version: 1, id: H, grant: grant(Scope::Everything) }, "");
    vectors.format("revocation", &Revocation { version: 1, height: Height(5), time_ms: AT }, "");
    for (name, how) in [("left", Departure::Left), ("removed", Departure::Removed(H))] {
        let (version, org) = (EXCLUSION_VERSION, OrgId(2));
        let exclusion =
            Exclusion { version, group: GROUP, org, joined: Height(4), height: Height(9), time_ms: AT, how };
        vectors.format(&format!("exclusion: {name}"), &exclusion, "");
    }
    let elector = Elector { org: OrgId(2), role: Role::Admin };
    let voice = Voice { elector, key: admin(2).public(), height: Height(5) };
    for (name, standing) in
        ["open", "applied", "rejected", "withdrawn", "expired", "superseded"].into_iter().zip(ProposalState::ALL)
    {
        let proposal = Proposal {
            version: 1,
            id: H,
            change: Change::Freeze,
            base: 3,
            proposer: OrgId(2),
            height: Height(5),
            time_ms: AT,
            until_ms: AT,
            approvals: vec![voice],
            rejections: vec![],
            state: standing,
        };
        vectors.format(&format!("proposal: {name}"), &proposal, "");
    }
    for (name, standing) in [
        ("waits", PromiseStanding::Waits),
        ("kept", PromiseStanding::Kept { height: Height(5) }),
        ("superseded", PromiseStanding::Superseded { height: Height(5) }),
    ] {
        vectors.format(&format!("promise: {name}"), &PromiseRecord { standing, ..PromiseRecord::waiting(H) }, "");
    }
    for (name, outcome) in [
        ("done", Outcome::Done),
        ("proposal", Outcome::Proposal { id: H, state: ProposalState::Open }),
        ("joined", Outcome::Joined { height: Height(5) }),
        ("left", Outcome::Left { height: Height(5) }),
        ("phase", Outcome::Phase(Phase::Closed)),
    ] {
        vectors.format(&format!("outcome: {name}"), &outcome, "");
    }
    for reject in ChannelReject::ALL {
        vectors.format(reject.code(), reject, "");
    }
    vectors.finish();
}

#[test]
fn keys() {
    let mut vectors = Vectors::open("schema.json");
    let (org, height) = (OrgId(258), Height(5));
    for (name, key) in [
        ("channel", state::channel_key()),
        ("member", state::member_key(org)),
        ("policy", state::policy_key(Subject::Freeze)),
        ("revision of a member", state::revision_key(Target::Member(org))),
        ("revision of nodes", state::revision_key(Target::Nodes(org))),
        ("revision of keys", state::revision_key(Target::Keys(org))),
        ("revision of a policy", state::revision_key(Target::Policy(Subject::Close))),
        ("revision of the phase", state::revision_key(Target::Phase)),
        ("revision of an asset", state::revision_key(Target::Asset(AssetId([3; 16])))),
        ("revision of audits", state::revision_key(Target::Audit(org))),
        ("revision of the engine", state::revision_key(Target::Engine)),
        ("proposal", state::proposal_key(&H)),
        ("invitation", state::invitation_key(org)),
        ("grant", state::grant_key(org, &H)),
        ("exclusion", state::exclusion_key(org, height)),
        ("revocation", state::revocation_key(org, &H)),
        ("asset", state::asset_key(&AssetId([3; 16]))),
        ("promise", state::promise_key()),
    ] {
        vectors.pin(name, &key, "");
    }
    vectors.finish();
}

#[test]
fn founding() {
    let mut vectors = Vectors::open("founding.json");
    let stated = terms(&[2, 3], &majority());
    let id = founding_id(&CLUSTER, OrgId(1), AT, &[7; 16], &stated);
    vectors.format("terms", &stated, &id.to_string());
    for (name, act) in [
        ("approve", FoundingAct::Approve(Hosting { nodes: vec![NodeId(20)], anchors: vec![] })),
        ("reject", FoundingAct::Reject),
        ("withdraw", FoundingAct::Withdraw),
    ] {
        vectors.format(name, &act, "");
    }
    let until = TimeMs(NOW + 1);
    let founding =
        Founding::propose(&CLUSTER, stated, OrgId(1), hosting(1, 2), until, &[7; 16], &Directory, AT).unwrap();
    vectors.format("founding", &founding, "");
    let charter = found(terms(&[2], &everyone()), &[2, 1]);
    vectors.format("charter", &charter, &charter.hash().to_string());
    let genesis = borsh::to_vec(&charter.genesis_writes()).unwrap();
    vectors.pin("genesis", &genesis, &sha256(&genesis).to_string());
    let wanted = opening(&majority());
    vectors.format("opening", &wanted, &wanted.hash().to_string());
    vectors.format("promise", &promise(&wanted, 2), "");
    let founding = propose_sealed(sealed_terms(&[2]), promise(&wanted, 2)).unwrap();
    vectors.format("founding that promises", &founding, &founding.id.to_string());
    let charter = approved(founding, &[1, 1]);
    vectors.format("charter that promises", &charter, &charter.hash().to_string());
    let genesis = borsh::to_vec(&charter.genesis_writes()).unwrap();
    vectors.pin("genesis that promises", &genesis, &sha256(&genesis).to_string());
    vectors.finish();
}
