//! Crashes: a member comes back with the same votes, and nothing is decided twice, whatever happens when.

use std::collections::BTreeSet;

use ledger::ballot::BallotKind;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, Tick};
use proptest::prelude::*;

use super::super::Machine;
use super::net::{CLUSTER, Net, batch, committee, key};
use crate::bft::{Begin, BftTiming, Chain, Event, Input, Message, Output, Record, Settings};

/// Starts the second member anew, with these records and nothing else.
fn come_back(net: &Net, records: &[Record]) -> Vec<Output> {
    let begin = Begin {
        chain: net.nodes[net.at(2)].disk.chains[0].clone(),
        committee: net.in_force(0),
        decided: Vec::new(),
        records: (1, records.to_vec()),
        votes: true,
    };
    let settings = Settings { cluster: CLUSTER, node: NodeId(2), key: key(2).into(), timing: BftTiming::DEFAULT };
    let mut out = Vec::new();
    Machine::new(settings, begin, Tick(5000), &mut out);
    out
}

fn stops(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Stop(_)))
}

#[test]
fn a_place_in_the_order_that_cannot_be_stops_a_member_whether_it_starts_there_or_is_given_it() {
    let mut net = Net::new(4, 1);
    let start = net.nodes[net.at(2)].disk.chains[0].clone();
    let mut turn = start.turn.clone();
    turn.until = u64::MAX;
    let foul = Chain { turn, ..start };
    let settings = Settings { cluster: CLUSTER, node: NodeId(2), key: key(2).into(), timing: BftTiming::DEFAULT };
    for chain in [foul.clone(), Chain { index: u64::MAX, ..foul.clone() }] {
        let committee = net.in_force(0);
        let begin = Begin { chain, committee, decided: Vec::new(), records: (1, Vec::new()), votes: true };
        let mut out = Vec::new();
        Machine::new(settings.clone(), begin, Tick(5000), &mut out);
        assert!(stops(&out) && out.len() == 1, "{out:?}");
    }
    let (chain, committee) = (Box::new(Chain { index: 9, ..foul }), net.in_force(0));
    net.step(net.at(2), Input::Installed { chain, committee });
    assert!(net.nodes[net.at(2)].stopped.is_some());
}

/// The second member's records of an entry that took two rounds: the leader of the first one is dead.
fn two_rounds() -> (Net, Vec<Record>) {
    let mut net = Net::of(committee(1..=4, 0), 2..=4, 1);
    net.until(1);
    assert_eq!(net.history[&1].round, 1);
    let written = net.nodes[net.at(2)].written.clone();
    (net, written)
}

#[test]
fn a_member_that_comes_back_gives_the_same_answers_wherever_it_stopped() {
    let (net, written) = two_rounds();
    let mine = |event: &Event| matches!(event, Event::Ballot(signed) if signed.ballot.node == NodeId(2));
    assert_eq!(
        written.iter().filter(|record| mine(&record.event)).count(),
        5,
        "a proposal, and two votes of each round"
    );
    for kept in 0..=written.len() {
        let out = come_back(&net, &written[..kept]);
        assert!(!stops(&out), "{kept} records");
        let mut said = BTreeSet::new();
        for output in &out {
            match output {
                Output::Send { message: Message::Ballot(signed), .. } => said.extend([signed.ballot]),
                Output::Persist { first, records } => {
                    assert_eq!(*first, 1 + kept as u64);
                    said.extend(records.iter().filter_map(|record| match &record.event {
                        Event::Ballot(signed) => Some(signed.ballot),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        said.retain(|ballot| ballot.node == NodeId(2));
        // What it had not written down has not left it, and may be something else now: a value says how late it is.
        let left = written[..kept].iter().filter(|record| mine(&record.event));
        let left: BTreeSet<_> = left
            .filter_map(|record| match &record.event {
                Event::Ballot(signed) => Some(Net::question(&signed.ballot)),
                _ => None,
            })
            .collect();
        for ballot in said.iter().filter(|ballot| left.contains(&Net::question(ballot))) {
            let known = net.said.get(&Net::question(ballot));
            assert_eq!(known, Some(ballot), "{kept} records");
        }
        for record in written[..kept].iter().filter(|record| mine(&record.event)) {
            if let Event::Ballot(signed) = &record.event {
                let proposes = matches!(signed.ballot.kind, BallotKind::Proposal { .. });
                assert!(proposes || said.contains(&signed.ballot), "it says its votes again");
            }
        }
    }
}

#[test]
fn records_that_were_altered_or_are_anothers_stop_the_member() {
    let (net, written) = two_rounds();
    let change = |change: &dyn Fn(&mut Event)| {
        let mut records = written.clone();
        for record in &mut records {
            change(&mut record.event);
        }
        come_back(&net, &records)
    };
    assert!(!stops(&change(&|_| {})));
    let of_committee = |event: &mut Event| {
        if let Event::Ballot(signed) = event {
            signed.ballot.committee = Hash32([1; 32]);
        }
    };
    assert!(stops(&change(&of_committee)), "of another committee");
    let torn = |event: &mut Event| {
        if let Event::Value { encoded, .. } = event {
            *encoded = encoded.slice(..encoded.len() - 1);
        }
    };
    assert!(stops(&change(&torn)), "a value without its end");
    let step = |event: &mut Event| {
        if let Event::Timeout { step, .. } = event {
            *step = 9;
        }
    };
    assert!(stops(&change(&step)), "a time-out of no step");
    // A vote that the member would not cast again: it has signed two, or its log is not what it was.
    let other = net.ballot(2, 1, 0, BallotKind::Prevote, Some(Hash32([1; 32])));
    let own = |event: &mut Event| {
        if let Event::Ballot(signed) = event
            && Net::question(&signed.ballot) == Net::question(&other.ballot)
        {
            *signed = other;
        }
    };
    assert!(stops(&change(&own)), "another vote");
}

#[test]
fn all_members_come_back_at_once_and_go_on() {
    for behind in 0..4 {
        let mut net = Net::new(4, 1);
        for ticket in 1..=5 {
            net.submit(1, ticket, batch(&format!("batch {ticket}")));
        }
        net.until(5);
        // The sixth is under way.
        net.submit(1, 6, batch("batch 6"));
        net.settle(7);
        for at in 0..4 {
            net.crash(at);
        }
        for at in 0..4 {
            net.start(at, behind);
        }
        net.until(8);
        assert_eq!(net.texts()[..5], ["batch 1", "batch 2", "batch 3", "batch 4", "batch 5"]);
        assert!(net.nodes.iter().all(|node| node.stopped.is_none()));
    }
}

#[derive(Clone, Copy, Debug)]
enum Liars {
    Silent,
    Twins,
    Equivocators,
}

/// A storm, and the calm behind it. `harm` is how many members lie.
fn storm(seed: u64, count: u32, harm: u32, liars: Liars) {
    let mut net = Net::of(committee(1..=count, 0), [], seed);
    let first = 1 + net.draw(count as usize) as u32;
    let lying: BTreeSet<u32> = (0..harm).map(|step| 1 + (first + step) % count).collect();
    for node in 1..=count {
        match liars {
            _ if !lying.contains(&node) => net.add(node, true, true),
            Liars::Silent => {}
            Liars::Twins => (0..2).for_each(|_| net.add(node, true, false)),
            Liars::Equivocators => {
                net.liars.insert(NodeId(node));
            }
        }
    }
    (net.wild, net.loss) = (true, net.draw(25));
    for ticket in 0..80 {
        net.settle(40);
        let at = net.draw(net.nodes.len());
        match net.draw(8) {
            0 if !lying.contains(&net.nodes[at].id.0) => {
                net.crash(at);
                let behind = net.draw(3);
                net.start(at, behind);
            }
            1 => {
                let id = net.nodes[at].id;
                if !net.cut.remove(&id) {
                    net.cut.insert(id);
                }
            }
            2 | 3 => net.submit(net.nodes[at].id.0, ticket, batch(&format!("batch {ticket}"))),
            _ => net.pass(),
        }
    }
    net.cut.clear();
    (net.wild, net.loss) = (false, 0);
    let index = net.history.len() as u64 + 3;
    net.until(index);
    for node in &net.nodes {
        assert!(node.stopped.is_none() || lying.contains(&node.id.0), "{:?}", node.stopped);
    }
    for pair in &net.evidence {
        let node = pair.verify(&CLUSTER, &committee(1..=count, 0)).unwrap();
        assert!(lying.contains(&node.0), "only who lies is found");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_two_values_at_an_index(
        seed in any::<u64>(),
        large in any::<bool>(),
        liars in prop_oneof![Just(Liars::Silent), Just(Liars::Twins), Just(Liars::Equivocators)],
    ) {
        let (count, harm) = if large { (7, 2) } else { (4, 1) };
        storm(seed, count, harm, liars);
    }
}

#[test]
fn the_weather_is_survived_without_liars() {
    for seed in 0..4 {
        storm(seed, 4, 0, Liars::Silent);
        storm(seed, 1, 0, Liars::Silent);
    }
}
