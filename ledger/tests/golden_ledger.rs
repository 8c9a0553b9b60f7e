//! Golden vectors of what users sign and of what a group keeps: transactions, authorisations,
//! receipts, accounts, assets, and the keys of the database.

mod support;

use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation};
use ledger::claim::{Claim, ClaimList, Claimed, Item, Restriction};
use ledger::evidence::{EVIDENCE_VERSION, Evidence};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{GroupId, Height, Incarnation, LedgerId, LockId, NodeId, OrgId, TimeMs, TxId};
use ledger::lock::{Lock, LockState, LockTerms, hash_of};
use ledger::pair::{self, Pair, Transfer};
use ledger::record::{GrantChange, GrantLog, GrantTerms, Grantee, Record};
use ledger::rules::{Credit, HistoryKind, HistoryLine};
use ledger::tx::{AccountWrite, Condition, Move, Opening, SignedTx, Slot, Submission, TxBody};
use ledger::{
    AccountRecord, Authorisation, Balance, DealtTx, LedgerWitnesses, Outcome, Receipt, Reject, SecretKey, schema,
};
use support::vectors::Vectors;
use support::{asset_def, body, cluster, multi, pay, sign, single};

fn check(condition: Condition) -> Move {
    Move::Check { account: single(1).address(), condition }
}

fn write(write: AccountWrite) -> Move {
    Move::Write { account: single(1).address(), write }
}

const LOCK: LockId = LockId(Hash32([6; 32]));

fn lock_terms() -> LockTerms {
    LockTerms { to: single(2).address(), asset: asset_def(single(1).address(), "EUR").id, amount: 7 }
}

fn every_move() -> Vec<Move> {
    let (issuer, other) = (single(1), multi(2, &[2, 3, 4]));
    let def = asset_def(issuer.address(), "EUR");
    vec![
        pay(issuer.address(), other.address(), def.id, 7),
        Move::Mint { issuer: issuer.address(), to: other.address(), asset: def.id, amount: u128::MAX },
        Move::Burn { issuer: issuer.address(), asset: def.id, amount: 1 },
        Move::Issue(def.spec),
        Move::Rotate { account: issuer.address(), auth: other.auth.clone() },
        Move::PaySync { from: issuer.address(), to: other.address(), asset: def.id, amount: 7 },
        check(Condition::AtLeast { asset: def.id, amount: 7 }),
        check(Condition::AtMost { asset: def.id, amount: 7 }),
        check(Condition::Version(8)),
        check(Condition::NotFrozen(def.id)),
        check(Condition::Consent),
        write(AccountWrite::Data { key: b"name".to_vec(), value: Some(b"Alice".to_vec()) }),
        write(AccountWrite::Data { key: b"name".to_vec(), value: None }),
        write(AccountWrite::Limit { asset: def.id, per_tx: Some(7) }),
        write(AccountWrite::Frozen(true)),
        Move::Freeze { issuer: issuer.address(), account: other.address(), asset: def.id, frozen: true },
        Move::Release { account: issuer.address(), asset: def.id, amount: 7 },
        Move::Return { by: issuer.address(), account: other.address(), to: issuer.address(), asset: def.id, amount: 7 },
        Move::Lock {
            from: issuer.address(),
            to: other.address(),
            asset: def.id,
            amount: 7,
            hash: hash_of(&[5; 32]),
            deadline_ms: TimeMs(8),
        },
        Move::Claim { from: issuer.address(), lock: LOCK, terms: lock_terms(), secret: [5; 32] },
        Move::Refund { from: issuer.address(), lock: LOCK, terms: lock_terms() },
        Move::Record { owner: issuer.address(), hash: Hash32([8; 32]), metadata: b"invoice 42".to_vec() },
        Move::Grant {
            owner: issuer.address(),
            record: Hash32([8; 32]),
            to: Grantee::Account(other.address()),
            terms: GrantTerms { scope: "read".to_owned(), until_ms: Some(TimeMs(9)) },
        },
        Move::Revoke { owner: issuer.address(), record: Hash32([8; 32]), from: Grantee::Org(OrgId(3)) },
        Move::Transfer {
            from: issuer.address(),
            to: other.address(),
            asset: def.id,
            amount: 7,
            ledger: LedgerId::of_channel(GroupId::channel(5)),
        },
    ]
}

/// A move without a vector does not compile here.
fn name_of(mv: &Move) -> &'static str {
    match mv {
        Move::Pay { .. } => "pay",
        Move::Mint { .. } => "mint",
        Move::Burn { .. } => "burn",
        Move::Issue(_) => "issue",
        Move::Rotate { .. } => "rotate",
        Move::PaySync { .. } => "pay sync",
        Move::Check { condition, .. } => match condition {
            Condition::AtLeast { .. } => "check at least",
            Condition::AtMost { .. } => "check at most",
            Condition::Version(_) => "check version",
            Condition::NotFrozen(_) => "check not frozen",
            Condition::Consent => "check consent",
        },
        Move::Write { write, .. } => match write {
            AccountWrite::Data { value: Some(_), .. } => "write data",
            AccountWrite::Data { value: None, .. } => "remove data",
            AccountWrite::Limit { .. } => "write limit",
            AccountWrite::Frozen(_) => "write frozen",
        },
        Move::Freeze { .. } => "freeze",
        Move::Release { .. } => "release",
        Move::Return { .. } => "return",
        Move::Lock { .. } => "lock",
        Move::Claim { .. } => "claim",
        Move::Refund { .. } => "refund",
        Move::Record { .. } => "record",
        Move::Grant { .. } => "grant",
        Move::Revoke { .. } => "revoke",
        Move::Transfer { .. } => "transfer",
    }
}

#[test]
fn transactions() {
    let mut vectors = Vectors::open("transactions.json");
    let (one, many) = (single(1), multi(2, &[2, 3, 4]));
    for mv in every_move() {
        let body = body(vec![mv.clone()]);
        let signed = sign(&body, &[&one]);
        vectors.format(&format!("body/{}", name_of(&mv)), &body, &signed.txid(&cluster()).to_string());
    }
    let mut hidden = body(vec![every_move().remove(0)]);
    hidden.memo = b"invoice 42".to_vec();
    hidden.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: GroupId::shard(5), hash: Hash32([6; 32]) });
    vectors.format("body/hidden slot and memo", &hidden, &sign(&hidden, &[]).txid(&cluster()).to_string());
    let both = body(vec![
        pay(one.address(), many.address(), asset_def(one.address(), "EUR").id, 1),
        pay(many.address(), one.address(), asset_def(one.address(), "EUR").id, 2),
    ]);
    let signed: SignedTx = sign(&both, &[&one, &many]);
    vectors.format("signed/single and two of three", &signed, &signed.txid(&cluster()).to_string());
    assert_eq!(TxBody::decode(&signed.body), Ok(both));
    assert!(support::ingest(&signed).is_ok());
    let opening = Opening { slot: 1, salt: Hash32([7; 32]), mv: every_move().remove(0) };
    vectors.format("opening", &opening, &opening.hash().to_string());
    let submission = Submission { version: 2, tx: signed.encode(), openings: vec![opening.clone()] };
    vectors.format("submission", &submission, "");
    let channel = GroupId::channel(5);
    let mut across = body(vec![pay(one.address(), many.address(), asset_def(one.address(), "EUR").id, 1)]);
    let (ledger, hash) = (LedgerId::of_channel(channel), opening.hash());
    across.slots.push(Slot::Hidden { ledger, group: channel, hash });
    let signed = sign(&across, &[&one, &many]);
    let of = |ledger, at: usize| LedgerWitnesses { ledger, witnesses: vec![signed.witnesses[at].clone()] };
    let witnesses = vec![of(LedgerId::MAIN, 0), of(ledger, 1)];
    let dealt = DealtTx { version: 3, body: signed.body.clone(), witnesses, openings: vec![opening] };
    vectors.format("dealt by ledger", &dealt, &signed.txid(&cluster()).to_string());
    vectors.finish();
}

#[test]
fn authorisations_and_addresses() {
    let mut vectors = Vectors::open("authorisations.json");
    for (name, owner) in [("single", single(1)), ("multi", multi(2, &[2, 3, 4])), ("one of one", multi(1, &[5]))] {
        vectors.format::<Authorisation>(&format!("authorisation/{name}"), &owner.auth, &owner.address().to_string());
        vectors.format(&format!("address/{name}"), &owner.address(), &owner.address().partition().to_string());
        let witness = owner.witness(&sha256(b"a digest"));
        assert!(witness.verifies(&sha256(b"a digest")));
        vectors.format(&format!("witness/{name}"), &witness, "");
    }
    vectors.finish();
}

#[test]
fn receipts() {
    let mut vectors = Vectors::open("receipts.json");
    let receipt = |outcome| Receipt {
        version: 1,
        txid: TxId(Hash32([1; 32])),
        group: GroupId::shard(2),
        height: Height(3),
        index: 4,
        time_ms: support::NOW,
        outcome,
    };
    let mut pin = |name: &str, receipt: &Receipt| vectors.format(name, receipt, &receipt.leaf().to_string());
    pin("committed", &receipt(Outcome::Committed { mail: Vec::new() }));
    let mail = vec![(GroupId::shard(1), 5), (GroupId::channel(7), u64::MAX)];
    pin("committed with mail", &receipt(Outcome::Committed { mail }));
    for reject in Reject::ALL {
        pin(&format!("rejected/{}", reject.code()), &receipt(Outcome::Rejected(*reject)));
    }
    let aborted = Outcome::Aborted { group: GroupId::shard(1), reason: Reject::Conflict };
    pin("aborted", &receipt(aborted));
    vectors.finish();
}

#[test]
fn rejections_without_a_number_do_not_decode() {
    for number in [0, 1000, u16::MAX] {
        assert!(borsh::from_slice::<Reject>(&number.to_le_bytes()).is_err());
    }
}

#[test]
fn accounts_assets_and_history() {
    let mut vectors = Vectors::open("accounts.json");
    let def = asset_def(single(1).address(), "EUR");
    let balance = Balance { posted: u128::MAX, held: 9 };
    vectors.format("balance", &balance, "");
    vectors.format("account/new", &AccountRecord::default(), "");
    let full = AccountRecord {
        version: 1,
        auth: Some(multi(2, &[2, 3, 4]).auth),
        flags: ledger::account::FLAG_FROZEN,
        sequence: 8,
        balances: vec![(def.id, balance)],
    };
    vectors.format("account/full", &full, "");
    vectors.format("asset/definition", &def, &def.id.to_string());
    vectors.format("supply", &u128::MAX, "");
    let (asset, txid) = (def.id, TxId(Hash32([1; 32])));
    let items = [Item::Auth, Item::Data(b"name".to_vec()), Item::Limit(asset), Item::Frozen, Item::Restriction(asset)];
    let mut claims = vec![
        Claim::AtLeast { asset, amount: 1 },
        Claim::AtMost { asset, amount: 2 },
        Claim::Incoming { asset, amount: 3 },
        Claim::Version,
        Claim::Mint { asset, amount: 4 },
        Claim::Suspense { asset, amount: 5 },
    ];
    claims.extend(items.into_iter().map(Claim::Change));
    let claims = claims.into_iter().map(|claim| Claimed { txid, claim }).collect();
    vectors.format("claims", &ClaimList { version: 1, claims }, "");
    let [hash, who] = [Hash32([8; 32]), Hash32([6; 32])];
    let claimed = |item| Claimed { txid, claim: Claim::Change(item) };
    let items = [Item::Lock(LockId(who)), Item::Record(hash), Item::Grant(hash, Grantee::Org(OrgId(3)))];
    let claims = items.into_iter().map(claimed).collect();
    vectors.format("claims/locks and records", &ClaimList { version: 1, claims }, "");
    vectors.format("restriction", &Restriction { version: 1, frozen: true, suspense: 6 }, "");
    let credit =
        Credit { txid: TxId(Hash32([1; 32])), move_index: 2, account: single(1).address(), asset: def.id, amount: 3 };
    vectors.format("credit", &credit, "");
    for kind in [
        HistoryKind::Sent,
        HistoryKind::Received,
        HistoryKind::Minted,
        HistoryKind::Burned,
        HistoryKind::Rotated,
        HistoryKind::Suspended,
        HistoryKind::Released,
        HistoryKind::Returned,
        HistoryKind::Frozen,
        HistoryKind::Thawed,
        HistoryKind::Written,
        HistoryKind::Locked,
        HistoryKind::Claimed,
        HistoryKind::Refunded,
        HistoryKind::Recorded,
        HistoryKind::Granted,
        HistoryKind::Revoked,
        HistoryKind::Departed,
        HistoryKind::Arrived,
    ] {
        let line = HistoryLine {
            account: single(1).address(),
            kind,
            txid: credit.txid,
            asset: def.id,
            amount: 3,
            other: (kind == HistoryKind::Sent).then(|| single(2).address()),
        };
        vectors.format(&format!("history/{kind:?}"), &line, "");
    }
    vectors.finish();
}

#[test]
fn locks_records_and_pairs() {
    let mut vectors = Vectors::open("promises.json");
    let txid = TxId(Hash32([1; 32]));
    vectors.format("lock id", &LockId::derive(&txid, 2), "");
    let settled = [
        ("open", LockState::Open),
        ("claimed", LockState::Claimed { secret: [5; 32], txid, at_ms: TimeMs(7) }),
        ("refunded", LockState::Refunded { txid, at_ms: TimeMs(8) }),
    ];
    for (name, state) in settled {
        let lock = Lock { version: 1, terms: lock_terms(), hash: hash_of(&[5; 32]), deadline_ms: TimeMs(8), state };
        vectors.format(&format!("lock/{name}"), &lock, &lock.hash.to_string());
    }
    let record = Record { version: 1, metadata: b"invoice 42".to_vec(), at_ms: TimeMs(7), txid, grantees: 2 };
    vectors.format("record", &record, "");
    for who in [Grantee::Account(single(2).address()), Grantee::Org(OrgId(3))] {
        vectors.format(&format!("grantee/{who:?}"), &who, "");
    }
    let terms = GrantTerms { scope: "read".to_owned(), until_ms: Some(TimeMs(9)) };
    let for_ever = GrantTerms { until_ms: None, ..terms.clone() };
    let change = |at, terms| GrantChange { at_ms: TimeMs(at), txid, terms };
    let changes = vec![change(7, Some(terms)), change(8, Some(for_ever)), change(9, None)];
    vectors.format("grants", &GrantLog { version: 1, changes }, "");
    let (peer, asset) = (LedgerId::of_channel(GroupId::channel(5)), lock_terms().asset);
    let pair = Pair { amount: Balance { posted: 9, held: 2 }, refused: 4, ..Pair::new(peer, asset) };
    vectors.format("pair", &pair, &pair::address(peer, &asset).to_string());
    let account = single(2).address();
    let transfer = Transfer { txid, move_index: 2, from: LedgerId::MAIN, to: peer, account, asset, amount: 7 };
    vectors.format("transfer", &transfer, "");
    vectors.finish();
}

#[test]
fn ballots_and_evidence() {
    let mut vectors = Vectors::open("evidence.json");
    let key = SecretKey::derive(b"member", &[3]);
    let ballot = |kind, value: Option<u8>| Ballot {
        version: BALLOT_VERSION,
        cluster: cluster(),
        group: GroupId::shard(1),
        incarnation: Incarnation(0),
        committee: Hash32([5; 32]),
        index: 9,
        round: 2,
        kind,
        value: value.map(|byte| Hash32([byte; 32])),
        node: NodeId(3),
    };
    for (name, ballot) in [
        ("ballot/proposal", ballot(BallotKind::Proposal { valid_round: None }, Some(1))),
        ("ballot/proposal again", ballot(BallotKind::Proposal { valid_round: Some(1) }, Some(1))),
        ("ballot/prevote", ballot(BallotKind::Prevote, Some(1))),
        ("ballot/precommit of nothing", ballot(BallotKind::Precommit, None)),
    ] {
        vectors.format(name, &ballot.sign(&key), &ballot.digest().to_string());
    }
    let [one, other] = [1, 2].map(|value| ballot(BallotKind::Prevote, Some(value)).sign(&key));
    let proof = Equivocation::of(one, other).expect("they exclude each other");
    vectors.format("equivocation", &proof, &proof.id().to_string());
    let kept = Evidence { version: EVIDENCE_VERSION, height: Height(7), time_ms: TimeMs(8), proof };
    vectors.format("evidence", &kept, "");
    vectors.finish();
}

#[test]
fn keys_of_the_database() {
    let mut vectors = Vectors::open("schema.json");
    let (address, asset) = (single(1).address(), asset_def(single(1).address(), "EUR").id);
    let (group, height, txid) = (GroupId::shard(3), Height(0x0102), TxId(Hash32([4; 32])));
    let keys = [
        ("account", schema::account(&address)),
        ("extra_balance", schema::extra_balance(&address, &asset)),
        ("supply", schema::supply(&address, &asset)),
        ("asset", schema::asset(&asset)),
        ("committee", schema::committee(group, &Hash32([5; 32]))),
        ("current_committee", schema::current_committee(group)),
        ("layout", schema::layout()),
        ("mail", schema::mail(group, 6)),
        ("outbox", schema::outbox(group)),
        ("inbox", schema::inbox(group)),
        ("outbox_prefix", schema::OUTBOX_PREFIX.to_vec()),
        ("inbox_prefix", schema::INBOX_PREFIX.to_vec()),
        ("header", schema::header(height)),
        ("block", schema::block(height)),
        ("certificate", schema::certificate(height)),
        ("receipt", schema::receipt(&txid)),
        ("history", schema::history(&address, height, 7)),
        ("history_prefix", schema::history_prefix(&address)),
        ("applied", schema::applied()),
        ("total", schema::total(&asset)),
        ("entry", schema::entry(height)),
        ("register", schema::register(&address, &txid)),
        ("claims", schema::claims(&address)),
        ("restriction", schema::restriction(&address, &asset)),
        ("data", schema::data(&address, b"name")),
        ("limit", schema::limit(&address, &asset)),
        ("prepared", schema::prepared(&txid)),
        ("deadline", schema::deadline(support::NOW, &txid)),
        ("swept", schema::swept()),
        ("lock", schema::lock(&address, &LOCK)),
        ("record_count", schema::record_count(&address)),
        ("record", schema::record(&address, &Hash32([8; 32]))),
        ("grant/account", schema::grant(&address, &Hash32([8; 32]), &Grantee::Account(single(2).address()))),
        ("grant/org", schema::grant(&address, &Hash32([8; 32]), &Grantee::Org(OrgId(3)))),
        ("registry_extract", schema::registry_extract()),
        ("flow_head", schema::flow_head()),
        ("sealed_flow", schema::sealed_flow(height)),
        ("flow_salt", schema::flow_salt()),
        ("pair", schema::pair(LedgerId::of_channel(GroupId::channel(5)), &asset)),
        ("coming_committee", schema::coming_committee()),
        ("handover", schema::handover(height)),
        ("founded", schema::founded(GroupId::channel(5))),
        ("engine_start", schema::engine_start()),
        ("sealed", schema::sealed()),
        ("origin", schema::origin()),
        ("archived", schema::archived(group, &schema::header(height))),
        ("born", schema::born(group)),
        ("closed", schema::closed(GroupId::shard(1), group)),
        ("closed_mail", schema::closed_mail(GroupId::shard(1), group, 6)),
        ("evidence", schema::evidence(ledger::BitPrefix::ALL)),
        ("evidence of a shard", schema::evidence(ledger::BitPrefix::ALL.child(true).child(false))),
        (
            "evidence of a member",
            schema::evidence_of(ledger::BitPrefix::ALL, GroupId::shard(1), &Hash32([5; 32]), NodeId(3)),
        ),
    ];
    for (name, key) in &keys {
        // The hash of a state key is its position in the state tree; others have none.
        let position = schema::tree_position(key).map(hex::encode).unwrap_or_default();
        assert_eq!(position.is_empty(), key[0] != schema::STATE);
        vectors.pin(name, key, &position);
    }
    assert!(keys.iter().all(|(_, key)| keys.iter().filter(|(_, other)| other == key).count() == 1));
    assert!(schema::outbox(group).starts_with(schema::OUTBOX_PREFIX));
    assert!(schema::inbox(group).starts_with(schema::INBOX_PREFIX));
    assert!(schema::closed(GroupId::shard(1), group).starts_with(schema::CLOSED_PREFIX));
    assert_eq!(schema::closed_of(&schema::closed(GroupId::shard(1), group)), Some((GroupId::shard(1), group)));
    assert!(schema::committee(group, &Hash32([5; 32])).starts_with(schema::COMMITTEES_PREFIX));
    assert!(schema::current_committee(group).starts_with(schema::CURRENT_COMMITTEES_PREFIX));
    assert!(schema::handover(height).starts_with(schema::HANDOVER_PREFIX));
    assert!(schema::history(&address, height, 7).starts_with(&schema::history_prefix(&address)));
    vectors.finish();
}
