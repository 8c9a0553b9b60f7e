use super::*;
use ledger::{Authorisation, ClusterId, GroupId, Hash32, LedgerId, Receipt, SecretKey, SignedTx, TxBody};
use proto::views::{BlockPoint, OwnVote, PreparedView, ReceivedVote, SentMail, Unanswered};

const EUR: AssetId = AssetId([1; 16]);
const ONE: GroupId = GroupId::shard(1);
const TWO: GroupId = GroupId::shard(2);

fn key(name: &str) -> SecretKey {
    SecretKey::derive(b"explain", name.as_bytes())
}

fn of(name: &str) -> Address {
    Authorisation::Single(key(name).public()).address()
}

fn labels() -> Labels {
    let mut labels = Labels::default();
    for name in ["alice", "bob"] {
        labels.accounts.insert(of(name), name.to_owned());
    }
    labels.assets.insert(EUR, "EUR".to_owned());
    labels
}

/// Alice and Bob pay each other.
fn swap() -> ParsedTx {
    let pay = |from, to, amount| Move::Pay { from: of(from), to: of(to), asset: EUR, amount };
    let clear = |mv| Slot::Clear { ledger: LedgerId::MAIN, mv };
    let body = TxBody {
        version: 1,
        cluster: ClusterId::default(),
        valid_until_ms: TimeMs(60_000),
        salt: [0; 16],
        slots: vec![clear(pay("alice", "bob", 500)), clear(pay("bob", "alice", 5))],
        memo: b"trade 7".to_vec(),
    };
    let signed = SignedTx::sign(&body, &[&key("alice"), &key("bob")]);
    ParsedTx::decode(&ClusterId::default(), &signed.encode()).unwrap()
}

fn at(height: u64, time_ms: u64) -> BlockPoint {
    BlockPoint { height: Height(height), time_ms: TimeMs(time_ms) }
}

/// A group that has seen the transaction at 1,000 ms, handed over by a client, and nothing more.
fn seen(group: GroupId) -> Explain {
    Explain {
        version: 1,
        group,
        height: Height(20),
        time_ms: TimeMs(2_000),
        stale: false,
        prepared: Some(PreparedView {
            tx: Vec::new(),
            opened: Vec::new(),
            voters: vec![ONE, TWO],
            legs: vec![0, 2],
            valid_until_ms: TimeMs(60_000),
            seen: at(10, 1_000),
            handed_over: true,
            own: None,
            received: Vec::new(),
            resolved: None,
            dropped: None,
        }),
        receipt: None,
        tx: Vec::new(),
        credits: Vec::new(),
        unanswered: None,
    }
}

impl Cast for Explain {}

/// Steps of a group's part, so that each test reads as a story.
trait Cast: Into<Explain> {
    fn votes(self, no: Option<Reject>, point: BlockPoint, taken: bool) -> Explain {
        let mut answer = self.into();
        let (leg, account, other) = if answer.group == ONE { (0, "alice", TWO) } else { (2, "bob", ONE) };
        let prepared = answer.prepared.as_mut().unwrap();
        let sent = vec![SentMail { dest: other, seq: 41, taken }];
        prepared.own = Some(OwnVote { no, legs: vec![leg], accounts: vec![of(account)], sent, at: point });
        answer
    }

    fn hears(self, no: Option<Reject>, point: BlockPoint) -> Explain {
        let mut answer = self.into();
        let (leg, other) = if answer.group == ONE { (2, TWO) } else { (0, ONE) };
        answer.prepared.as_mut().unwrap().received.push(ReceivedVote { group: other, no, legs: vec![leg], at: point });
        answer
    }

    fn resolves(self, point: BlockPoint, outcome: Outcome, credit_taken: bool) -> Explain {
        let mut answer = self.into();
        let posted = matches!(outcome, Outcome::Committed { .. });
        answer.prepared.as_mut().unwrap().resolved = Some((point, posted));
        if let Outcome::Committed { mail } = &outcome {
            answer.credits =
                mail.iter().map(|(dest, seq)| SentMail { dest: *dest, seq: *seq, taken: credit_taken }).collect();
        }
        let (height, time_ms) = (point.height, point.time_ms);
        answer.receipt =
            Some(Receipt { version: 1, txid: swap().txid, group: answer.group, height, index: 0, time_ms, outcome });
        answer
    }
}

fn story(answers: &[Explain], arrivals: &[Arrival]) -> Story {
    let (tx, labels) = (swap(), labels());
    tell(&Facts { txid: tx.txid, answers, tx: Some(&tx), arrivals, labels: &labels }).unwrap()
}

fn committed_swap(credit_taken: bool) -> [Explain; 2] {
    let mail = |dest| Outcome::Committed { mail: vec![(dest, 42)] };
    [
        seen(ONE).votes(None, at(10, 1_000), true).hears(None, at(11, 1_006)).resolves(at(11, 1_006), mail(TWO), true),
        seen(TWO).votes(None, at(77, 1_002), true).hears(None, at(78, 1_007)).resolves(
            at(78, 1_007),
            mail(ONE),
            credit_taken,
        ),
    ]
}

#[test]
fn a_commit_is_told_from_the_first_sight_to_the_last_credit() {
    let arrival = |group, name, amount, height, time_ms| Arrival {
        group,
        account: of(name),
        asset: EUR,
        amount,
        suspended: false,
        height: Height(height),
        time_ms: TimeMs(time_ms),
    };
    let arrivals = [arrival(TWO, "bob", 500, 79, 1_011), arrival(ONE, "alice", 5, 12, 1_012)];
    let story = story(&committed_swap(true), &arrivals);
    assert_eq!((story.fate, story.applied, story.decided_after_ms), (Fate::Committed, true, Some(2)));
    assert_eq!(story.waits_for, Vec::<String>::new());
    let expected = "COMMITTED: shard-1 and shard-2 said yes within 2 ms; applied everywhere
  1. alice pays bob 500 EUR
  2. bob pays alice 5 EUR
  memo: trade 7
  first seen 1970-01-01 00:00:01.000 UTC; times below count from there, by the blocks' clocks
│
├─ shard-1                         alice pays bob 500 EUR
│  ├─ prepare    block 10   +0 ms  handed over by a client
│  ├─ vote YES   block 10   +0 ms
│  │  ├─ hold                      500 EUR of alice: held, then used
│  │  └─ mail                      its vote to shard-2, no. 41: taken
│  ├─ heard YES  block 11   +6 ms  of shard-2
│  ├─ resolve    block 11   +6 ms  committed: all said yes
│  │  └─ mail                      a credit to shard-2, no. 42: taken
│  └─ credit     block 12  +12 ms  alice receives 5 EUR
│
└─ shard-2                         bob pays alice 5 EUR
   ├─ prepare    block 10   +0 ms  handed over by a client
   ├─ vote YES   block 77   +2 ms
   │  ├─ hold                      5 EUR of bob: held, then used
   │  └─ mail                      its vote to shard-1, no. 41: taken
   ├─ heard YES  block 78   +7 ms  of shard-1
   ├─ resolve    block 78   +7 ms  committed: all said yes
   │  └─ mail                      a credit to shard-1, no. 42: taken
   └─ credit     block 79  +11 ms  bob receives 500 EUR";
    let text = story.text();
    assert_eq!(text, format!("transaction {}\n{expected}", swap().txid));
}

#[test]
fn an_abort_names_the_group_the_cause_and_the_fix() {
    let no = Reject::InsufficientFunds;
    let aborted = || Outcome::Aborted { group: TWO, reason: no };
    let answers = [
        seen(ONE).votes(None, at(10, 1_000), true).hears(Some(no), at(12, 1_009)).resolves(
            at(12, 1_009),
            aborted(),
            false,
        ),
        seen(TWO).votes(Some(no), at(77, 1_002), true).hears(None, at(78, 1_007)).resolves(
            at(77, 1_002),
            Outcome::Rejected(no),
            false,
        ),
    ];
    let story = story(&answers, &[]);
    assert_eq!((story.fate, story.applied, story.decided_after_ms), (Fate::Aborted, false, Some(2)));
    assert_eq!(story.reason, Some(Reason::of(TWO, no)));
    assert_eq!(story.waits_for, Vec::<String>::new());
    let text = story.text();
    for part in [
        "ABORTED: shard-2 said no within 2 ms: insufficient_funds; nothing changed",
        "500 EUR of alice: held, then set free",
        "heard NO",
        "vote NO",
        no.cause(),
        no.fix(),
        "aborted: nothing changed",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

/// A group that hears of a NO says no as well; what counts is the NO that it followed.
#[test]
fn the_reason_is_that_of_the_first_no() {
    let answers = [
        seen(ONE).votes(Some(Reject::Aborted), at(10, 1_000), true),
        seen(TWO).votes(Some(Reject::Frozen), at(77, 1_500), true),
    ];
    assert_eq!(story(&answers, &[]).reason.map(|reason| reason.code), Some("frozen"));
}

#[test]
fn what_it_waits_for_is_said() {
    // The other group has not seen it.
    let alone = story(&[seen(ONE).votes(None, at(10, 1_000), false)], &[]);
    assert_eq!(alone.fate, Fate::Undecided);
    assert_eq!(alone.waits_for, ["shard-2, which has not seen it yet"]);
    assert!(alone.text().contains("UNDECIDED") && alone.text().contains("held until the outcome is known"));

    // It does not answer.
    let mut silent = seen(TWO);
    silent.prepared = None;
    silent.unanswered = Some(Unanswered { code: "unreachable".into(), detail: "no leader".into() });
    let answers = [seen(ONE).votes(None, at(10, 1_000), false), silent];
    let unanswered = story(&answers, &[]);
    assert_eq!(unanswered.waits_for, ["shard-2, which does not answer"]);
    assert!(unanswered.text().contains("no answer") && unanswered.text().contains("unreachable: no leader"));

    // All have voted; mail is on its way.
    let voted = [seen(ONE).votes(None, at(10, 1_000), false), seen(TWO).votes(None, at(77, 1_004), false)];
    let decided = story(&voted, &[]);
    assert_eq!((decided.fate, decided.applied, decided.decided_after_ms), (Fate::Committed, false, Some(4)));
    assert_eq!(decided.waits_for.len(), 2);

    // Everything is resolved but for a credit that is on its way.
    let credit = story(&committed_swap(false), &[]);
    assert!(!credit.applied);
    assert!(credit.text().contains("a credit to shard-1, no. 42: on its way"));
    assert_eq!(credit.waits_for, ["shard-1, which has not taken the credit from shard-2 yet"]);
}

#[test]
fn a_group_without_its_opening_waits_and_says_until_when() {
    let mut tx = swap();
    tx.body.slots[1] = Slot::Hidden { ledger: LedgerId::MAIN, group: TWO, hash: Hash32::ZERO };
    let labels = labels();
    let answers = [seen(ONE).votes(None, at(10, 1_000), true), seen(TWO).hears(None, at(10, 1_000))];
    let story =
        tell(&Facts { txid: tx.txid, answers: &answers, tx: Some(&tx), arrivals: &[], labels: &labels }).unwrap();
    assert_eq!(story.fate, Fate::Undecided);
    assert_eq!(
        story.waits_for,
        ["shard-2, which needs the opening of move 2; without it, it says no after 1970-01-01 00:01:00.000 UTC"]
    );
    assert_eq!(story.moves[1], "a move hidden from all but shard-2");
    assert_eq!(story.valid_until_ms, Some(60_000));
}

/// A channel says nothing until one of its members has handed it over.
#[test]
fn a_channel_waits_for_a_member_and_says_until_when() {
    let answers = [seen(ONE).votes(None, at(10, 1_000), true), seen(TWO).hears(None, at(10, 1_000))];
    assert_eq!(
        story(&answers, &[]).waits_for,
        ["shard-2, which needs a member that hands it over; without it, it says no after 1970-01-01 00:01:00.000 UTC"]
    );
}

/// Another ledger is told of a NO, and not why. Whoever is in the one that said it is told.
#[test]
fn a_no_of_another_ledger_has_its_reason_where_that_ledger_answers() {
    let (no, veiled) = (Reject::InsufficientFunds, Reject::RefusedElsewhere);
    let aborted = Outcome::Aborted { group: TWO, reason: veiled };
    let here = seen(ONE).votes(None, at(10, 1_000), true).hears(Some(veiled), at(12, 1_001)).resolves(
        at(12, 1_001),
        aborted,
        false,
    );
    let reason = |answers: &[Explain]| story(answers, &[]).reason.map(|reason| (reason.group, reason.code));
    assert_eq!(reason(std::slice::from_ref(&here)), Some(("shard-2".to_owned(), "refused_elsewhere")));
    // The clocks of groups differ: the reason may seem to be the later word.
    let there = seen(TWO).votes(Some(no), at(77, 1_009), true).resolves(at(77, 1_009), Outcome::Rejected(no), false);
    assert_eq!(reason(&[here, there]), Some(("shard-2".to_owned(), "insufficient_funds")));
}

/// A payee has its credit some moments before the sender has the proof.
#[test]
fn a_credit_that_stands_in_its_payees_history_is_taken() {
    let arrival = Arrival {
        group: ONE,
        account: of("alice"),
        asset: EUR,
        amount: 5,
        suspended: true,
        height: Height(12),
        time_ms: TimeMs(1_012),
    };
    let story = story(&committed_swap(false), &[arrival]);
    assert!(story.applied);
    let text = story.text();
    assert!(text.contains("a credit to shard-1, no. 42: taken"), "{text}");
    assert!(text.contains("alice is frozen: 5 EUR wait in its suspense"), "{text}");
}

/// Voting on mail, and an opening that comes later.
#[test]
fn an_opening_that_came_later_is_told_in_its_order() {
    let handed = seen(TWO).hears(None, at(10, 1_000)).votes(None, at(13, 4_000), true);
    let mut opened = handed.clone();
    opened.prepared.as_mut().unwrap().opened = vec![1];
    // In a channel nothing need be hidden.
    let in_clear = story(&[seen(ONE).votes(None, at(10, 1_000), false), handed], &[]);
    assert_eq!(in_clear.groups[1].events[2].text, "once it was handed over");
    let story = story(&[seen(ONE).votes(None, at(10, 1_000), false), opened], &[]);
    let events = &story.groups[1].events;
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), ["prepare", "heard", "vote"]);
    assert_eq!(events[0].text, "by the vote of shard-1");
    assert_eq!(events[2].text, "once its opening was handed over");
    // The other group has taken the vote: it says so itself.
    assert!(story.text().contains("its vote to shard-2, no. 41: taken"));
}

/// A group that voted because another group's vote came, not because a client handed it over.
#[test]
fn a_vote_by_mail_is_told_in_its_order() {
    let mut mailed = seen(TWO).hears(None, at(10, 1_000)).votes(None, at(10, 1_000), true);
    mailed.prepared.as_mut().unwrap().handed_over = false;
    let answers = [seen(ONE).votes(None, at(10, 1_000), true), mailed];
    let groups = story(&answers, &[]).groups;
    let kinds: Vec<_> = groups[1].events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["prepare", "heard", "vote"]);
    assert_eq!(groups[1].events[0].text, "by the vote of shard-1");
}

#[test]
fn one_group_decides_alone() {
    let receipt = |outcome| Receipt {
        version: 1,
        txid: swap().txid,
        group: ONE,
        height: Height(9),
        index: 3,
        time_ms: TimeMs(500),
        outcome,
    };
    let alone = |outcome, credits| Explain { prepared: None, receipt: Some(receipt(outcome)), credits, ..seen(ONE) };
    let mail = SentMail { dest: TWO, seq: 3, taken: true };
    let paid = story(&[alone(Outcome::Committed { mail: vec![(TWO, 3)] }, vec![mail])], &[]);
    assert_eq!((paid.fate, paid.applied), (Fate::Committed, true));
    assert!(paid.text().contains("COMMITTED: decided by shard-1; applied everywhere"), "{}", paid.text());
    let refused = story(&[alone(Outcome::Rejected(Reject::InsufficientFunds), Vec::new())], &[]);
    assert!(refused.text().contains("REJECTED: shard-1 said no: insufficient_funds"), "{}", refused.text());
}

#[test]
fn nobody_knows_it() {
    let (labels, txid) = (Labels::default(), swap().txid);
    let silent = Explain {
        prepared: None,
        unanswered: Some(Unanswered { code: "unreachable".into(), detail: String::new() }),
        ..seen(TWO)
    };
    for (answers, part) in [(vec![], "no group that answered"), (vec![silent], "shard-2 did not answer")] {
        let facts = Facts { txid, answers: &answers, tx: None, arrivals: &[], labels: &labels };
        let error = tell(&facts).unwrap_err();
        assert_eq!(error.code, "not_found");
        assert!(error.cause.contains(part), "{error}");
    }
}

#[test]
fn the_json_has_what_the_tree_shows() {
    let json = serde_json::to_value(story(&committed_swap(true), &[])).unwrap();
    assert_eq!(json["fate"], "committed");
    assert_eq!(json["applied"], true);
    let vote = &json["groups"][0]["events"][1];
    assert_eq!((vote["kind"].as_str(), vote["yes"].as_bool()), (Some("vote"), Some(true)));
    assert_eq!((vote["height"].as_u64(), vote["after_ms"].as_i64()), (Some(10), Some(0)));
    assert_eq!(vote["with"][0]["kind"], "hold");
    assert_eq!((vote["with"][1]["dest"].as_str(), vote["with"][1]["taken"].as_bool()), (Some("shard-2"), Some(true)));
}
