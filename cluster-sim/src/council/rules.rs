//! How organisations decide by other policies: somebody wants one for a matter of the cluster, and organisations sign it in
//! the registry, one after the other, until it is in force or another one came before it.
//!
//! What is asked for is one of three: any organisation, more than half of them, each. What is decided meanwhile needs the
//! approvals of whichever is in force; that is judged by the checker `rules`.

use beacon::policies::ruled;
use beacon::{BeaconCommand, Matter, PolicyChange};
use channel::{Policy, Quorum, Role};
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::cluster::{CREATED_MS, ORGS};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// Between two steps.
const ASKED_MS: u64 = 70;
/// Steps after which nobody asks any more.
const TRIES: u32 = 30;
/// What policies are asked for, those of jobs most often.
const MATTERS: [Matter; 6] =
    [Matter::Jobs, Matter::Jobs, Matter::Jobs, Matter::Policy, Matter::Engines, Matter::Operation];

/// A policy that is wanted, and how often something was done about it.
#[derive(Clone, Debug)]
pub(crate) struct Ruling {
    change: PolicyChange,
    tries: u32,
}

/// Another policy for some matter than the one in force.
fn choose(view: &mut View<'_>, rng: &mut ChaCha8Rng) -> Option<PolicyChange> {
    let matter = MATTERS.choose(rng).copied()?;
    let before = ruled(view, matter);
    let known = [Quorum::Any, Quorum::Majority, Quorum::All].map(|quorum| Policy::members(quorum, Role::Admin));
    let others: Vec<Policy> = known.into_iter().filter(|policy| *policy != before.policy).collect();
    let policy = others.choose(rng).cloned()?;
    Some(PolicyChange { matter, base: before.revision, policy })
}

impl World {
    /// Takes another policy of the cluster a step further, or chooses one.
    pub(crate) fn rule(&mut self, place: Option<usize>) {
        if self.phase != Phase::Faults {
            return;
        }
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return self.push(ASKED_MS, Event::Rule { place }) };
        let (ruling, bytes) = {
            let replica = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON));
            let Some(replica) = replica else { return self.push(ASKED_MS, Event::Rule { place }) };
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let known = place.and_then(|place| self.rulings.get(place)).cloned();
            let ruling = known.or_else(|| {
                let change = choose(&mut view, &mut self.ruling)?;
                Some(Ruling { change, tries: 0 })
            });
            let Some(ruling) = ruling else { return };
            // It is in force, or another one came before it. A leader that is behind says so later.
            if ruled(&mut view, ruling.change.matter).revision > ruling.change.base {
                return;
            }
            let org = OrgId(self.ruling.random_range(0..ORGS));
            let command = BeaconCommand::SetPolicy(ruling.change.clone());
            let bytes = self.council.sign_for(&mut view, org, &command, now);
            (ruling, bytes)
        };
        let ruling = Ruling { tries: ruling.tries + 1, ..ruling };
        let tries = ruling.tries;
        let place = place.unwrap_or(self.rulings.len());
        match self.rulings.get_mut(place) {
            Some(known) => *known = ruling,
            None => self.rulings.push(ruling),
        }
        if let Some(bytes) = bytes {
            self.submit(leader, GroupId::BEACON, bytes);
        }
        if tries < TRIES {
            self.push(ASKED_MS, Event::Rule { place: Some(place) });
        }
    }
}
