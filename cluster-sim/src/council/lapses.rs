//! What became of keys that the registry revoked while they were in use, counted so that runs can be shown
//! to have met it. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use channel::{Command as Act, Outcome, ProposalState, SignedCommand};
use cross_shard::Message;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{GroupId, OrgId};

use crate::checkers::{BlockSeen, Governed};
use crate::report::Coverage;

/// A key of an organisation, by its hash.
type Credential = (OrgId, Hash32);

#[derive(Default)]
struct Channel {
    /// Revoked, as far as the channel has heard.
    heard: BTreeSet<Credential>,
    /// Under these something was carried out.
    used: BTreeSet<Credential>,
    /// Who has approved what is not decided.
    open: BTreeMap<Hash32, BTreeSet<Credential>>,
    decided: BTreeSet<Hash32>,
}

/// Revoked keys in all channels.
#[derive(Default)]
pub(crate) struct Lapses {
    /// What the registry has revoked.
    revoked: BTreeSet<Credential>,
    channels: BTreeMap<GroupId, Channel>,
}

impl Lapses {
    /// Takes a block of which no replica has told before.
    pub(crate) fn see(&mut self, block: &BlockSeen, coverage: &mut Coverage) {
        if block.group == GroupId::BEACON {
            for (_, _, message) in &block.mail {
                if let Message::RegistryUpdate(update) = message {
                    self.revoked.extend(update.revoked.iter().copied());
                }
            }
            return;
        }
        for governed in &block.governed {
            let channel = self.channels.entry(block.group).or_default();
            match governed {
                Governed::Told(_, update) => channel.told(&update.revoked, coverage),
                Governed::Act(signed, outcome) => channel.act(signed, *outcome, &self.revoked, coverage),
                Governed::Planned(..) | Governed::Seated(..) | Governed::Registered(_) => {}
            }
        }
    }
}

impl Channel {
    fn told(&mut self, revoked: &[Credential], coverage: &mut Coverage) {
        for credential in revoked {
            if self.heard.insert(*credential) {
                let lost = self.open.values().filter(|voices| voices.contains(credential)).count();
                coverage.voices_lost += lost as u64;
            }
        }
    }

    fn act(
        &mut self,
        signed: &SignedCommand,
        outcome: Option<Outcome>,
        revoked: &BTreeSet<Credential>,
        coverage: &mut Coverage,
    ) {
        let credential = (signed.org, sha256(&signed.key.0));
        let Some(outcome) = outcome else {
            let lapsed = self.heard.contains(&credential) && self.used.contains(&credential);
            coverage.stolen_refused += u64::from(lapsed);
            return;
        };
        self.used.insert(credential);
        coverage.stolen_used += u64::from(revoked.contains(&credential) && !self.heard.contains(&credential));
        let Outcome::Proposal { id, state } = outcome else { return };
        if state != ProposalState::Open {
            self.decided.insert(id);
            self.open.remove(&id);
        } else if !self.decided.contains(&id)
            && let Ok(Act::Propose { .. } | Act::Approve { .. }) = borsh::from_slice::<Act>(&signed.body)
        {
            self.open.entry(id).or_default().insert(credential);
        }
    }
}
