//! What has to hold in every state, what has to be reachable for a search to mean anything, and what
//! counts as rest. Owns the properties; reads states and never the rules.

use stateright::Property;

use crate::rules::Commit;
use crate::state::{Clock, Decision, Group, Message, State};

pub const NO_SPLIT: &str = "no group commits while another aborts";
pub const ALL_YES_IS_FINAL: &str = "nobody aborts what every voter said YES to";
pub const WRITTEN_ONCE: &str = "a register is written once";
pub const STAYS_DROPPED: &str = "a dropped register never comes back";
pub const NO_LATE_VOTE: &str = "no vote is taken after the register was dropped";
pub const HOLDS: &str = "a hold exists exactly while a YES is undecided";
pub const CREDIT_ONCE: &str = "no credit is applied twice";
pub const CREDIT_EARNED: &str = "no credit without its commit";
pub const CONSERVED: &str = "posted and in flight add up";

/// All properties of a model.
pub fn of(model: &Commit) -> Vec<Property<Commit>> {
    let mut all = vec![
        Property::always(NO_SPLIT, |_, s: &State| {
            !(s.groups.iter().any(|g| g.past.committed) && s.groups.iter().any(|g| g.past.aborted))
        }),
        Property::always(ALL_YES_IS_FINAL, |m, s: &State| {
            let said_yes = |g: &Group| g.register == Some(Decision::Yes) || g.past.committed;
            !voters(m, s).all(said_yes) || !voters(m, s).any(|g| g.past.aborted)
        }),
        Property::always(WRITTEN_ONCE, |_, s: &State| !s.groups.iter().any(|g| g.past.rewritten)),
        Property::always(STAYS_DROPPED, |_, s: &State| {
            !s.groups.iter().any(|g| g.past.dropped && g.register.is_some())
        }),
        Property::always(NO_LATE_VOTE, |_, s: &State| !s.groups.iter().any(|g| g.past.late_vote)),
        Property::always(HOLDS, |_, s: &State| {
            let undecided = |g: &Group| g.register == Some(Decision::Yes) && g.outcome.is_none();
            s.groups.iter().all(|g| g.held == i8::from(undecided(g)) && g.posted >= 0)
        }),
        Property::always(CREDIT_ONCE, |_, s: &State| s.credited.iter().all(|&times| times <= 1)),
        Property::always(CREDIT_EARNED, |m, s: &State| {
            m.shape.pays.iter().enumerate().all(|(payer, payee)| {
                let Some(payee) = *payee else { return true };
                let sent = s.streams[payer][payee].log.messages().any(|(_, message)| message == Message::Credit);
                !(sent || s.credited[payer] > 0) || s.groups[payer].past.committed
            })
        }),
        Property::always(CONSERVED, |m, s: &State| {
            let posted: i32 = s.groups.iter().map(|g| i32::from(g.posted)).sum();
            let credited: i32 = s.credited.iter().map(|&times| i32::from(times)).sum();
            let issued = m.shape.pays.iter().flatten().count();
            i32::try_from(issued).is_ok_and(|issued| posted + credited + in_flight(s) == issued)
        }),
        Property::sometimes("all commit, drop, and come to rest", |m, s: &State| {
            voters(m, s).all(|g| g.past.committed && g.past.dropped) && is_rest(m, s)
        }),
        Property::sometimes("all abort, drop, and come to rest", |m, s: &State| {
            voters(m, s).all(|g| g.past.aborted && g.past.dropped) && is_rest(m, s)
        }),
        Property::sometimes("a YES after which the peer says NO", |m, s: &State| {
            voters(m, s).any(|g| g.register == Some(Decision::Yes) && g.past.aborted)
        }),
        Property::sometimes("a first word of it after valid_until + grace", |m, s: &State| {
            voters(m, s).any(|g| g.clock == Clock::Gone && g.register == Some(Decision::No) && g.outcome.is_none())
        }),
    ];
    if model.shape.pays.iter().flatten().next().is_some() {
        all.push(Property::sometimes("a credit in flight of a dropped register", |m, s: &State| {
            voters(m, s).any(|g| g.past.committed && g.past.dropped) && in_flight(s) > 0
        }));
    }
    if model.shape.hidden.contains(&true) {
        all.push(Property::sometimes("a group that waits for openings past valid_until", |_, s: &State| {
            s.groups
                .iter()
                .any(|g| g.register.is_none() && g.votes.iter().any(Option::is_some) && g.clock != Clock::Before)
        }));
    }
    all
}

/// Nothing is owed: no register, no hold, nobody waits, outboxes are empty, and what was committed has
/// been credited once.
pub fn is_rest(model: &Commit, state: &State) -> bool {
    let idle = |g: &Group| g.register.is_none() && g.held == 0 && g.votes.iter().all(Option::is_none);
    let sent = state.streams.iter().flatten().all(|stream| stream.acked == stream.log.len());
    let credited = (0..model.shape.voters).all(|payer| {
        let owed = state.groups[payer].past.committed && model.shape.pays[payer].is_some();
        state.credited[payer] == u8::from(owed)
    });
    voters(model, state).all(idle) && sent && credited
}

fn voters<'a>(model: &Commit, state: &'a State) -> impl Iterator<Item = &'a Group> {
    state.groups[..model.shape.voters].iter()
}

/// Credits that are emitted and not taken.
fn in_flight(state: &State) -> i32 {
    let waiting = state.streams.iter().flatten().map(|stream| {
        stream.log.messages().filter(|&(seq, message)| seq >= stream.taken() && message == Message::Credit).count()
    });
    waiting.sum::<usize>() as i32
}
