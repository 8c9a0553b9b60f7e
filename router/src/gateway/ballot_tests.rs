use super::*;
use ledger::{Height, TimeMs, TxId};

const GROUPS: [GroupId; 3] = [GroupId::shard(0), GroupId::shard(1), GroupId::shard(2)];

fn ballot(groups: usize) -> Ballot {
    let parts = GROUPS[..groups].iter().map(|group| Part { group: *group, own: None }).collect();
    Ballot::new(parts, Instant::now())
}

fn yes(group: usize) -> v1::Vote {
    v1::Vote::of(GROUPS[group], None, Some(Height(7)))
}

fn no(group: usize, reason: Reject) -> v1::Vote {
    v1::Vote::of(GROUPS[group], Some(reason), Some(Height(7)))
}

fn receipt(group: usize, outcome: Outcome) -> Receipt {
    let (height, time_ms) = (Height(9), TimeMs(1));
    Receipt { version: 1, txid: TxId::default(), group: GROUPS[group], height, index: 0, time_ms, outcome }
}

/// What a group may say, in all the ways that matter here.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Nothing,
    Waits,
    Yes,
    No,
    Refuses(Reject),
}

impl Word {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Waits,
        Self::Yes,
        Self::No,
        Self::Refuses(Reject::NotAuthorised),
        Self::Refuses(Reject::PeerBusy),
        Self::Refuses(Reject::Busy),
        Self::Refuses(Reject::Storage),
    ];

    fn say(self, ballot: &mut Ballot, group: usize) {
        match self {
            Self::Nothing => {}
            Self::Waits => ballot.waits(GROUPS[group]),
            Self::Yes => ballot.vote(yes(group)),
            Self::No => ballot.vote(no(group, Reject::Frozen)),
            Self::Refuses(reject) => ballot.refused(GROUPS[group], v1::Refusal::of(reject)),
        }
    }
}

/// The rule, written down a second time: by counting.
fn expected(words: &[Word]) -> &'static str {
    let count = |wanted: &dyn Fn(&Word) -> bool| words.iter().filter(|word| wanted(word)).count();
    let refused = |word: &Word| matches!(word, Word::Refuses(reject) if *reject != Reject::Storage);
    if count(&|word| *word == Word::No) > 0 {
        "abort"
    } else if count(&|word| *word == Word::Yes) == words.len() {
        "commit"
    } else if count(&refused) > 0 && count(&refused) + count(&|word| *word == Word::Waits) == words.len() {
        "refusal"
    } else {
        "open"
    }
}

fn kind(conclusion: &Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Open => "open",
        Conclusion::Refused(..) => "refusal",
        Conclusion::Decided(votes) if votes.iter().all(|vote| vote.yes) => "commit",
        Conclusion::Decided(_) => "abort",
    }
}

#[test]
fn whatever_three_groups_say_in_whatever_order_gives_one_conclusion() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for a in Word::ALL {
        for b in Word::ALL {
            for c in Word::ALL {
                let words = [a, b, c];
                for order in orders {
                    let mut ballot = ballot(3);
                    for group in order {
                        words[group].say(&mut ballot, group);
                    }
                    assert_eq!(kind(&ballot.conclusion()), expected(&words), "{words:?} in order {order:?}");
                }
            }
        }
    }
}

#[test]
fn a_vote_outlasts_everything_that_its_group_says_later() {
    for vote in [Word::Yes, Word::No] {
        for later in Word::ALL {
            let mut ballot = ballot(1);
            vote.say(&mut ballot, 0);
            later.say(&mut ballot, 0);
            assert_eq!(kind(&ballot.conclusion()), expected(&[vote]), "{vote:?}, then {later:?}");
        }
    }
}

#[test]
fn a_refusal_counts_until_the_group_is_asked_again() {
    let mut ballot = ballot(2);
    for group in &GROUPS[..2] {
        ballot.refused(*group, v1::Refusal::of(Reject::PeerBusy));
    }
    assert_eq!(kind(&ballot.conclusion()), "refusal");
    ballot.sent(GROUPS[0], NodeId(1), Instant::now()).unwrap();
    assert_eq!(kind(&ballot.conclusion()), "open", "it may vote on what it was handed now");
    // Of a group that was silent once, only a word about the transaction itself counts.
    ballot.voter(GROUPS[0]).unwrap().hand_over.open = true;
    ballot.refused(GROUPS[0], v1::Refusal::of(Reject::Busy));
    assert_eq!(kind(&ballot.conclusion()), "open");
    ballot.refused(GROUPS[0], v1::Refusal::of(Reject::Expired));
    assert_eq!(kind(&ballot.conclusion()), "refusal");
}

#[test]
fn the_refusal_that_is_told_leaves_nothing_open() {
    let told = |rejects: [Reject; 2]| {
        let mut ballot = ballot(2);
        for (group, reject) in GROUPS.into_iter().zip(rejects) {
            ballot.refused(group, v1::Refusal::of(reject));
        }
        match ballot.conclusion() {
            Conclusion::Refused(group, refusal) => (group, refusal.reject().unwrap()),
            other => panic!("{other:?}"),
        }
    };
    // One that stays stays, whatever becomes of one that passes.
    assert_eq!(told([Reject::PeerBusy, Reject::Expired]), (GROUPS[1], Reject::Expired));
    assert_eq!(told([Reject::NotAuthorised, Reject::HiddenSlot]), (GROUPS[0], Reject::NotAuthorised));
    // An opening, or a signature, that could still come does not help a transaction that is too late elsewhere.
    assert_eq!(told([Reject::HiddenSlot, Reject::Expired]), (GROUPS[1], Reject::Expired));
    assert_eq!(told([Reject::NotAuthorised, Reject::Expired]), (GROUPS[1], Reject::Expired));
    // A full queue has not looked at the transaction, so its group may know better.
    assert_eq!(told([Reject::NotAuthorised, Reject::Busy]), (GROUPS[1], Reject::Busy));
}

#[test]
fn any_receipt_tells_the_outcome_everywhere() {
    let mut commit = ballot(3);
    commit.vote(yes(1));
    commit.receipt(&receipt(2, Outcome::Committed { mail: Vec::new() }));
    let Conclusion::Decided(votes) = commit.conclusion() else { panic!("it is decided") };
    assert_eq!(votes.iter().map(|vote| vote.height).collect::<Vec<_>>(), [0, 7, 0]);
    assert!(votes.iter().all(|vote| vote.yes));

    let mut own = ballot(3);
    own.receipt(&receipt(0, Outcome::Rejected(Reject::Frozen)));
    assert_eq!(
        own.conclusion(),
        Conclusion::Decided(vec![v1::Vote::of(GROUPS[0], Some(Reject::Frozen), Some(Height(9)))])
    );

    let mut other = ballot(2);
    other.vote(yes(0));
    other.receipt(&receipt(0, Outcome::Aborted { group: GROUPS[2], reason: Reject::Expired }));
    let Conclusion::Decided(votes) = other.conclusion() else { panic!("it is decided") };
    assert_eq!(votes, [yes(0), v1::Vote::of(GROUPS[2], Some(Reject::Expired), None)], "also of a group not planned");
}

#[test]
fn a_no_that_another_ledger_does_not_explain_has_the_reason_that_its_group_told_here() {
    let told = |word: Word| {
        let mut ballot = ballot(2);
        ballot.vote(yes(0));
        word.say(&mut ballot, 1);
        ballot.receipt(&receipt(0, Outcome::Aborted { group: GROUPS[1], reason: Reject::RefusedElsewhere }));
        match ballot.conclusion() {
            Conclusion::Decided(votes) => votes.iter().find(|vote| !vote.yes).and_then(v1::Vote::reject),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(Word::Nothing), Some(Reject::RefusedElsewhere));
    assert_eq!(told(Word::No), Some(Reject::Frozen));
    assert_eq!(told(Word::Refuses(Reject::ChannelFrozen)), Some(Reject::ChannelFrozen));
    assert_eq!(told(Word::Refuses(Reject::PeerBusy)), Some(Reject::RefusedElsewhere), "that has passed");
}

#[test]
fn applied_is_when_all_have_applied_what_was_decided() {
    let mut ballot = ballot(2);
    assert!(!ballot.applied(GROUPS[0]), "nothing is decided");
    ballot.refused(GROUPS[1], v1::Refusal::of(Reject::PeerBusy));
    ballot.receipt(&receipt(0, Outcome::Committed { mail: Vec::new() }));
    let Conclusion::Decided(votes) = ballot.conclusion() else { panic!("it is decided") };
    assert_eq!(ballot.decide(votes), [GROUPS[1]], "it stopped telling when it refused");
    assert!(!ballot.applied(GROUPS[0]));
    assert_eq!(ballot.sent(GROUPS[0], NodeId(1), Instant::now()), None, "it has nothing left to say");
    assert!(ballot.applied(GROUPS[1]));
}

#[test]
fn a_new_layout_keeps_what_was_said() {
    let mut ballot = ballot(2);
    ballot.vote(yes(1));
    let parts = [1, 2].map(|group| Part { group: GROUPS[group], own: None }).to_vec();
    ballot.adopt(parts, Instant::now());
    assert_eq!(kind(&ballot.conclusion()), "open");
    ballot.vote(yes(2));
    assert_eq!(kind(&ballot.conclusion()), "commit");
}
