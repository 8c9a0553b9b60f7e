//! Revocations: the registry carries out only what the admin key of the moment has signed; every channel
//! hears of all that is revoked there, and of nothing else; from the block on that brings it, nothing that
//! is signed with such a key takes effect in the channel (what it did before is only told again), and no
//! member has the key any more. In runs in which clients show certificates, a replica that has this block takes no
//! transaction under such a one.

use std::collections::{BTreeMap, BTreeSet};

use beacon::{BeaconCommand, SignedCommand};
use channel::state;
use ledger::crypto::{self, PublicKey};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId};
use ledger::schema;
use ledger::view::View;
use sha2::{Digest, Sha256};
use shard_node::core::applied::AppliedRecord;

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::state::{KvState, load};

/// A key or certificate of an organisation, by its hash.
type Credential = (OrgId, Hash32);

#[derive(Default)]
struct Channel {
    height: u64,
    /// What comes next in the beacon's stream.
    told: u64,
    /// What was revoked, and at which height the channel heard of it.
    heard: BTreeMap<Credential, u64>,
    /// Commands that were carried out.
    done: BTreeSet<Hash32>,
}

/// What is revoked, by the commands to the registry, and what each channel has heard of it.
#[derive(Default)]
pub struct Revocations {
    /// Admin keys that replaced those of the genesis.
    admins: BTreeMap<OrgId, PublicKey>,
    /// Commands that the registry carried out; sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    revoked: BTreeSet<Credential>,
    channels: BTreeMap<GroupId, Channel>,
    /// How far replicas of channels are.
    heights: BTreeMap<(GroupId, NodeId), u64>,
}

fn hash_of(key: &PublicKey) -> Hash32 {
    Hash32(Sha256::digest(key.0).into())
}

impl Revocations {
    /// The registry has carried out a command.
    fn registered(&mut self, facts: &Facts, signed: &SignedCommand) -> Result<(), String> {
        if !self.commands.insert(signed.encode()) {
            return Ok(());
        }
        let org = signed.org;
        let first = || facts.genesis.orgs.iter().find(|info| info.id == org).map(|info| info.admin_key);
        let admin = self.admins.get(&org).copied().or_else(first).ok_or("nobody knows its organisation")?;
        let digest = signed.digest(&facts.genesis.cluster_id());
        crypto::verify(&admin, &digest, &signed.signature).map_err(|_| "its admin key has not signed it")?;
        match signed.parse() {
            Ok(BeaconCommand::RotateAdminKey { key }) => {
                self.revoked.insert((org, hash_of(&admin)));
                self.admins.insert(org, key);
            }
            Ok(BeaconCommand::RevokeCredential { credential }) => {
                self.revoked.insert((org, credential));
            }
            Ok(_) => {}
            Err(reject) => return Err(format!("it is none: {reject:?}")),
        }
        Ok(())
    }

    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let (group, height) = (block.group, block.header.height.0);
        for governed in &block.governed {
            match governed {
                Governed::Registered(signed) => {
                    if let Err(why) = self.registered(facts, signed) {
                        found.push(format!("the registry carried out a command of {} at {height}: {why}", signed.org));
                    }
                }
                Governed::Told(seq, update) => {
                    let channel = self.channels.entry(group).or_default();
                    if *seq < channel.told {
                        continue;
                    }
                    channel.told = *seq + 1;
                    for credential in &update.revoked {
                        channel.heard.entry(*credential).or_insert(height);
                        if !self.revoked.contains(credential) {
                            let (org, what) = credential;
                            found.push(format!("{group} hears that {what} of {org} was revoked, which nobody did"));
                        }
                    }
                }
                Governed::Act(signed, Some(_)) => {
                    let channel = self.channels.entry(group).or_default();
                    let since = channel.heard.get(&(signed.org, hash_of(&signed.key)));
                    if channel.done.insert(signed.digest())
                        && let Some(since) = since
                    {
                        found.push(format!(
                            "{group} carried out a command of {} at {height} under a key that the registry had revoked, \
                             as it had heard at {since}",
                            signed.org
                        ));
                    }
                }
                Governed::Act(_, None) | Governed::Planned(..) | Governed::Seated(..) => {}
            }
        }
        if let Some(channel) = self.channels.get_mut(&group) {
            channel.height = height;
        }
    }

    /// A replica has taken a client's transaction.
    fn admitted(&self, node: NodeId, group: GroupId, by: Credential) -> Option<String> {
        let heard = *self.channels.get(&group)?.heard.get(&by)?;
        let height = *self.heights.get(&(group, node))?;
        let (org, credential) = by;
        (height >= heard).then(|| {
            format!(
                "node {node} took a transaction to {group} at {height} under the certificate {credential} of {org}, which \
                 was revoked, as the channel had heard at {heard}"
            )
        })
    }

    /// No member of a channel has a key that the channel has heard to be revoked.
    fn keys(&self, replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let Some(channel) = self.channels.get(&replica.group) else { return Ok(()) };
        let applied: AppliedRecord = load(replica.kv, &schema::applied())?;
        if applied.height.0 != channel.height {
            return Ok(());
        }
        let reader = KvState { kv: replica.kv, hide_receipts: false };
        for member in state::members(&mut View::new(&reader)) {
            for key in &member.keys {
                if channel.heard.contains_key(&(member.org, hash_of(&key.key))) {
                    let (group, node) = (replica.group, replica.node);
                    found.push(format!("in {group} on node {node} {} has a key that was revoked", member.org));
                }
            }
        }
        Ok(())
    }

    /// All mail was taken: a channel knows of all that was revoked.
    fn complete(&self, group: GroupId, found: &mut Vec<String>) {
        let heard = self.channels.get(&group).map(|channel| &channel.heard);
        for (org, what) in &self.revoked {
            if heard.is_none_or(|heard| !heard.contains_key(&(*org, *what))) {
                found.push(format!("{group} has never heard that {what} of {org} was revoked"));
            }
        }
    }
}

impl Checker for Revocations {
    fn name(&self) -> &'static str {
        "revocations"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) => {
                if first {
                    self.block(facts, block, found);
                }
                if block.group.kind() == Some(GroupKind::Channel) {
                    self.heights.insert((block.group, block.node), block.header.height.0);
                }
            }
            Seen::Started { node, group, height } | Seen::Fetched { node, group, height, .. } => {
                self.heights.insert((*group, *node), height.0);
            }
            Seen::Admitted { node, group, org, credential } => {
                found.extend(self.admitted(*node, *group, (*org, *credential)));
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        let mut ended = BTreeSet::new();
        for replica in replicas.iter().filter(|replica| replica.group.kind() == Some(GroupKind::Channel)) {
            if let Err(error) = self.keys(replica, found) {
                found.push(error);
            }
            if moment == Moment::End && ended.insert(replica.group) {
                self.complete(replica.group, found);
            }
        }
    }
}
