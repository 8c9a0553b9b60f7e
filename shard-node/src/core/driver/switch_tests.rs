use bytes::Bytes;

use super::*;
use crate::core::driver::testing::{at_zero, config};
use crate::core::entry::{Command, Entry};
use crate::core::support::{PEER, SHARD, committee, liars};

fn known(own: Committee) -> Vec<Committee> {
    vec![committee(GroupId::BEACON, 0), own, committee(PEER, 0)]
}

/// The leader of [`SHARD`] under Raft, with one transaction in flight and two that wait.
struct Bench(GroupDriver);

impl Bench {
    fn new() -> Self {
        let mut bench = Self(GroupDriver::new(config(1)));
        bench.step(Input::System(at_zero(SHARD, known(committee(SHARD, 0)))));
        bench.role(true);
        assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(1)]))), [(0, vec![tx(1)])]);
        assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(2), tx(3)]))), [], "one is in flight");
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.0.step(Tick(0), input, &mut out);
        out
    }

    fn role(&mut self, leads: bool) -> Vec<Output> {
        self.step(Input::Role { leads, leader: Some(NodeId(if leads { 1 } else { 2 })) })
    }
}

fn tx(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 10])
}

fn proposed(out: &[Output]) -> Vec<(u64, Vec<Bytes>)> {
    let mut all = Vec::new();
    for output in out {
        let Output::Propose { id, entry } = output else { continue };
        let txs = Entry::decode(entry).commands.into_iter().filter_map(|command| match command {
            Command::Tx(bytes) => Some(Bytes::from(bytes)),
            _ => None,
        });
        all.push((*id, txs.collect()));
    }
    all
}

/// What is given back to its senders.
fn refused(out: &[Output]) -> Vec<Bytes> {
    let given_back = |output: &Output| match output {
        Output::Refuse { txs, reject: Reject::NotLeader } => Some(txs.clone()),
        _ => None,
    };
    out.iter().filter_map(given_back).flatten().collect()
}

#[test]
fn what_is_in_flight_goes_back_and_what_waits_goes_to_the_engine_that_begins() {
    let mut bench = Bench::new();
    let out = bench.step(Input::Committees(known(liars()).into()));
    assert_eq!((refused(&out), proposed(&out)), (vec![tx(1)], vec![]));
    assert_eq!(bench.0.queued(), 2);
    // The host hears what became of the proposal; its senders have been told.
    let out = bench.step(Input::Proposed { id: 0, accepted: false });
    assert_eq!((refused(&out), proposed(&out)), (vec![], vec![]));
    // Nothing goes to an engine that has handed over, whatever comes in.
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(4)]))), []);
    assert_eq!(proposed(&bench.step(Input::Timer)), []);
    let out = bench.role(true);
    assert_eq!((refused(&out), proposed(&out)), (vec![], vec![(1, vec![tx(2), tx(3), tx(4)])]));
}

#[test]
fn what_waits_goes_back_where_another_leads_the_engine_that_begins() {
    let mut bench = Bench::new();
    bench.step(Input::Committees(known(liars()).into()));
    let out = bench.role(false);
    assert_eq!((refused(&out), proposed(&out)), (vec![tx(2), tx(3)], vec![]));
    assert_eq!(proposed(&bench.role(true)), [], "nothing is left");
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(5)]))), [(1, vec![tx(5)])]);
}

#[test]
fn a_change_of_seats_loses_nothing() {
    let mut bench = Bench::new();
    let out = bench.step(Input::Committees(known(committee(SHARD, 1)).into()));
    assert_eq!((refused(&out), proposed(&out)), (vec![], vec![]));
    let out = bench.step(Input::Proposed { id: 0, accepted: true });
    assert_eq!((refused(&out), proposed(&out)), (vec![], vec![(1, vec![tx(2), tx(3)])]));
}
