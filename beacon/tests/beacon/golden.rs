//! Golden vectors: these bytes are signed, hashed, stored or recomputed by others. A change here is
//! a new format version, never an edit.

use beacon::accused::{ACCUSATION_VERSION, ACCUSED_VERSION, Accusation, Accused, Hindrance, Removal};
use beacon::audit::quarantine::Held;
use beacon::command::{BeaconCommand, SignedCommand};
use beacon::epochs::{Contribution, Entrant, Part, commitment_of, seed_of};
use beacon::jobs::{JobKind, JobReport, Phase, Said, ScalePolicy};
use beacon::nodes::{REMOVED_NODE_VERSION, RemovedNode};
use beacon::policies::{Matter, POLICY_RECORD_VERSION, PolicyChange, Ruled, default_policy, policy_key};
use beacon::registry::{AuditHead, Checkpoint, RegistryHead};
use beacon::watch::{WATCH_VERSION, WatchEvent, WatchNote};
use beacon::{
    ChannelEntry, ClusterView, CommandOutcome, Constraints, EpochPolicy, GroupSeats, Silence, Watch, WatchMode, assign,
    registry,
};
use cross_shard::notice::{ChannelStatus, ChannelUpdate};
use ledger::hash::{Hash32, sha256, tagged};
use ledger::ids::{ClusterId, GroupId, Height, JobId, LayoutVersion, NodeId, OrgId, TimeMs};

use crate::support::{admin, dealt, genesis, node, org, state_of};

fn command() -> SignedCommand {
    let command = BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 2 };
    SignedCommand::sign(&ClusterId(Hash32([1; 32])), &command, OrgId(2), [7; 16], TimeMs(1_700_000_000_000), &admin(2))
}

#[test]
fn a_signed_command() {
    let signed = command();
    assert_eq!(hex::encode(&signed.command), "04030000000200");
    assert_eq!(
        signed.digest(&ClusterId(Hash32([1; 32]))).to_string(),
        "330a1dc9f3e32b0974ae7763dc5eb1d8dcf557adfa4aef2500cfe3cb94fa43ef"
    );
    assert_eq!(
        hex::encode(signed.encode()),
        "010700000004030000000200070707070707070707070707070707070068e5cf8b0100000200a5a132b3402bc027bcf096bae7abc1c9b46adb3fe22a00b3edfa4f488a6bfd976de7512a32c309165e48d3851d4def68705410b77159d1ad959a9dccac1a53f4"
    );
    assert_eq!(SignedCommand::decode(&signed.encode()), Ok(signed));
}

#[test]
fn the_variants_of_commands() {
    let addrs = BeaconCommand::UpdateNodeAddrs { node: NodeId(1), peer_addr: "a:1".into(), client_addr: "b:2".into() };
    let tls = BeaconCommand::UpdateNodeTls { node: NodeId(1), tls_key_hash: Hash32([2; 32]) };
    let hash = |command: &BeaconCommand| sha256(&borsh::to_vec(command).unwrap()).to_string()[..16].to_owned();
    let found = [
        BeaconCommand::RegisterOrg(org(1)),
        BeaconCommand::RegisterNode(node(1, 1, "zone-1")),
        addrs,
        tls,
        BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity: 1 },
        BeaconCommand::UpdateOrgCa { ca_pem: "pem".into() },
        BeaconCommand::RotateAdminKey { key: admin(1).public() },
        BeaconCommand::RevokeCredential { credential: Hash32([3; 32]) },
        BeaconCommand::ActOnChannel {
            founding: Hash32([4; 32]),
            act: channel::FoundingAct::Approve(crate::channels::hosting(2)),
        },
        BeaconCommand::RemoveOrg { org: OrgId(4) },
        BeaconCommand::SwitchEngine { group: GroupId::shard(1), engine: ledger::Engine::Bft },
        BeaconCommand::RemoveNode { node: NodeId(1) },
        BeaconCommand::JoinNode { node: NodeId(1) },
        BeaconCommand::ReplaceNode { node: NodeId(1), successor: NodeId(2) },
        BeaconCommand::SetWatch(Watch { mode: WatchMode::Replace, ..Watch::DEFAULT }),
        BeaconCommand::SetEpochs(EpochPolicy {
            length_ms: 3_600_000,
            bad_nodes: 8,
            risk_max_ppb: 1_000,
            ..EpochPolicy::DEFAULT
        }),
        BeaconCommand::Rebalance,
        BeaconCommand::ReleaseQuarantine(Held { group: GroupId::shard(1), node: Some(NodeId(2)) }),
    ]
    .map(|command| hash(&command));
    assert_eq!(
        found,
        [
            "3717bcdb1838bab3",
            "c6e9bff4c397227b",
            "2034bd3e1d5cf04a",
            "f3e63c6664b6e564",
            "76f2cb2553af062b",
            "aa595d6fc2cc33ec",
            "d06081375167abf3",
            "a579855a8cd18dd6",
            "04983c9d62e392fa",
            "ad6878882a6750ba",
            "4a6490173d3aaa6a",
            "e7359eddf11019ba",
            "d01b6dffdd0a8aa5",
            "048a80d0256b7def",
            "0509f21bde9b61f6",
            "25a037d52901a05f",
            "68aa2e2ee5dff96e",
            "9647035c1af8fa97"
        ]
    );
}

/// Small enough to be read: number, fields in order.
#[test]
fn the_commands_about_jobs() {
    let (one, two) = (GroupId::shard(1), GroupId::shard(2));
    let (layout, job) = (LayoutVersion(2), JobId(5));
    for (command, expected) in [
        (BeaconCommand::SplitShard { group: one, layout, manual: true }, "1e 0100000000000002 0200000000000000 01"),
        (
            BeaconCommand::MergeShards { left: one, right: two, layout, manual: false },
            "1f 0100000000000002 0200000000000002 0200000000000000 00",
        ),
        (
            BeaconCommand::MoveShard { group: one, from: NodeId(1), to: NodeId(2), layout },
            "20 0100000000000002 01000000 02000000 0200000000000000",
        ),
        (
            BeaconCommand::SetPolicy(PolicyChange { matter: Matter::Jobs, base: 2, policy: default_policy() }),
            "2a 05 0200000000000000 01 01 02 0100 00 00",
        ),
        (BeaconCommand::CutShard { job }, "21 0500000000000000"),
        (BeaconCommand::CancelJob { job }, "22 0500000000000000"),
        (
            BeaconCommand::SetScale(ScalePolicy::DEFAULT),
            "23 02 00 01 0000000000000000 00000000 0000000000000000 00000000 c027090000000000 80ee360000000000 0100 0004 00000000 00000000 19 c027090000000000",
        ),
    ] {
        assert_eq!(hex::encode(borsh::to_vec(&command).unwrap()), expected.replace(' ', ""), "{command:?}");
    }
    let outcome = CommandOutcome::Job { id: job, phase: Phase::Sealing };
    assert_eq!(hex::encode(borsh::to_vec(&outcome).unwrap()), "04050000000000000003");
    for (said, expected) in [
        (Said::Warm(job), "00 0500000000000000"),
        (Said::Cold(job), "01 0500000000000000"),
        (Said::Open(job), "02 0500000000000000"),
        (Said::Load { accounts: 1, bytes: 2, tps: 3 }, "03 0100000000000000 0200000000000000 03000000"),
        (Said::Follows { accounts: 1, bytes: 2, tps: 3 }, "04 0100000000000000 0200000000000000 03000000"),
    ] {
        assert_eq!(hex::encode(borsh::to_vec(&said).unwrap()), expected.replace(' ', ""), "{said:?}");
    }
    for (kind, expected) in [
        (JobKind::Split { group: one }, "00 0100000000000002"),
        (JobKind::Merge { left: one, right: two }, "01 0100000000000002 0200000000000002"),
        (JobKind::Move { group: one, from: NodeId(1), to: NodeId(2) }, "02 0100000000000002 01000000 02000000"),
    ] {
        assert_eq!(hex::encode(borsh::to_vec(&kind).unwrap()), expected.replace(' ', ""), "{kind:?}");
    }
    let report = JobReport::sign(ClusterId(Hash32([1; 32])), NodeId(2), one, TimeMs(9), Said::Warm(job), &admin(2));
    let unsigned = format!("01{}02000000010000000000000209000000000000000005{}", "01".repeat(32), "00".repeat(7));
    let signed = hex::encode(borsh::to_vec(&report).unwrap());
    assert!(signed.starts_with(&unsigned) && signed.len() == unsigned.len() + 128, "{signed}");
    let digest = tagged(b"seamark/report/v1", &[&[1; 32], &hex::decode(&unsigned).unwrap()]);
    assert_eq!(report.digest(), digest);
}

#[test]
fn records() {
    let encoded = |value: Vec<u8>| hex::encode(value);
    let checkpoint =
        Checkpoint { height: Height(5), header_hash: Hash32([1; 32]), state_root: Hash32([2; 32]), time_ms: TimeMs(9) };
    let expected = format!("0500000000000000{}{}0900000000000000", "01".repeat(32), "02".repeat(32));
    assert_eq!(encoded(borsh::to_vec(&checkpoint).unwrap()), expected);
    let head = AuditHead { changes: 3, chain: Hash32([4; 32]) };
    assert_eq!(encoded(borsh::to_vec(&head).unwrap()), format!("0300000000000000{}", "04".repeat(32)));
    let accusation = Accusation {
        version: ACCUSATION_VERSION,
        node: NodeId(3),
        org: OrgId(2),
        group: GroupId::shard(1),
        evidence: Hash32([5; 32]),
        height: Height(7),
        time_ms: TimeMs(8),
    };
    let expected = format!("01030000000200{}{}0700000000000000 0800000000000000", "0100000000000002", "05".repeat(32));
    let expected = expected.replace(' ', "");
    assert_eq!(encoded(borsh::to_vec(&accusation).unwrap()), expected);
    let seat = |hindrance| Removal { node: NodeId(3), group: GroupId::shard(1), hindrance };
    let removals = [None, Some(Hindrance::Change), Some(Hindrance::NoNode)].map(seat);
    let accused = Accused { version: ACCUSED_VERSION, accusations: vec![accusation], removals: removals.to_vec() };
    let seats = ["00", "0100", "0101"].map(|hindrance| format!("030000000100000000000002{hindrance}"));
    let expected = format!("0101000000{expected}03000000{}", seats.concat());
    assert_eq!(encoded(borsh::to_vec(&accused).unwrap()), expected);
    let gone = RemovedNode {
        version: REMOVED_NODE_VERSION,
        node: NodeId(3),
        org: OrgId(2),
        key: ledger::PublicKey([7; 33]),
        removed_ms: TimeMs(8),
    };
    let expected = format!("01030000000200{}0800000000000000", "07".repeat(33));
    assert_eq!(encoded(borsh::to_vec(&gone).unwrap()), expected);
    let (event, height, time_ms) = (WatchEvent::TooMany, Height(7), TimeMs(8));
    let note = WatchNote { version: WATCH_VERSION, number: 4, node: NodeId(3), event, height, time_ms };
    assert_eq!(encoded(borsh::to_vec(&note).unwrap()), "010400000000000000030000000207000000000000000800000000000000");
    let cluster = ClusterId(Hash32([1; 32]));
    let report = Silence::sign(cluster, NodeId(2), TimeMs(9), vec![NodeId(3), NodeId(4)], &admin(2));
    assert_eq!(report.digest().to_string(), "92786910df201a85ed2eaa94153dcac7be0688b8b24202f8d97aa7e5400b8235");
    let secret = Hash32([5; 32]);
    let commitment = commitment_of(&cluster, 3, NodeId(2), &secret);
    assert_eq!(commitment.to_string(), "b08b95c2023f0bf2bd2bb311a62d514e938be649d188ab0445f6c21160cce8e7");
    let given = Contribution::sign(cluster, 3, NodeId(2), Part::Secret(secret), &admin(2));
    assert_eq!(given.digest().to_string(), "a128709634ddf7c5be78a8348ef0940e809ddf0063e9dfb8d0b1fdcd7919a23e");
    let key = admin(2).public();
    let (node, org) = (NodeId(2), OrgId(1));
    let entrant = Entrant { node, org, key, barred: false, commitment: Some(commitment), secret: Some(secret) };
    let absent = Entrant { node: NodeId(3), commitment: None, secret: None, ..entrant.clone() };
    let seed = seed_of(&Hash32([9; 32]), 3, &[entrant, absent]);
    assert_eq!(seed.to_string(), "2b6916ed28bc1b89d4420fac84c41ffda299f94b481324b97febf3fe83fa4293");
    let pending = CommandOutcome::Pending { approvals: 1, needed: 2 };
    assert_eq!(encoded(borsh::to_vec(&pending).unwrap()), "0101000200");
    let id = Hash32([6; 32]);
    let waits = CommandOutcome::Founding { id, phase: channel::Phase::Abandoned };
    assert_eq!(encoded(borsh::to_vec(&waits).unwrap()), format!("02{}06", "06".repeat(32)));
    let founded = CommandOutcome::Founded { id, group: GroupId::channel(1) };
    assert_eq!(encoded(borsh::to_vec(&founded).unwrap()), format!("03{}0100000000000003", "06".repeat(32)));
    let entry = ChannelEntry {
        version: 1,
        group: GroupId::channel(1),
        name: "steel".to_owned(),
        founding: id,
        shown: ChannelUpdate {
            version: 2,
            members: vec![OrgId(1), OrgId(2)],
            nodes: vec![NodeId(3), NodeId(4)],
            anchors: vec![NodeId(4)],
            status: ChannelStatus::Closing,
            engine: ledger::Engine::Bft,
        },
    };
    assert_eq!(
        encoded(borsh::to_vec(&entry).unwrap()),
        format!(
            "01010000000000000305000000737465656c{}0202000000010002000200000003000000040000000100000004000000 02 01",
            "06".repeat(32)
        )
        .replace(' ', "")
    );
    assert_eq!(
        hex::encode(registry::audit_key()),
        "53196c56bd372f1af80953bd264e9538a34886bc1c8b5985a3e8fdd0b8e687317ef0"
    );
    assert_eq!(policy_key(Matter::Policy), b"Gpolicy/\x01");
    let ruled = Ruled { version: POLICY_RECORD_VERSION, revision: 3, policy: default_policy() };
    assert_eq!(encoded(borsh::to_vec(&ruled).unwrap()), "01030000000000000001010201000000");
    assert_eq!(registry::checkpoint_key(GroupId::shard(1)), b"Gcheckpoint/\x02\0\0\0\0\0\0\x01");
    assert_eq!(
        hex::encode(registry::epochs_key()),
        "53196c56bd372f1af80953bd264e9538a34886bc1c8b5985a3e8fdd0b8e687317ef3"
    );
    let head = RegistryHead::of(2, &ClusterView::from_genesis(&genesis()).encode());
    assert_eq!(
        hex::encode(borsh::to_vec(&head).unwrap()),
        "01020000000000000071c36b3d3dc61ada291b09be8f3398d8bf39df4fc25fbfeb94fe05bdf607fbde"
    );
    assert_eq!(
        hex::encode(registry::head_key()),
        "53196c56bd372f1af80953bd264e9538a34886bc1c8b5985a3e8fdd0b8e687317ef1"
    );
}

#[test]
fn the_registry_of_a_fixed_genesis() {
    let genesis = genesis();
    let bytes =
        borsh::to_vec(&state_of(&genesis).into_iter().map(|(k, v)| (k, v.to_vec())).collect::<Vec<_>>()).unwrap();
    assert_eq!(genesis.cluster_id().to_string(), "5af306c59405b70037b69b7c9f7eb4bd41e44d076899fbab89ca05f3041b469c");
    assert_eq!(sha256(&bytes).to_string(), "196c36a6d45ff184243d7bc7096cdfe2b6488fa02e60ddfd44bcb882099a76fc");
}

#[test]
fn the_assignment_of_a_fixed_seed() {
    let mut groups = vec![GroupSeats { group: GroupId::BEACON, seats: 3, engine: ledger::Engine::Raft }];
    groups.extend((0..4).map(|ordinal| GroupSeats {
        group: GroupId::shard(ordinal),
        seats: 3,
        engine: ledger::Engine::Raft,
    }));
    let seated = assign(&Hash32([0x5e; 32]), &dealt(7, 3), &groups, &Constraints::default()).unwrap();
    let text: Vec<String> = seated
        .iter()
        .map(|(group, nodes)| format!("{group}: {:?}", nodes.iter().map(|node| node.0).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        text.join("\n"),
        "beacon: [1, 2, 6]\nshard-0: [3, 5, 7]\nshard-1: [2, 3, 4]\nshard-2: [5, 6, 7]\nshard-3: [2, 4, 6]"
    );
}
