//! How channels are founded while the cluster runs: a channel begins only when those have approved it whom the policy of its
//! founding asks; its founders are those who have, each with the nodes and anchors that it has named; and its name, its engine,
//! its first policies and what it promises are those that were approved.
//!
//! Proposals and approvals are the commands that the registry has taken, each once; a founding is named by what it states,
//! which is worked out here.

use std::collections::{BTreeMap, BTreeSet};

use beacon::BeaconCommand;
use channel::{Charter, FoundingAct, Hosting, Terms};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use sha2::{Digest, Sha256};

use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen, electors};

/// A channel that was proposed.
struct Founding {
    terms: Terms,
    /// Hash of the policies that it promises.
    promised: Hash32,
    by: OrgId,
    until_ms: TimeMs,
    approved: BTreeMap<OrgId, Hosting>,
    /// Whether its proposer has taken it back.
    withdrawn: bool,
}

/// The foundings of a run.
#[derive(Default)]
pub struct Foundings {
    /// Commands that the registry has taken: sent again they do nothing.
    commands: BTreeSet<Vec<u8>>,
    foundings: BTreeMap<Hash32, Founding>,
    /// Channels that have begun somewhere.
    begun: BTreeSet<GroupId>,
}

/// What names a founding.
fn name(facts: &Facts, founding: &Founding, salt: &[u8; 16]) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(b"seamark/channel-founding/v2");
    hasher.update(facts.genesis.cluster_id().0.0);
    hasher.update(founding.by.0.to_be_bytes());
    hasher.update(founding.until_ms.0.to_be_bytes());
    hasher.update(salt);
    hasher.update(founding.promised.0);
    hasher.update(borsh::to_vec(&founding.terms).unwrap_or_default());
    Hash32(hasher.finalize().into())
}

impl Foundings {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        for governed in &block.governed {
            let Governed::Registered(signed) = governed else { continue };
            if !self.commands.insert(signed.encode()) {
                continue;
            }
            match signed.parse() {
                Ok(BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms }) => {
                    let (by, promised) = (signed.org, promise.hash);
                    let approved = BTreeMap::from([(by, hosting)]);
                    let founding = Founding { terms, promised, by, until_ms, approved, withdrawn: false };
                    self.foundings.insert(name(facts, &founding, &signed.salt), founding);
                }
                Ok(BeaconCommand::ActOnChannel { founding, act }) => {
                    self.act(founding, signed.org, act, block.header.time_ms, found);
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, id: Hash32, org: OrgId, act: FoundingAct, at: TimeMs, found: &mut Vec<String>) {
        let Some(founding) = self.foundings.get_mut(&id) else {
            return found.push(format!("a word of {org} is taken on a founding that nobody has proposed"));
        };
        let named = founding.by == org || founding.terms.invited.contains(&org);
        if !named || at > founding.until_ms {
            found.push(format!("a word of {org} is taken on the founding of {}: it has none", founding.terms.name));
        }
        match act {
            FoundingAct::Approve(hosting) => {
                founding.approved.insert(org, hosting);
            }
            FoundingAct::Withdraw => founding.withdrawn |= org == founding.by,
            FoundingAct::Reject => {}
        }
    }

    /// A channel begins as its charter says: whether it might.
    fn begins(&self, charter: &Charter) -> Result<(), String> {
        let founding = self.foundings.get(&charter.founding).ok_or("nobody has proposed it")?;
        let (terms, approved) = (&founding.terms, &founding.approved);
        let orgs: BTreeSet<OrgId> = approved.keys().copied().collect();
        let named: BTreeSet<OrgId> = terms.invited.iter().copied().chain([founding.by]).collect();
        if founding.withdrawn || !electors::holds(&terms.founding, &named, &orgs) {
            return Err(format!("{orgs:?} have approved it, and {} have to", terms.founding));
        }
        let founders: BTreeSet<OrgId> = charter.members.iter().map(|member| member.org).collect();
        if founders != orgs || charter.members.len() != orgs.len() {
            return Err(format!("its members are {founders:?}, and {orgs:?} have approved it"));
        }
        for member in &charter.members {
            let nodes: Vec<NodeId> = member.nodes.iter().map(|node| node.node).collect();
            let brought = approved.get(&member.org);
            if brought.is_none_or(|brought| brought.nodes != nodes || brought.anchors != member.anchors) {
                return Err(format!("{} has not brought the nodes that it hosts it on", member.org));
            }
        }
        if !charter.invited.iter().all(|org| named.contains(org) && !orgs.contains(org)) {
            return Err("it invites others than its founding names".to_owned());
        }
        let same = charter.name == terms.name && charter.engine == terms.engine && charter.policies == terms.policies;
        if !same || charter.promise != Some(founding.promised) {
            return Err("it states, or promises, something else than was approved".to_owned());
        }
        Ok(())
    }
}

impl Checker for Foundings {
    fn name(&self) -> &'static str {
        "foundings"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first && block.group == GroupId::BEACON => self.block(facts, block, found),
            // Every one of its nodes begins with the same.
            Seen::Founded(foundation) if self.begun.insert(foundation.group) => {
                let group = foundation.group;
                match borsh::from_slice::<Charter>(&foundation.charter) {
                    Ok(charter) if charter.group == group => {
                        if let Err(why) = self.begins(&charter) {
                            found.push(format!("{group} has begun: {why}"));
                        }
                    }
                    Ok(charter) => found.push(format!("{group} begins by the charter of {}", charter.group)),
                    // That it does not decode `policies` says.
                    Err(_) => {}
                }
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, _: &[RawReplica<'_>], _: &mut Vec<String>) {}
}

#[cfg(test)]
mod tests {
    use beacon::SignedCommand;
    use channel::opening::{PROMISE_VERSION, first_policies};
    use channel::policy::Item;
    use channel::state::{MemberNode, MemberRecord};
    use channel::{Policy, Promise, Quorum, Role, SealedOpening};
    use ledger::committee::Engine;
    use ledger::foundation::{FOUNDATION_VERSION, Foundation};
    use ledger::ids::Height;

    use super::super::testing::{Bench, expect};
    use super::*;
    use crate::cluster::{CREATED_MS, node_info};

    const CHANNEL: GroupId = GroupId::channel(0);
    const PROMISED: Hash32 = Hash32([7; 32]);

    /// Both of the first two have to approve it.
    fn terms() -> Terms {
        let founders = [0, 1].map(|org| Item::Sub(Policy::one(OrgId(org), Role::Admin)));
        Terms {
            name: "founded".to_owned(),
            invited: vec![OrgId(1), OrgId(2)],
            engine: Engine::Raft,
            founding: Policy::rule(Quorum::All, founders.to_vec()),
            policies: first_policies(),
        }
    }

    /// The first node of an organisation carries its mail.
    fn hosting(org: u16) -> Hosting {
        let nodes = vec![NodeId(u32::from(org)), NodeId(u32::from(org) + 3)];
        Hosting { anchors: vec![nodes[0]], nodes }
    }

    fn proposal(bench: &mut Bench<Foundings>) -> SignedCommand {
        let sender = node_info(0).key;
        let sealed = SealedOpening { sender, keys: Vec::new(), body: Vec::new() };
        let promise = Promise { version: PROMISE_VERSION, hash: PROMISED, sealed };
        let until_ms = TimeMs(CREATED_MS + 1_000);
        let command = BeaconCommand::ProposeSealedChannel { terms: terms(), promise, hosting: hosting(0), until_ms };
        bench.signed(0, &command, 10_000)
    }

    fn id(bench: &Bench<Foundings>, proposal: &SignedCommand) -> Hash32 {
        let (cluster, until_ms) = (bench.facts.genesis.cluster_id(), TimeMs(CREATED_MS + 1_000));
        channel::founding::promised_founding_id(&cluster, OrgId(0), until_ms, &proposal.salt, &PROMISED, &terms())
    }

    fn member(org: u16) -> MemberRecord {
        let Hosting { nodes, anchors } = hosting(org);
        MemberRecord {
            version: 1,
            org: OrgId(org),
            name: format!("org-{org}"),
            joined: Height(0),
            keys: Vec::new(),
            nodes: nodes.into_iter().map(|node| MemberNode { node, key: node_info(node.0).key }).collect(),
            anchors,
        }
    }

    fn charter(bench: &Bench<Foundings>, founding: Hash32) -> Charter {
        Charter {
            version: 2,
            cluster: bench.facts.genesis.cluster_id(),
            group: CHANNEL,
            name: "founded".to_owned(),
            engine: Engine::Raft,
            founding,
            started_ms: TimeMs(CREATED_MS),
            members: vec![member(0), member(1)],
            invited: vec![OrgId(2)],
            policies: first_policies(),
            promise: Some(PROMISED),
        }
    }

    /// A channel begins somewhere.
    fn begin(bench: &mut Bench<Foundings>, charter: &Charter) {
        let beacon = bench.committee(GroupId::BEACON);
        let foundation = Foundation {
            version: FOUNDATION_VERSION,
            group: CHANNEL,
            charter: borsh::to_vec(charter).expect("writing to memory does not fail"),
            members: charter.members.iter().map(|member| member.org).collect(),
            committee: charter.committee(),
            beacon_committee: beacon,
            layout: bench.facts.genesis.layout.clone(),
            founded_ms: charter.started_ms,
            beacon_height: Height(1),
        };
        bench.see(&Seen::Founded(Box::new(foundation)));
    }

    #[test]
    fn a_channel_begins_when_those_have_approved_it_whom_its_founding_asks() {
        use FoundingAct::{Approve, Reject, Withdraw};
        let approve = |org: u16| (org, Approve(hosting(org)));
        let few = Some("have approved it, and");
        let none = Some("it has none");
        for (what, acts, at_ms, word, begun) in [
            ("both", vec![approve(1)], 1, None, None),
            ("one", vec![], 1, None, few),
            ("another one", vec![approve(2)], 1, None, few),
            ("one, and the other rejects", vec![(1, Reject)], 1, None, few),
            ("both, and it was taken back", vec![approve(1), (0, Withdraw)], 1, None, few),
            ("in time", vec![approve(1)], 1_000, None, None),
            ("too late", vec![approve(1)], 1_001, none, None),
            ("one that is not named", vec![approve(1), (3, Reject)], 1, none, None),
        ] {
            let mut bench = Bench::new(Foundings::default());
            let proposed = proposal(&mut bench);
            let founding = id(&bench, &proposed);
            bench.beacon(1, &[proposed], Vec::new());
            for (org, act) in acts {
                let command = bench.signed(org, &BeaconCommand::ActOnChannel { founding, act }, 10_000);
                bench.beacon(at_ms, &[command], Vec::new());
            }
            expect(what, &bench.found(), word);
            let (mut charter, both) = (charter(&bench, founding), bench.checker.foundings[&founding].approved.len());
            charter.members.truncate(both);
            begin(&mut bench, &charter);
            expect(what, &bench.found(), begun);
            begin(&mut bench, &charter);
            expect("it has begun elsewhere", &bench.found(), None);
        }
        let mut bench = Bench::new(Foundings::default());
        let act = BeaconCommand::ActOnChannel { founding: PROMISED, act: Reject };
        let command = bench.signed(1, &act, 10_000);
        bench.beacon(1, &[command], Vec::new());
        expect("a word on nothing", &bench.found(), Some("that nobody has proposed"));
    }

    #[test]
    fn a_channel_begins_as_it_was_approved() {
        let (nodes, stated) = (Some("has not brought the nodes"), Some("something else than was approved"));
        let (founders, invited) = (Some("its members are"), Some("it invites others"));
        let changes: [(&str, fn(&mut Charter), Option<&str>); 12] = [
            ("as it was", |_| {}, None),
            ("nobody is invited any more", |charter| charter.invited.clear(), None),
            ("another founding", |charter| charter.founding = PROMISED, Some("nobody has proposed it")),
            (
                "one founder less",
                |charter| {
                    let _ = charter.members.pop();
                },
                founders,
            ),
            ("one founder more", |charter| charter.members.push(member(2)), founders),
            (
                "a node less",
                |charter| {
                    let _ = charter.members[1].nodes.pop();
                },
                nodes,
            ),
            ("another anchor", |charter| charter.members[1].anchors = vec![NodeId(4)], nodes),
            ("a founder is invited", |charter| charter.invited = vec![OrgId(1)], invited),
            ("a stranger is invited", |charter| charter.invited = vec![OrgId(5)], invited),
            ("another name", |charter| charter.name.push('x'), stated),
            ("another engine", |charter| charter.engine = Engine::Bft, stated),
            ("nothing is promised", |charter| charter.promise = None, stated),
        ];
        for (what, change, expected) in changes {
            let mut bench = Bench::new(Foundings::default());
            let proposed = proposal(&mut bench);
            let founding = id(&bench, &proposed);
            let act = BeaconCommand::ActOnChannel { founding, act: FoundingAct::Approve(hosting(1)) };
            let approved = bench.signed(1, &act, 10_000);
            bench.beacon(1, &[proposed, approved], Vec::new());
            let mut charter = charter(&bench, founding);
            change(&mut charter);
            begin(&mut bench, &charter);
            expect(what, &bench.found(), expected);
        }
    }
}
