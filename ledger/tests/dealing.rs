//! Which ledger is given which witnesses of a transaction that spans several, and what of one is refused.

mod support;

use ledger::hash::Hash32;
use ledger::tx::{Opening, ParsedTx, Slot, Submission, TxBody};
use ledger::{AssetId, DealtTx, GroupId, LedgerId, LedgerWitnesses, Reject};
use support::{Owner, body, cluster, multi, pay, sign, single};

const STEEL: GroupId = GroupId::channel(0);
const COAL: GroupId = GroupId::channel(1);

fn space(group: GroupId) -> LedgerId {
    LedgerId::of_channel(group)
}

fn hidden(slot: u16, group: GroupId, from: &Owner, amount: u128) -> (Slot, Opening) {
    let mv = pay(from.address(), single(99).address(), AssetId([1; 16]), amount);
    let opening = Opening { slot, salt: Hash32([slot as u8 + 1; 32]), mv };
    (Slot::Hidden { ledger: space(group), group, hash: opening.hash() }, opening)
}

/// Two pay in steel, the second and a third in coal; a fourth on the main ledger, in the clear.
struct Trade {
    owners: [Owner; 4],
    body: TxBody,
    openings: Vec<Opening>,
}

fn trade() -> Trade {
    let owners = [single(1), multi(2, &[2, 3, 4]), single(5), single(6)];
    let (slots, openings): (Vec<Slot>, Vec<Opening>) = [
        hidden(0, STEEL, &owners[0], 10),
        hidden(1, STEEL, &owners[1], 20),
        hidden(2, COAL, &owners[1], 30),
        hidden(3, COAL, &owners[2], 40),
    ]
    .into_iter()
    .unzip();
    let mut body = body(vec![pay(owners[3].address(), single(99).address(), AssetId([1; 16]), 50)]);
    let clear = body.slots.remove(0);
    body.slots = slots;
    body.slots.push(clear);
    Trade { owners, body, openings }
}

impl Trade {
    fn all(&self) -> Vec<&Owner> {
        self.owners.iter().collect()
    }

    fn sent(&self, signers: &[&Owner], openings: &[Opening]) -> Result<ParsedTx, Reject> {
        let signed = sign(&self.body, signers).encode();
        ParsedTx::decode_sent(&cluster(), &Submission::encode(signed, openings.to_vec()))
    }

    /// What each ledger is to have, by hand.
    fn expected(&self) -> Vec<LedgerWitnesses> {
        let id = sign(&self.body, &[]).txid(&cluster());
        let given = |ledger, owners: &[usize]| LedgerWitnesses {
            ledger,
            witnesses: owners.iter().map(|at| self.owners[*at].witness(&id.0)).collect(),
        };
        let mut all = vec![given(LedgerId::MAIN, &[3]), given(space(STEEL), &[0, 1]), given(space(COAL), &[1, 2])];
        all.sort_by_key(|given| given.ledger);
        all
    }
}

#[test]
fn each_ledger_is_given_the_witnesses_of_its_own_accounts() {
    let trade = trade();
    let tx = trade.sent(&trade.all(), &trade.openings).expect("it is well formed");
    assert!(tx.body.spans_ledgers());
    assert_eq!(tx.deal(|_, _| None).expect("it is well formed"), trade.expected());
    // As the client says it, a router reads it, and it is the same transaction.
    let dealt = tx.dealt_by(|_, _| None).expect("it is well formed");
    let read = ParsedTx::decode_sent(&cluster(), &dealt.encode()).expect("it is well formed");
    assert_eq!((read.txid, &read.body_bytes, &read.openings), (tx.txid, &tx.body_bytes, &tx.openings));
    assert_eq!(read.deal(|_, _| None).expect("it is well formed"), trade.expected());
    assert_eq!(read.verify_signatures(), Ok(()));
    assert_eq!(Submission::body_of(&dealt.encode()), Ok(tx.body_bytes.clone()));
    // No group takes this form.
    assert_eq!(ParsedTx::decode(&cluster(), &dealt.encode()).map(|tx| tx.txid), Err(Reject::Malformed));
    // One that stays in a ledger is not dealt out.
    let one = sign(&body(vec![pay(single(1).address(), single(2).address(), AssetId([1; 16]), 1)]), &[&single(1)]);
    let alone = DealtTx { version: 3, body: one.body, witnesses: Vec::new(), openings: Vec::new() };
    assert_eq!(ParsedTx::decode_sent(&cluster(), &alone.encode()).map(|tx| tx.txid), Err(Reject::Malformed));
}

#[test]
fn a_witness_goes_where_it_is_known_to_be_needed_and_nowhere_else() {
    let trade = trade();
    // A stranger's fits nobody.
    let stranger = single(77);
    let mut signers = trade.all();
    signers[0] = &stranger;
    let tx = trade.sent(&signers, &trade.openings).expect("it is well formed");
    assert_eq!(tx.deal(|_, _| None), Err(Reject::WitnessUnplaced));
    // The first account has that key by now, in steel.
    let rotated = |of: LedgerId, account: &ledger::Address| {
        (of == space(STEEL) && *account == trade.owners[0].address()).then(|| stranger.auth.clone())
    };
    let steel = tx
        .deal(rotated)
        .expect("it is well formed")
        .into_iter()
        .find(|given| given.ledger == space(STEEL))
        .expect("it is well formed");
    let keys: Vec<_> = steel.witnesses.iter().map(|witness| witness.auth.clone()).collect();
    assert_eq!(keys, [stranger.auth.clone(), trade.owners[1].auth.clone()]);
    // The key that it had before is nobody's now.
    let tx = trade.sent(&trade.all(), &trade.openings).expect("it is well formed");
    assert_eq!(tx.deal(rotated), Err(Reject::WitnessUnplaced));
    // Whoever opens one side deals out that side alone: the rest comes with its openings.
    let tx = trade.sent(&trade.all(), &trade.openings[..2]).expect("it is well formed");
    let of: Vec<LedgerId> = tx.deal(|_, _| None).expect("it is well formed").iter().map(|given| given.ledger).collect();
    assert!(of.contains(&space(STEEL)) && of.contains(&LedgerId::MAIN) && !of.contains(&space(COAL)), "{of:?}");
}

#[test]
fn parties_that_bring_a_side_each_bring_the_whole_together() {
    let trade = trade();
    let side = |openings: &[Opening]| {
        let tx = trade.sent(&trade.all(), openings).expect("it is well formed");
        tx.dealt_by(|_, _| None).expect("it is well formed")
    };
    let (one, other) = (side(&trade.openings[..2]), side(&trade.openings[2..]));
    let whole = side(&trade.openings);
    assert_eq!(Submission::together(&one.encode(), &other.encode()), Some(whole.encode()));
    assert_eq!(Submission::together(&other.encode(), &one.encode()), Some(whole.encode()));
    // Other witnesses of the same ledger are another attempt, and so is another body or form.
    let mut altered = other.clone();
    altered.witnesses[0].witnesses.clone_from(&one.witnesses[1].witnesses);
    assert_eq!(Submission::together(&one.encode(), &altered.encode()), None);
    let mut body = trade.body.clone();
    body.salt = [8; 16];
    let changed = DealtTx { body: body.encode(), ..other.clone() };
    assert_eq!(Submission::together(&one.encode(), &changed.encode()), None);
    let plain = sign(&trade.body, &trade.all()).encode();
    assert_eq!(Submission::together(&plain, &one.encode()), None);
}

#[test]
fn what_is_dealt_badly_is_refused() {
    let trade = trade();
    let good = trade
        .sent(&trade.all(), &trade.openings)
        .expect("it is well formed")
        .dealt_by(|_, _| None)
        .expect("it is well formed");
    let refused = |name: &str, expected: Reject, change: &dyn Fn(&mut DealtTx)| {
        let mut dealt = good.clone();
        change(&mut dealt);
        let read = ParsedTx::decode_sent(&cluster(), &dealt.encode()).map(|tx| tx.txid);
        assert_eq!(read, Err(expected), "{name}");
    };
    refused("unsorted", Reject::Malformed, &|dealt| dealt.witnesses.reverse());
    refused("a ledger twice", Reject::Malformed, &|dealt| dealt.witnesses.push(dealt.witnesses[2].clone()));
    refused("a ledger without any", Reject::Malformed, &|dealt| dealt.witnesses[0].witnesses.clear());
    refused("a ledger that takes no part", Reject::Malformed, &|dealt| {
        dealt.witnesses[2].ledger = space(GroupId::channel(9));
    });
    refused("a witness of no form", Reject::AuthForm, &|dealt| dealt.witnesses[1].witnesses[0].signatures.clear());
    refused("no body", Reject::Malformed, &|dealt| dealt.body.clear());
    refused("an opening of another slot", Reject::OpeningMismatch, &|dealt| dealt.openings[0].slot = 4);
    let mut longer = good.encode();
    longer.push(0);
    assert_eq!(ParsedTx::decode_sent(&cluster(), &longer).map(|tx| tx.txid), Err(Reject::Malformed));
}

#[test]
fn a_memo_that_several_ledgers_could_read_is_refused() {
    let trade = trade();
    let mut body = trade.body.clone();
    body.memo = b"back to back".to_vec();
    assert_eq!(TxBody::decode(&body.encode()), Err(Reject::MemoAcrossLedgers));
    let signed = sign(&body, &trade.all()).encode();
    assert_eq!(ParsedTx::decode(&cluster(), &signed).map(|tx| tx.txid), Err(Reject::MemoAcrossLedgers));
    // In the clear as well as hidden; in one ledger it is nobody else's.
    body.slots = vec![body.slots[4].clone(), Slot::Clear { ledger: space(STEEL), mv: trade.openings[0].mv.clone() }];
    assert_eq!(TxBody::decode(&body.encode()), Err(Reject::MemoAcrossLedgers));
    body.slots.remove(1);
    assert_eq!(TxBody::decode(&body.encode()), Ok(body.clone()));
}

/// A group is given no signature of other ledgers. One that is given none at all takes it from whoever shows a secret,
/// or the salt of a slot, to be sent by a party.
#[test]
fn a_part_without_signatures_is_looked_at_when_a_party_has_sent_it() {
    let trade = trade();
    let part = |openings: &[Opening]| {
        let bytes = Submission::encode(sign(&trade.body, &[]).encode(), openings.to_vec());
        ParsedTx::decode(&cluster(), &bytes).expect("it is well formed").verify_signatures()
    };
    assert_eq!(part(&trade.openings[..1]), Ok(()));
    assert_eq!(part(&[]), Err(Reject::BadSignature));
}
