use super::*;
use ledger::tx::Condition;
use ledger::{AssetId, Move, crypto, hash};

const EUR: AssetId = AssetId([1; 16]);

fn key(name: &str) -> SecretKey {
    SecretKey::derive(b"file", name.as_bytes())
}

fn single(name: &str) -> (Address, Authorisation) {
    let auth = Authorisation::Single(key(name).public());
    (auth.address(), auth)
}

fn board() -> (Address, Authorisation) {
    let mut keys: Vec<PublicKey> = ["alice", "bob", "carol"].iter().map(|name| key(name).public()).collect();
    keys.sort_unstable();
    let auth = Authorisation::Multi { threshold: 2, keys };
    (auth.address(), auth)
}

fn cluster() -> ClusterId {
    ClusterId(hash::sha256(b"cluster"))
}

fn leg(mv: Move) -> Leg {
    Leg { mv, hidden: false, line: 1 }
}

fn pay(from: Address, to: Address, amount: u128) -> Leg {
    leg(Move::Pay { from, to, asset: EUR, amount })
}

fn build(legs: &[Leg], known: &[(Address, Authorisation)]) -> Result<TxFile, CliError> {
    let layout = Layout::even(4);
    let frame = Frame {
        cluster: cluster(),
        layout: &layout,
        valid_until_ms: TimeMs(1_700_000_000_000),
        salt: [7; 16],
        slot_secret: hash::sha256(b"secret"),
        memo: "trade 7",
    };
    TxFile::build(&frame, legs, |account| known.iter().find(|(of, _)| of == account).map(|(_, rule)| rule.clone()))
}

fn label(address: &Address) -> String {
    address.to_string()
}

/// Decoded as the ledger would, with every signature checked.
fn checked(file: &TxFile) -> ParsedTx {
    let bytes = Submission::encode(file.signed(label).unwrap(), file.openings().to_vec());
    let parsed = ParsedTx::decode(&cluster(), &bytes).unwrap();
    assert_eq!(parsed.txid, file.txid());
    assert_eq!(parsed.verify_signatures(), Ok(()));
    parsed
}

/// A swap with a hidden leg and a joint account, half signed: every field of the format is there.
fn example() -> TxFile {
    let (alice, bob, board) = (single("alice"), single("bob"), board());
    let hidden = Leg { hidden: true, ..pay(bob.0, alice.0, 5) };
    let stranger = single("stranger").0;
    let consent = leg(Move::Check { account: stranger, condition: Condition::Consent });
    let legs = [pay(alice.0, bob.0, 500), hidden, pay(board.0, bob.0, 1), consent];
    let mut file = build(&legs, &[alice, bob, board]).unwrap();
    assert_eq!(file.sign(&key("alice")).len(), 2, "for itself and for the board");
    file
}

#[test]
fn a_file_is_pinned_byte_by_byte() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/transaction_file.json");
    let text = example().to_text();
    if std::env::var("SEAMARK_REGENERATE_VECTORS").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors")).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(golden, text, "the transaction file changed");
    assert_eq!(TxFile::from_text(&golden).unwrap(), example());
}

#[test]
fn it_is_complete_when_every_account_has_its_signatures() {
    let mut file = example();
    let missing: Vec<usize> = file.signers().iter().map(Signer::missing).collect();
    assert_eq!(missing, [0, 1, 1, 1], "alice has signed for herself and once for the board");
    let error = file.signed(label).unwrap_err();
    assert_eq!(error.code, "tx_incomplete");
    assert!(error.cause.contains(&board().0.to_string()) && !error.cause.contains(&single("alice").0.to_string()));

    assert_eq!(file.sign(&key("mallory")), [], "a key without a say changes nothing");
    // Nobody knew the stranger's key; its own signature tells.
    assert_eq!(file.sign(&key("stranger")), [single("stranger").0]);
    assert_eq!(file.sign(&key("bob")).len(), 2);
    assert!(file.complete());
    let parsed = checked(&file);
    assert_eq!((parsed.witnesses.len(), parsed.openings.len()), (4, 1));
    // A third signature of the board is kept and not sent: a witness has exactly as many as needed.
    assert_eq!(file.sign(&key("carol")), [board().0]);
    assert_eq!(checked(&file).witnesses[2].signatures.len(), 2);
}

#[test]
fn copies_that_were_signed_apart_come_together() {
    let fresh = || {
        let (alice, bob) = (single("alice"), single("bob"));
        let hidden = Leg { hidden: true, ..pay(bob.0, alice.0, 5) };
        build(&[pay(alice.0, bob.0, 500), hidden, pay(board().0, bob.0, 1)], &[alice, bob, board()]).unwrap()
    };
    let (mut of_alice, mut of_carol, mut of_bob) = (fresh(), fresh(), fresh());
    of_alice.redact(&[]);
    assert_eq!(of_alice.openings(), []);
    // The redacted copy survives its file, and shows nothing of the hidden move.
    let of_alice_text = of_alice.to_text();
    let mut of_alice = TxFile::from_text(&of_alice_text).unwrap();
    assert!(of_alice.moves().any(|(_, mv)| mv.is_none()));
    of_alice.sign(&key("alice"));
    of_carol.sign(&key("carol"));
    of_bob.sign(&key("bob"));
    of_alice.merge(&of_carol).unwrap();
    assert!(!of_alice.complete());
    of_alice.merge(&of_bob).unwrap();
    assert!(of_alice.complete());
    assert_eq!(checked(&of_alice).openings.len(), 1, "the opening came with a copy");
    let other = build(&[pay(single("alice").0, single("bob").0, 1)], &[]).unwrap();
    assert_eq!(of_alice.merge(&other).unwrap_err().code, "tx_other");
}

#[test]
fn accounts_with_one_authorisation_share_its_signatures() {
    // Bob's account was rotated to Alice's key.
    let (alice, bob) = (single("alice"), single("bob").0);
    let mut file =
        build(&[pay(alice.0, bob, 1), pay(bob, alice.0, 2)], &[alice.clone(), (bob, alice.1.clone())]).unwrap();
    assert_eq!(file.signers().len(), 1);
    assert_eq!(file.sign(&key("alice")), [alice.0, bob]);
    assert_eq!(checked(&file).witnesses.len(), 1);
    assert_eq!(file.sign(&key("bob")), [], "the old key has no say");
}

#[test]
fn hidden_moves_keep_to_one_group() {
    let layout = Layout::even(4);
    let homes: Vec<(Address, GroupId)> =
        (0..50).map(|n| single(&n.to_string()).0).map(|address| (address, layout.locate(&address))).collect();
    let (from, home) = homes[0];
    let elsewhere = homes.iter().find(|(_, group)| *group != home).unwrap().0;
    let sync = |to| Leg { mv: Move::PaySync { from, to, asset: EUR, amount: 1 }, hidden: true, line: 8 };
    let error = build(&[sync(elsewhere)], &[]).unwrap_err();
    assert_eq!(error.code, "tx_hidden");
    assert!(error.cause.starts_with("line 8: "), "{error}");
    let neighbour = homes[1..].iter().find(|(_, group)| *group == home).unwrap().0;
    let file = build(&[sync(neighbour)], &[]).unwrap();
    assert!(matches!(file.body().slots[0], Slot::Hidden { group, .. } if group == home));
    // Two equal moves have different hashes, so nobody can compare them.
    let hidden = |to| Leg { hidden: true, ..pay(from, to, 1) };
    let twice = build(&[hidden(neighbour), Leg { hidden: true, ..pay(from, elsewhere, 1) }], &[]).unwrap();
    let hashes: Vec<Hash32> = twice.openings().iter().map(Opening::hash).collect();
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
fn what_the_ledger_would_refuse_is_refused_at_once() {
    let (alice, bob) = (single("alice").0, single("bob").0);
    let refused = |legs: &[Leg]| build(legs, &[]).unwrap_err().code;
    assert_eq!(refused(&[pay(alice, bob, 1), pay(alice, bob, 1)]), "duplicate_move");
    assert_eq!(refused(&vec![pay(alice, bob, 1); 65]), "move_count");
    assert_eq!(refused(&[pay(alice, bob, 1), Leg { hidden: true, ..pay(alice, bob, 1) }]), "duplicate_move");
}

/// Every part of a file is checked before anything is done with it.
#[test]
fn an_altered_file_is_refused() {
    let text = example().to_text();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = json.clone();
        change(&mut changed);
        TxFile::from_text(&changed.to_string()).unwrap_err().code
    };
    let flip = |value: &mut serde_json::Value| {
        let text = value.as_str().unwrap();
        let last = if text.ends_with('0') { "1" } else { "0" };
        *value = format!("{}{last}", &text[..text.len() - 1]).into();
    };
    assert_eq!(refused(&|file| file["version"] = 2.into()), "tx_version");
    assert_eq!(refused(&|file| file["format"] = "x".into()), "tx_file");
    assert_eq!(refused(&|file| file["colour"] = "red".into()), "tx_file");
    assert_eq!(refused(&|file| flip(&mut file["txid"])), "tx_file");
    assert_eq!(refused(&|file| flip(&mut file["body"])), "tx_file");
    assert_eq!(refused(&|file| file["body"] = "00".into()), "malformed");
    assert_eq!(refused(&|file| file["body"] = "zz".into()), "tx_file");
    assert_eq!(refused(&|file| flip(&mut file["cluster"])), "wrong_cluster");
    assert_eq!(refused(&|file| flip(&mut file["openings"][0]["salt"])), "opening_mismatch");
    assert_eq!(refused(&|file| file["openings"][0]["slot"] = 0.into()), "opening_mismatch");
    assert_eq!(refused(&|file| file["openings"][0]["group"] = "shard-9".into()), "tx_file");
    assert_eq!(refused(&|file| flip(&mut file["openings"][0]["move"])), "opening_mismatch");
    assert_eq!(refused(&|file| drop(file["signers"].as_array_mut().unwrap().remove(0))), "tx_file");
    let twice = |file: &mut serde_json::Value| {
        let first = file["signers"][0].clone();
        file["signers"].as_array_mut().unwrap().push(first);
    };
    assert_eq!(refused(&twice), "tx_file");
    let forged = |file: &mut serde_json::Value| {
        file["signers"][0]["signatures"].as_object_mut().unwrap().values_mut().for_each(flip);
    };
    assert_eq!(refused(&forged), "tx_file");
    // A valid signature of a key that has no say.
    let mallory = key("mallory");
    let signature = hex::encode(mallory.sign(&example().txid().0).0);
    let foreign = |file: &mut serde_json::Value| {
        file["signers"][0]["signatures"][mallory.public().to_string()] = signature.clone().into();
    };
    assert_eq!(refused(&foreign), "tx_file");
    assert!(crypto::verify(&mallory.public(), &example().txid().0, &mallory.sign(&example().txid().0)).is_ok());
    assert_eq!(refused(&|file| file["signers"][0]["threshold"] = 1.into()), "tx_file");
    for cut in [0, 1, text.len() / 2, text.len() - 2] {
        assert_eq!(TxFile::from_text(&text[..cut]).unwrap_err().code, "tx_file");
    }
}
