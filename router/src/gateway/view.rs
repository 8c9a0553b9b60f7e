//! The cluster as a node or router sees it: who exists, who owns which accounts, who probably leads.
//!
//! Whom a node lets in hangs on it, so all of it but the leaders comes from the genesis, from a
//! registry that the beacon certified, or from the state of a group that this node hosts itself. An
//! old view costs a redirect, and a wrong leader too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use beacon::Succession;
use beacon::limits::FOUNDATIONS_ASKED_MAX;
use bytes::Bytes;
use ledger::foundation::{Foundation, FoundedGroup};
use ledger::genesis::{Genesis, NodeInfo, OrgInfo};
use ledger::tx::ParsedTx;
use ledger::{
    BornShard, ClusterId, Committee, Epoch, GroupId, Handover, Hash32, Height, Layout, NodeId, OrgId, Reject,
};
use proto::v1;

use super::ask::may_come;
use crate::plan::Plan;

/// Bytes of hand-overs in one message to those who follow, if that is more than one of them.
const HANDOVER_BYTES_AT_ONCE: usize = 1024 * 1024;

/// One state of the cluster's registry.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its genesis, encoded, as clients ask for it.
    pub genesis: Bytes,
    /// The layout in force.
    pub layout: Arc<Layout>,
    /// The committee in force of every group.
    pub committees: BTreeMap<GroupId, Committee>,
    /// Committees that are being prepared: their new members take part already.
    pub coming: BTreeMap<GroupId, Committee>,
    /// What the registry says of how every group began that the genesis does not name.
    pub founded: BTreeMap<GroupId, FoundedGroup>,
    /// The foundations of such groups that this node has: of those that it has a seat in, and of all if it hosts the
    /// beacon. Routers have none.
    pub foundations: BTreeMap<GroupId, Arc<Foundation>>,
    /// Every node.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Every organisation.
    pub orgs: Arc<Vec<OrgInfo>>,
    /// The members of every channel, as it shows them.
    pub channels: BTreeMap<GroupId, Vec<OrgId>>,
    /// Keys and certificates that were revoked: whose, and `sha256` of the key or of the certificate's subject
    /// public key info.
    pub revoked: Arc<BTreeSet<(OrgId, Hash32)>>,
    /// Groups in quarantine, which are given nothing new.
    pub quarantined: Arc<BTreeSet<GroupId>>,
    /// The jobs that change the layout and are under way, by number.
    pub jobs: Arc<Vec<beacon::Job>>,
    /// The living shards that others were cut or joined into.
    pub born: Arc<Vec<BornShard>>,
    /// How often each member of a shard reports its load, milliseconds; `None` while nobody asks for loads.
    pub load_every_ms: Option<u64>,
    /// The lead of a shard that its leader is to hand over, because of load.
    pub lead: Option<beacon::LeadHint>,
    /// Who leads which group, as far as somebody said.
    pub leaders: BTreeMap<GroupId, NodeId>,
    /// Revision of the registry this stands at; that of the genesis is 1.
    pub revision: u64,
    /// Height of the beacon this stands at.
    pub beacon_height: u64,
    /// The encoded [`beacon::RegistryProof`] for those who follow. Empty for the registry of the
    /// genesis, and of an earlier revision while a node of the beacon waits for a certificate.
    pub proof: Bytes,
    /// The committees of the beacon that are proved, from that of the genesis on: by them registries are judged. None
    /// where the genesis names no beacon.
    pub beacon: Option<Arc<Succession>>,
}

impl ClusterView {
    /// The view that a genesis gives: enough to find everybody for the first time.
    #[must_use]
    pub fn of_genesis(genesis: &Genesis) -> Self {
        let encoded = borsh::to_vec(genesis).expect("writing to memory does not fail");
        Self {
            cluster: genesis.cluster_id(),
            genesis: encoded.into(),
            layout: Arc::new(genesis.layout.clone()),
            committees: genesis.committees.iter().map(|committee| (committee.group, committee.clone())).collect(),
            coming: BTreeMap::new(),
            founded: BTreeMap::new(),
            foundations: BTreeMap::new(),
            nodes: genesis.nodes.iter().map(|node| (node.id, node.clone())).collect(),
            orgs: Arc::new(genesis.orgs.clone()),
            channels: BTreeMap::new(),
            revoked: Arc::default(),
            quarantined: Arc::default(),
            jobs: Arc::default(),
            born: Arc::default(),
            load_every_ms: None,
            lead: None,
            leaders: BTreeMap::new(),
            revision: 1,
            beacon_height: 0,
            proof: Bytes::new(),
            beacon: genesis.committee(GroupId::BEACON).map(|first| Arc::new(Succession::new(first.clone()))),
        }
    }

    /// Takes committees of the beacon that are proved, if they are more than are known.
    pub fn adopt_beacon(&mut self, succession: Arc<Succession>) {
        let steps = |known: &Arc<Succession>| known.steps().len();
        if self.beacon.as_ref().is_none_or(|known| steps(known) < steps(&succession)) {
            self.beacon = Some(succession);
        }
    }

    /// Takes a registry whose origin the caller answers for: proved, or read from the beacon's state
    /// on this node. Says whether it was news: an older or equal one changes nothing.
    pub fn adopt(&mut self, registry: &beacon::ClusterView, height: Height) -> bool {
        if registry.cluster != self.cluster || registry.revision <= self.revision {
            return false;
        }
        let before = std::mem::take(&mut self.committees);
        self.committees = registry.committees.iter().map(|c| (c.group, c.clone())).collect();
        // A hosted group may have learned of its next committee before the registry came here.
        for committee in before.into_values() {
            if self.committees.contains_key(&committee.group) {
                self.adopt_committee(committee);
            }
        }
        self.coming = registry.coming.iter().map(|c| (c.group, c.clone())).collect();
        self.founded = registry.founded.iter().map(|leaf| (leaf.group, *leaf)).collect();
        self.adopt_layout(&registry.layout);
        self.nodes = registry.nodes.iter().map(|node| (node.id, node.clone())).collect();
        self.orgs = Arc::new(registry.orgs.clone());
        self.channels = registry.channels.iter().cloned().collect();
        self.revoked = Arc::new(registry.revoked.iter().copied().collect());
        self.quarantined = Arc::new(registry.quarantined.iter().copied().collect());
        self.jobs = Arc::new(registry.jobs.clone());
        self.born = Arc::new(registry.born.clone());
        self.load_every_ms = registry.load_every_ms;
        self.lead = registry.lead;
        self.revision = registry.revision;
        self.beacon_height = height.0;
        true
    }

    /// Takes a foundation, if it is the one that the registry has the hash of, whoever gave it. Says whether it was news.
    pub fn adopt_foundation(&mut self, foundation: Arc<Foundation>) -> bool {
        let group = foundation.group;
        if self.foundations.contains_key(&group) || self.founded.get(&group) != Some(&foundation.leaf()) {
            return false;
        }
        self.foundations.insert(group, foundation);
        true
    }

    /// The groups whose foundation a node needs and this view does not have.
    #[must_use]
    pub fn lacking(&self, node: NodeId) -> Vec<GroupId> {
        let lacks = |group: &GroupId| !self.foundations.contains_key(group) && self.takes_part(*group, node);
        self.founded.keys().copied().filter(lacks).take(FOUNDATIONS_ASKED_MAX).collect()
    }

    /// Foundations that a node asks for, encoded: of groups that it has a seat in, as far as this view has them.
    #[must_use]
    pub fn lent(&self, node: NodeId, asked: &[u64]) -> Vec<Bytes> {
        let groups = asked.iter().take(FOUNDATIONS_ASKED_MAX).map(|group| GroupId(*group));
        let seated = groups.filter(|group| self.takes_part(*group, node));
        let found = seated.filter_map(|group| self.foundations.get(&group));
        found.map(|found| borsh::to_vec(&**found).expect("writing to memory does not fail").into()).collect()
    }

    /// Takes a committee from the state of a group that this node hosts, if it is a later one than
    /// the one known. Says whether it was.
    pub fn adopt_committee(&mut self, committee: Committee) -> bool {
        let place = |committee: &Committee| (committee.incarnation, committee.epoch);
        let later = self.committees.get(&committee.group).is_none_or(|known| place(known) < place(&committee));
        if later {
            self.committees.insert(committee.group, committee);
        }
        later
    }

    /// Takes a layout, if it is a later one than the one known. Says whether it was.
    pub fn adopt_layout(&mut self, layout: &Layout) -> bool {
        let later = layout.version > self.layout.version;
        if later {
            self.layout = Arc::new(layout.clone());
        }
        later
    }

    /// Whether a node takes part in a group, now or as soon as it has the state. In a shard that has ended, the members of
    /// its heir do, for as long as they still have it.
    #[must_use]
    pub fn takes_part(&self, group: GroupId, node: NodeId) -> bool {
        let named = |committees: &BTreeMap<GroupId, Committee>| {
            let committee = committees.get(&group).or_else(|| committees.get(&self.layout.heir(group)));
            committee.is_some_and(|committee| committee.index_of(node).is_some())
        };
        named(&self.committees) || named(&self.coming)
    }

    /// As clients are told.
    #[must_use]
    pub fn to_reply(&self) -> v1::ClusterReply {
        fn encode<T: borsh::BorshSerialize>(value: &T) -> Bytes {
            borsh::to_vec(value).expect("writing to memory does not fail").into()
        }
        v1::ClusterReply {
            genesis: self.genesis.clone(),
            layout: encode(&*self.layout),
            committees: self.committees.values().map(encode).collect(),
            nodes: self.nodes.values().map(encode).collect(),
            leaders: self.hints(),
            beacon_height: self.beacon_height,
        }
    }

    /// Where a transaction goes, as far as all its groups exist.
    ///
    /// # Errors
    /// As [`crate::plan()`], and [`Reject::UnknownGroup`].
    pub fn plan(&self, tx: &ParsedTx) -> Result<Plan, Reject> {
        let plan = crate::plan(&self.layout, tx)?;
        let exist = plan.groups().all(|group| self.committees.contains_key(&group));
        if exist { Ok(plan) } else { Err(Reject::UnknownGroup) }
    }

    /// Lets a new plan pass, unless one of its groups is in quarantine. What is on its way already is not asked again: it
    /// may have been executed.
    ///
    /// # Errors
    /// [`Reject::GroupQuarantined`].
    pub fn admit(&self, plan: Plan) -> Result<Plan, Reject> {
        let held = plan.groups().any(|group| self.quarantined.contains(&group));
        if held { Err(Reject::GroupQuarantined) } else { Ok(plan) }
    }

    /// The groups of a transaction that this view does not have yet: channels that may exist, and shards that a layout
    /// brought before their committees were known.
    #[must_use]
    pub fn not_heard_of(&self, tx: &ParsedTx) -> Vec<GroupId> {
        let Ok(plan) = crate::plan(&self.layout, tx) else { return Vec::new() };
        let awaited = |group: &GroupId| may_come(*group) || self.layout.prefix_of(*group).is_some();
        plan.groups().filter(|group| awaited(group) && !self.committees.contains_key(group)).collect()
    }

    /// As nodes and routers that follow are told who know the beacon's committee of this epoch: the hand-overs since,
    /// so many at a time as fit into a message, then the registry with the last of them and with what [`Self::lent`] gives
    /// one. What follows a piece begins with its last step, which tells whose the step before it was.
    #[must_use]
    pub fn to_follow_replies(&self, known: Epoch, foundations: Vec<Bytes>) -> Vec<v1::FollowReply> {
        let lacks = self.beacon.as_ref().map_or(&[][..], |beacon| beacon.since(known));
        let encoded = |step: &Handover| Bytes::from(borsh::to_vec(step).expect("writing to memory does not fail"));
        let mut last: Vec<Bytes> = Vec::new();
        let mut replies = Vec::new();
        for step in lacks.iter().map(encoded) {
            let bytes: usize = last.iter().map(Bytes::len).sum();
            if last.len() > 1 && bytes + step.len() > HANDOVER_BYTES_AT_ONCE {
                let next = last.last().cloned().into_iter().collect();
                let handovers = std::mem::replace(&mut last, next);
                replies.push(v1::FollowReply { handovers, ..v1::FollowReply::default() });
            }
            last.push(step);
        }
        if last.len() > 1 {
            let next = last.last().cloned().into_iter().collect();
            let handovers = std::mem::replace(&mut last, next);
            replies.push(v1::FollowReply { handovers, ..v1::FollowReply::default() });
        }
        let (registry, leaders) = (self.proof.clone(), self.hints());
        replies.push(v1::FollowReply { registry, leaders, handovers: last, foundations });
        replies
    }

    fn hints(&self) -> Vec<v1::LeaderHint> {
        self.leaders.iter().map(|(group, node)| v1::LeaderHint { group: group.0, node: node.0 }).collect()
    }

    /// The nodes that host a group, the probable leader first; of a shard that has ended, those that host its heir.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = self
            .committees
            .get(&group)
            .or_else(|| self.committees.get(&self.layout.heir(group)))
            .map(|committee| committee.members.iter().map(|member| member.node).collect())
            .unwrap_or_default();
        if let Some(at) = self.leaders.get(&group).and_then(|leader| members.iter().position(|node| node == leader)) {
            members.swap(0, at);
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use ledger::genesis::VerifyMode;
    use ledger::{Engine, Incarnation, TimeMs};

    use super::*;

    const GROUP: GroupId = GroupId::channel(0);
    const MEMBER: NodeId = NodeId(1);

    fn committee(group: GroupId) -> Committee {
        let key = ledger::SecretKey::derive(b"node", b"1").public();
        let members = vec![ledger::committee::Member { node: MEMBER, org: OrgId(1), key }];
        Committee::of(Engine::Raft, group, Incarnation(0), Epoch(0), members)
    }

    fn foundation(charter: &[u8]) -> Foundation {
        Foundation {
            version: ledger::foundation::FOUNDATION_VERSION,
            group: GROUP,
            charter: charter.to_vec(),
            members: vec![OrgId(1)],
            committee: committee(GROUP),
            beacon_committee: committee(GroupId::BEACON),
            layout: Layout::even(1),
            founded_ms: TimeMs(1),
            beacon_height: Height(1),
        }
    }

    /// A view that knows the channel by its leaf, as every node and router does.
    fn view() -> ClusterView {
        let genesis = Genesis {
            version: 1,
            name: "test".to_owned(),
            created_ms: TimeMs(1),
            seed: Hash32([1; 32]),
            orgs: Vec::new(),
            committees: Vec::new(),
            nodes: Vec::new(),
            layout: Layout::even(1),
            verify: VerifyMode::Every,
            policies: Default::default(),
        };
        let mut view = ClusterView::of_genesis(&genesis);
        view.committees.insert(GROUP, committee(GROUP));
        view.founded.insert(GROUP, foundation(b"agreed").leaf());
        view
    }

    #[test]
    fn a_foundation_is_taken_by_its_hash_alone() {
        let mut view = view();
        assert_eq!((view.lacking(MEMBER), view.lacking(NodeId(2))), (vec![GROUP], vec![]));
        assert!(!view.adopt_foundation(Arc::new(foundation(b"forged"))));
        assert_eq!(view.lacking(MEMBER), [GROUP]);
        assert!(view.adopt_foundation(Arc::new(foundation(b"agreed"))));
        assert!(!view.adopt_foundation(Arc::new(foundation(b"agreed"))), "it is no news");
        assert_eq!(view.lacking(MEMBER), []);
        view.founded.clear();
        view.foundations.clear();
        assert!(!view.adopt_foundation(Arc::new(foundation(b"agreed"))), "the registry has no such group");
    }

    #[test]
    fn a_foundation_is_lent_to_nodes_with_a_seat_alone() {
        let mut view = view();
        assert!(view.lent(MEMBER, &[GROUP.0]).is_empty(), "it is not here");
        view.adopt_foundation(Arc::new(foundation(b"agreed")));
        let lent = view.lent(MEMBER, &[GROUP.0, GroupId::channel(1).0, u64::MAX]);
        assert_eq!(lent, [borsh::to_vec(&foundation(b"agreed")).expect("encodes")]);
        assert!(view.lent(NodeId(2), &[GROUP.0]).is_empty(), "it is none of its groups");
        assert!(view.lent(MEMBER, &[]).is_empty(), "nothing is asked for");
        let coming = view.committees.remove(&GROUP).expect("it is in force");
        assert!(view.lent(MEMBER, &[GROUP.0]).is_empty(), "it has no seat any more");
        view.coming.insert(GROUP, coming);
        assert_eq!(view.lent(MEMBER, &[GROUP.0]).len(), 1, "it is about to get one");
    }
}
