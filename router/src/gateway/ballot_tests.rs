use super::*;
use ledger::{Height, TimeMs, TxId};

const GROUPS: [GroupId; 3] = [GroupId::shard(0), GroupId::shard(1), GroupId::shard(2)];

/// No shard has ended.
fn flat() -> Layout {
    Layout::even(3)
}

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
            Self::Yes => ballot.vote(yes(group), &flat()),
            Self::No => ballot.vote(no(group, Reject::Frozen), &flat()),
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
    // Nor does one that says nothing of it any more let take it for refused.
    assert_eq!(told([Reject::NotAuthorised, Reject::ChannelUntold]), (GROUPS[1], Reject::ChannelUntold));
}

#[test]
fn any_receipt_tells_the_outcome_everywhere() {
    let mut commit = ballot(3);
    commit.vote(yes(1), &flat());
    commit.receipt(&receipt(2, Outcome::Committed { mail: Vec::new() }), &flat());
    let Conclusion::Decided(votes) = commit.conclusion() else { panic!("it is decided") };
    assert_eq!(votes.iter().map(|vote| vote.height).collect::<Vec<_>>(), [0, 7, 0]);
    assert!(votes.iter().all(|vote| vote.yes));

    let mut own = ballot(3);
    own.receipt(&receipt(0, Outcome::Rejected(Reject::Frozen)), &flat());
    assert_eq!(
        own.conclusion(),
        Conclusion::Decided(vec![v1::Vote::of(GROUPS[0], Some(Reject::Frozen), Some(Height(9)))])
    );

    let mut other = ballot(2);
    other.vote(yes(0), &flat());
    other.receipt(&receipt(0, Outcome::Aborted { group: GROUPS[2], reason: Reject::Expired }), &flat());
    let Conclusion::Decided(votes) = other.conclusion() else { panic!("it is decided") };
    assert_eq!(votes, [yes(0), v1::Vote::of(GROUPS[2], Some(Reject::Expired), None)], "also of a group not planned");
}

#[test]
fn a_no_that_another_ledger_does_not_explain_has_the_reason_that_its_group_told_here() {
    let told = |word: Word| {
        let mut ballot = ballot(2);
        ballot.vote(yes(0), &flat());
        word.say(&mut ballot, 1);
        ballot.receipt(&receipt(0, Outcome::Aborted { group: GROUPS[1], reason: Reject::RefusedElsewhere }), &flat());
        match ballot.conclusion() {
            Conclusion::Decided(votes) => votes.iter().find(|vote| !vote.yes).and_then(v1::Vote::reject),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(Word::Nothing), Some(Reject::RefusedElsewhere));
    assert_eq!(told(Word::No), Some(Reject::Frozen));
    assert_eq!(told(Word::Refuses(Reject::ChannelFrozen)), Some(Reject::ChannelFrozen));
    assert_eq!(told(Word::Refuses(Reject::PeerBusy)), Some(Reject::RefusedElsewhere), "that has passed");
    assert_eq!(told(Word::Refuses(Reject::ChannelUntold)), Some(Reject::RefusedElsewhere), "that says nothing of it");
}

#[test]
fn applied_is_when_all_have_applied_what_was_decided() {
    let mut ballot = ballot(2);
    assert!(!ballot.applied(GROUPS[0]), "nothing is decided");
    ballot.refused(GROUPS[1], v1::Refusal::of(Reject::PeerBusy));
    ballot.receipt(&receipt(0, Outcome::Committed { mail: Vec::new() }), &flat());
    let Conclusion::Decided(votes) = ballot.conclusion() else { panic!("it is decided") };
    assert_eq!(ballot.decide(votes), [GROUPS[1]], "it stopped telling when it refused");
    assert!(!ballot.applied(GROUPS[0]));
    assert_eq!(ballot.sent(GROUPS[0], NodeId(1), Instant::now()), None, "it has nothing left to say");
    assert!(ballot.applied(GROUPS[1]));
}

#[test]
fn a_new_layout_keeps_what_was_said() {
    let mut ballot = ballot(2);
    ballot.vote(yes(1), &flat());
    let parts = [1, 2].map(|group| Part { group: GROUPS[group], own: None }).to_vec();
    ballot.adopt(parts, &flat(), Instant::now());
    assert_eq!(kind(&ballot.conclusion()), "open");
    ballot.vote(yes(2), &flat());
    assert_eq!(kind(&ballot.conclusion()), "commit");
}

/// Shards 0, 1 and 2, of which 0 is cut into 3 and 4; and then these are joined into 5.
fn cut() -> Layout {
    flat().split(GROUPS[0], [GroupId::shard(3), GroupId::shard(4)]).unwrap()
}

fn joined() -> Layout {
    cut().merge([GroupId::shard(3), GroupId::shard(4)], GroupId::shard(5)).unwrap()
}

fn by(shard: u32, height: u64) -> v1::Vote {
    v1::Vote::of(GroupId::shard(shard), None, Some(Height(height)))
}

fn over(shards: &[u32]) -> Vec<Part> {
    shards.iter().map(|shard| Part { group: GroupId::shard(*shard), own: None }).collect()
}

/// What voters had said by one layout, and what follows from it by the next, before anybody has spoken again.
#[test]
fn what_a_shard_voted_before_it_ended_stands_for_those_that_came_from_it() {
    let none: Option<Reject> = None;
    let frozen = Some(Reject::Frozen);
    // The voters before, with what each has said; the layout and the voters behind it; how it stands.
    let rows: [(&str, Vec<(u32, Option<Option<Reject>>)>, Layout, Vec<u32>, &str); 11] = [
        ("yes, cut", vec![(0, Some(none)), (1, Some(none))], cut(), vec![1, 3, 4], "commit"),
        ("yes, cut, one half votes", vec![(0, Some(none)), (1, Some(none))], cut(), vec![1, 4], "commit"),
        ("yes, cut, the other is silent", vec![(0, Some(none)), (1, None)], cut(), vec![1, 3, 4], "open"),
        ("silent, cut", vec![(0, None), (1, Some(none))], cut(), vec![1, 3, 4], "open"),
        ("no, cut", vec![(0, Some(frozen)), (1, None)], cut(), vec![1, 3, 4], "abort"),
        ("yes of both, joined", vec![(3, Some(none)), (4, Some(none))], joined(), vec![5], "commit"),
        ("yes of one of both, joined", vec![(3, Some(none)), (4, None)], joined(), vec![5], "open"),
        ("yes of one, and the other no voter", vec![(1, Some(none)), (3, Some(none))], joined(), vec![1, 5], "commit"),
        ("no of one, joined", vec![(3, Some(none)), (4, Some(frozen))], joined(), vec![5], "abort"),
        ("yes, cut and joined again", vec![(0, Some(none)), (2, Some(none))], joined(), vec![2, 5], "commit"),
        ("silent, cut and joined again", vec![(0, None), (2, Some(none))], joined(), vec![2, 5], "open"),
    ];
    for (name, before, layout, after, expected) in rows {
        let shards: Vec<u32> = before.iter().map(|(shard, _)| *shard).collect();
        let mut ballot = Ballot::new(over(&shards), Instant::now());
        for (shard, said) in &before {
            if let Some(reason) = said {
                ballot.vote(v1::Vote::of(GroupId::shard(*shard), *reason, Some(Height(7))), &flat());
            }
        }
        ballot.adopt(over(&after), &layout, Instant::now());
        let found = ballot.conclusion();
        assert_eq!(kind(&found), expected, "{name}");
        let Conclusion::Decided(votes) = found else { continue };
        let mut groups: Vec<u64> = votes.iter().map(|vote| vote.group).collect();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), votes.len(), "{name}: no group votes twice");
        if let Some(no) = votes.iter().find(|vote| !vote.yes) {
            assert!(before.iter().any(|(shard, _)| GroupId::shard(*shard).0 == no.group), "{name}: a no stays named");
        }
    }
}

#[test]
fn a_word_of_a_shard_that_has_ended_may_come_late() {
    // A yes stands for both halves, at its height.
    let mut ballot = Ballot::new(over(&[1, 3, 4]), Instant::now());
    ballot.vote(by(1, 5), &cut());
    ballot.vote(by(0, 9), &cut());
    assert_eq!(ballot.conclusion(), Conclusion::Decided(vec![by(1, 5), by(3, 9), by(4, 9)]));

    // Of two that were joined, none speaks for the other one.
    let mut ballot = Ballot::new(over(&[1, 5]), Instant::now());
    ballot.vote(by(1, 5), &joined());
    ballot.vote(by(3, 9), &joined());
    ballot.vote(by(4, 9), &joined());
    assert_eq!(kind(&ballot.conclusion()), "open", "it is asked itself");
    ballot.vote(by(0, 9), &joined());
    assert_eq!(kind(&ballot.conclusion()), "commit", "what both came from speaks for it");

    // A no is named as it came.
    let mut ballot = Ballot::new(over(&[1, 3]), Instant::now());
    ballot.vote(v1::Vote::of(GROUPS[0], Some(Reject::Frozen), Some(Height(9))), &cut());
    let no = v1::Vote::of(GROUPS[0], Some(Reject::Frozen), Some(Height(9)));
    assert_eq!(ballot.conclusion(), Conclusion::Decided(vec![no]));

    // A receipt tells the outcome, whose ever it is; and whoever shows it, speaks.
    let mut ballot = Ballot::new(over(&[1, 3, 4]), Instant::now());
    ballot.sent(GroupId::shard(4), NodeId(2), Instant::now()).unwrap();
    let shown = receipt(0, Outcome::Committed { mail: Vec::new() });
    assert_eq!(ballot.speaker(shown.group, NodeId(2), &cut()), GroupId::shard(4));
    assert_eq!(ballot.speaker(shown.group, NodeId(9), &cut()), GROUPS[0]);
    ballot.receipt(&shown, &cut());
    assert_eq!(kind(&ballot.conclusion()), "commit");
}

#[test]
fn what_was_handed_to_a_shard_that_has_ended_may_have_been_taken() {
    let mut ballot = Ballot::new(over(&[0, 1]), Instant::now());
    ballot.sent(GROUPS[0], NodeId(1), Instant::now()).unwrap();
    ballot.adopt(over(&[1, 3, 4]), &cut(), Instant::now());
    let open: Vec<bool> = ballot.voters.iter().map(|voter| voter.hand_over.open).collect();
    assert_eq!(open, [false, true, true]);
    // So a full queue of one of them does not end it.
    ballot.refused(GroupId::shard(3), v1::Refusal::of(Reject::Busy));
    ballot.refused(GroupId::shard(4), v1::Refusal::of(Reject::Expired));
    ballot.refused(GROUPS[1], v1::Refusal::of(Reject::Expired));
    assert_eq!(kind(&ballot.conclusion()), "open");
}
