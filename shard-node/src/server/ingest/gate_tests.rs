use std::sync::Arc;

use bytes::Bytes;
use ledger::ids::OrgId;

use super::*;
use crate::server::ingest::testing::{Shutting, of_org};

#[test]
fn each_sender_is_judged_once_at_a_block_and_anew_at_the_next() {
    let rules = Arc::new(Shutting::default());
    let gate = Gate::by(Box::new(Arc::clone(&rules)));
    let (stays, goes) = (of_org(1), of_org(2));
    for _ in 0..3 {
        assert_eq!((gate.denies(&stays), gate.denies(&goes)), (None, None));
    }
    assert_eq!(rules.asked(), 2, "what was found is kept while the block is the newest");
    rules.block(Some(OrgId(2)));
    let denied = gate.denies(&goes).expect("it was shut out");
    assert_eq!((denied.reject(), denied.detail.as_str()), (Some(Reject::ChannelRefused), "org 2 is out"));
    assert_eq!(gate.denies(&stays), None);
    assert_eq!(rules.asked(), 4);
    // What was taken from it may have been executed: it is not told that it was refused.
    let untold = gate.ends(&goes).expect("it was shut out");
    assert_eq!((untold.reject(), untold.detail), (Some(Reject::ChannelUntold), denied.detail));
    assert_eq!(rules.asked(), 4);
}

#[test]
fn who_forwards_counts_as_much_as_for_whom() {
    let rules = Arc::new(Shutting::default());
    let gate = Gate::by(Box::new(Arc::clone(&rules)));
    let (known, unknown) = (of_org(1), Arc::new(Sender { from: None, ..(*of_org(1)).clone() }));
    assert_eq!((gate.denies(&known), gate.denies(&unknown)), (None, None));
    assert_eq!(rules.asked(), 2, "they are two");
    for number in 0..KNOWN_MAX {
        let caller =
            v1::Caller { org: 1, credential: Bytes::copy_from_slice(&number.to_be_bytes()), ..v1::Caller::default() };
        assert_eq!(gate.denies(&Sender { from: None, caller: Some(caller) }), None);
    }
    assert!(gate.known.lock().refusals.len() <= KNOWN_MAX, "however many there are");
    assert!(Gate::open().is_open() && !gate.is_open());
    assert_eq!(Gate::open().ends(&unknown), None);
}

/// A router whose organisation was shut out, or whose certificate was revoked, is denied access and not refused by a rule.
struct Outside;

impl Admits for Outside {
    fn newest(&self) -> Height {
        Height(1)
    }

    fn denies(&self, _sender: &Sender) -> Option<v1::Refusal> {
        Some(v1::Refusal::of(Reject::AccessDenied).detail("it takes no part"))
    }
}

#[test]
fn what_a_router_that_is_shut_out_has_forwarded_is_not_called_refused() {
    let gate = Gate::by(Box::new(Outside));
    let sender = of_org(1);
    assert_eq!(gate.denies(&sender).and_then(|denied| denied.reject()), Some(Reject::AccessDenied));
    let untold = gate.ends(&sender).expect("it was shut out");
    assert_eq!((untold.reject(), untold.detail.as_str()), (Some(Reject::ChannelUntold), "it takes no part"));
}
