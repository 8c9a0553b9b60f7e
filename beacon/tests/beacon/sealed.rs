//! Foundings that promise what the channel is to go by: the beacon decides on them, and has nothing of it.

use beacon::channels;
use beacon::machine::CommandOutcome;
use beacon::{BeaconCommand, registry};
use channel::opening::{PROMISE_VERSION, first_policies};
use channel::policy::Item;
use channel::{
    ChannelReject, Charter, FoundingAct, Opening, Phase, Policy, Promise, Quorum, Role, SealedOpening, Subject, Terms,
};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::reject::Reject;

use crate::channels::{Beacon, hosting, refused_by, terms};
use crate::support::{NOW, admin};

/// What the founders want, and nobody else has.
fn wanted() -> Policy {
    Policy::rule(Quorum::AtLeast(2), [1, 2].map(|org| Item::Sub(Policy::one(OrgId(org), Role::Node))).to_vec())
}

fn opening() -> Opening {
    Opening::new([7; 32], Subject::ALL.map(|subject| (subject, wanted())).to_vec())
}

fn promise() -> Promise {
    let keys = [1, 2, 3].map(|org| (OrgId(org), [0xcc; 48])).to_vec();
    let sealed = SealedOpening { sender: admin(1).public(), keys, body: vec![0xcc; 528] };
    Promise { version: PROMISE_VERSION, hash: opening().hash(), sealed }
}

fn propose(name: &str, policies: Vec<(Subject, Policy)>, promise: Promise) -> BeaconCommand {
    let terms = Terms { policies, ..terms(name, &[2, 3]) };
    BeaconCommand::ProposeSealedChannel { terms, promise, hosting: hosting(1), until_ms: TimeMs(NOW + 60_000) }
}

/// What a client of an earlier build signs: the policies in clear, under the number that stood for that.
fn stated(name: &str) -> Vec<u8> {
    let terms = Terms { policies: opening().policies, ..terms(name, &[2, 3]) };
    let fields = (terms, hosting(1), TimeMs(NOW + 60_000));
    [vec![8], borsh::to_vec(&fields).unwrap()].concat()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether anything in the beacon's state has these bytes in it.
fn holds(beacon: &Beacon, bytes: &[u8]) -> bool {
    beacon.state.values().any(|value| has(value, bytes))
}

#[test]
fn the_beacon_founds_a_channel_on_a_promise_and_has_nothing_of_what_it_is_to_go_by() {
    let mut beacon = Beacon::new();
    let proposed = beacon.run(1, &propose("steel", first_policies(), promise())).unwrap().outcome;
    let CommandOutcome::Founding { id, phase: Phase::Proposed } = proposed else { panic!("{proposed:?}") };
    let secret = borsh::to_vec(&wanted()).unwrap();
    assert!(holds(&beacon, &promise().hash.0), "the search finds what is there");
    assert!(!holds(&beacon, &secret));
    beacon.act(2, id, FoundingAct::Approve(hosting(2))).unwrap();
    let last = beacon.act(3, id, FoundingAct::Approve(hosting(3))).unwrap().outcome;
    let CommandOutcome::Founded { group, .. } = last else { panic!("{last:?}") };
    assert_eq!(group, GroupId::channel(0));
    assert!(!holds(&beacon, &secret));

    // The channel starts from the hash, and with policies that every such channel starts with.
    let charter = beacon.read(|view| channels::charter(view, group)).expect("it is kept");
    assert_eq!((charter.policies, charter.promise), (first_policies(), Some(promise().hash)));
    let foundation = beacon.read(registry::foundations).remove(0);
    let kept: Charter = borsh::from_slice(&foundation.charter).unwrap();
    assert_eq!(kept.promise, Some(promise().hash));
    assert!(!has(&foundation.charter, &[0xcc; 8]), "copies stay where they are forgotten");
    // Whoever lost what it had read finds its copy until the deadline.
    let founding = beacon.read(channels::foundings).remove(0);
    assert_eq!((founding.phase, founding.promise), (Phase::Running, Some(promise())));

    // The same search finds what is stated in the clear, and that the beacon does not take.
    assert!(has(&stated("coal"), &secret));
    assert_eq!(beacon.run_bytes(1, stated("coal")), Err(Reject::Malformed.into()));
    assert!(!holds(&beacon, &secret));
}

#[test]
fn the_number_that_stated_policies_in_the_clear_means_no_command() {
    assert!(borsh::from_slice::<BeaconCommand>(&stated("coal")).is_err());
    let mut beacon = Beacon::new();
    assert_eq!(beacon.run_bytes(1, stated("coal")), Err(Reject::Malformed.into()));
    assert!(beacon.read(channels::foundings).is_empty());
    // Signed and handed over in the same way, a promise is a command, and one with these policies beside it is refused as such.
    let beside = borsh::to_vec(&propose("coal", opening().policies, promise())).unwrap();
    assert_eq!(refused_by(beacon.run_bytes(1, beside)), ChannelReject::PromiseForm);
    let sealed = borsh::to_vec(&propose("coal", first_policies(), promise())).unwrap();
    assert!(beacon.run_bytes(1, sealed).is_ok());
}

#[test]
fn a_promise_out_of_form_is_refused() {
    let mut beacon = Beacon::new();
    let without = Promise { sealed: SealedOpening { keys: Vec::new(), ..promise().sealed }, ..promise() };
    for (policies, promise) in [
        (first_policies(), without),
        (first_policies(), Promise { version: 9, ..promise() }),
        (opening().policies, promise()),
    ] {
        let refused = refused_by(beacon.run(1, &propose("steel", policies, promise)));
        assert_eq!(refused, ChannelReject::PromiseForm);
    }
    assert!(beacon.read(channels::foundings).is_empty());
}

/// Small enough to be read: the number, then the fields in order.
#[test]
fn the_command_begins_with_its_number() {
    let command = propose("steel", first_policies(), promise());
    let BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms } = command.clone() else {
        panic!("{command:?}")
    };
    let fields = (terms, promise, hosting, until_ms);
    assert_eq!(borsh::to_vec(&command).unwrap(), [vec![44], borsh::to_vec(&fields).unwrap()].concat());
    assert_ne!(fields.1.hash, Hash32::ZERO);
}
