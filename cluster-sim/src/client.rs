//! The clients and their routers: to which groups a transaction goes, whom to ask, when to ask
//! again, when to die.
//!
//! A transaction is handed to all groups that vote on it, in parallel. Its outcome is known from a
//! receipt of any of them, from a NO of one, or from a YES of all. Silence, "not leader" and every
//! retryable refusal lead to the same transaction being sent again, with the same id. A router that
//! dies stops in the middle of it, after any message, and nobody takes over.
//!
//! What is about a channel that is founded meanwhile waits until routers have heard of that. Such a channel takes nothing from a
//! client whose organisation is no member, or is none any more: somebody of another one hands it over then, since an
//! account's signature is what moves value; now and then nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cross_shard::commit::Decision;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{Address, ClusterId, Epoch, GroupId, GroupKind, LedgerId, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::reject::Reject;
use ledger::rules::{self, RuleContext};
use ledger::tx::{Move, ParsedTx, Submission};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::checkers::Seen;
use crate::checkers::own::Places;
use crate::cluster::ORGS;
use crate::wire::{Reply, Wire};
use crate::workload::Operation;

const ANSWER_MS_MIN: u64 = 250;
const ANSWER_MS_MAX: u64 = 600;
/// A group that has voted needs time to hear of the others.
const OUTCOME_MS_MIN: u64 = 600;
const OUTCOME_MS_MAX: u64 = 1_500;
const BACK_OFF_MS_MAX: u64 = 80;
/// Certificates of the clients of an organisation. Admins revoke such ones by chance, too (`council/registry.rs`).
const CERTIFICATES: u32 = 4;
/// Set in what names one that was made in the place of a revoked one.
const RENEWED: u8 = 0x80;
/// Of so many operations that a channel does not take from a client one is handed over by nobody else.
const GIVEN_UP_OF: u32 = 5;

/// What became of an operation, as far as its client will ever know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It commits.
    Committed,
    /// It does not, and left receipts.
    Aborted,
    /// It was refused without a receipt.
    Refused(Reject),
    /// The router died.
    Lost,
}

/// What the client side wants done.
#[derive(Debug)]
pub enum Act {
    /// Send to a node.
    Send(NodeId, Wire),
    /// Call [`Clients::wake`] after this long.
    Wake {
        /// The operation.
        request: u32,
        /// The group.
        group: GroupId,
        /// To be handed back.
        token: u64,
        /// In milliseconds.
        delay_ms: u64,
    },
    /// For the checkers.
    Tell(Seen),
}

/// What a router knows of one group about one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Voted(Decision),
    Resolved(bool),
    Applied,
    Refused(Reject),
}

#[derive(Clone, Debug)]
struct Standing {
    state: State,
    /// Only the latest wake-up counts.
    token: u64,
    attempts: u64,
    /// Whether it last said that what it is to vote on lies elsewhere.
    astray: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    started: bool,
    finished: bool,
    /// Not all groups that vote are asked.
    partial: bool,
    /// Sent and received, for routers that die.
    messages: u32,
    fate: Option<Fate>,
    groups: BTreeMap<GroupId, Standing>,
    /// Its certificate was revoked, and it has another one.
    renewed: bool,
    /// How often a channel did not take it, and somebody of the next organisation came in the place of who had handed it over.
    handed_on: u32,
    /// Groups of which an account has to sign: the others vote only after one of these has.
    signing: Vec<GroupId>,
}

/// All clients of a run.
pub struct Clients {
    rng: ChaCha8Rng,
    cluster: ClusterId,
    places: Rc<Places>,
    /// The layout that the routers go by; the registry may have a newer one.
    layout: Layout,
    /// Who is in which group.
    members: BTreeMap<GroupId, Vec<NodeId>>,
    /// Of which epoch that is, where members have changed.
    epochs: BTreeMap<GroupId, Epoch>,
    operations: Rc<Vec<Operation>>,
    /// Groups that operations wait for, and of which the routers have not heard.
    awaited: BTreeSet<GroupId>,
    progress: Vec<Progress>,
    leaders: BTreeMap<GroupId, NodeId>,
    open: usize,
    /// A client is told that it commits when one group has voted for it: a bug for the harness.
    pub hasty: bool,
    /// Clients show certificates of their organisations.
    pub certified: bool,
    /// Shards are cut and joined meanwhile: a node that has none of a name may have had it, or be about to.
    pub reshaping: bool,
    /// Seats of shards move meanwhile: who is asked may have left.
    pub moving: bool,
    /// Times something was sent again.
    pub retries: u64,
    /// Routers that died.
    pub deaths: u64,
    /// Times that another organisation's client came in the place of one that a channel had not taken something from.
    pub handed_on: u64,
}

impl Clients {
    /// Clients that have sent nothing yet.
    #[must_use]
    pub fn new(rng: ChaCha8Rng, places: Rc<Places>, operations: Rc<Vec<Operation>>) -> Self {
        let genesis = Rc::clone(&places.genesis);
        let progress = vec![Progress::default(); operations.len()];
        let open = operations.iter().filter(|operation| !operation.late && operation.awaits.is_none()).count();
        let awaited = operations.iter().filter_map(|operation| operation.awaits).collect();
        Self {
            rng,
            cluster: genesis.cluster_id(),
            layout: genesis.layout.clone(),
            members: genesis.committees.iter().map(|committee| (committee.group, nodes(committee))).collect(),
            epochs: BTreeMap::new(),
            places,
            operations,
            awaited,
            progress,
            leaders: BTreeMap::new(),
            open,
            hasty: false,
            certified: false,
            reshaping: false,
            moving: false,
            retries: 0,
            deaths: 0,
            handed_on: 0,
        }
    }

    /// The version of the layout that the routers go by.
    #[must_use]
    pub fn layout_version(&self) -> u64 {
        self.layout.version.0
    }

    /// Operations that are not finished.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// What became of an operation so far.
    #[must_use]
    pub fn fate(&self, index: u32) -> Option<Fate> {
        self.progress.get(index as usize)?.fate
    }

    /// Operations that are not finished, for messages to people.
    #[must_use]
    pub fn stuck(&self) -> Vec<u32> {
        let open = |progress: &Progress| progress.started && !progress.finished;
        (0..).zip(&self.progress).filter(|(_, progress)| open(progress)).map(|(index, _)| index).collect()
    }

    /// Whether nobody takes an operation, nor will: what its hidden moves are about lies with others than those that may
    /// vote on them, because a shard was cut. Its router asks on until its deadline.
    #[must_use]
    pub fn astray(&self, index: u32) -> bool {
        let refused = |standing: &Standing| standing.astray || matches!(standing.state, State::Refused(_));
        let progress = self.progress.get(index as usize);
        progress.is_some_and(|progress| progress.groups.values().all(refused))
    }

    /// The organisation of whoever hands an operation over, and what names the certificate that is shown; nothing where nobody
    /// looks at it.
    fn caller(&self, index: u32) -> Option<(OrgId, Hash32)> {
        let looked_at = |operation: &&Operation| self.certified || operation.awaits.is_some();
        self.operations.get(index as usize).filter(looked_at)?;
        let progress = self.progress.get(index as usize)?;
        let orgs = u32::from(ORGS);
        let number = u8::try_from(index / orgs % CERTIFICATES).unwrap_or(0);
        let org = OrgId(u16::try_from((index % orgs + progress.handed_on % orgs) % orgs).unwrap_or(0));
        Some((org, Hash32([if progress.renewed { number | RENEWED } else { number }; 32])))
    }

    /// Whether what is to wait for a group waits.
    #[must_use]
    pub fn awaits(&self, group: GroupId) -> bool {
        self.awaited.contains(&group)
    }

    /// What clients show who have something under way in a group, and have not been given another certificate.
    #[must_use]
    pub fn shown(&self, group: GroupId) -> Vec<(OrgId, Hash32)> {
        let open = |progress: &Progress| {
            progress.started && !progress.finished && !progress.renewed && progress.groups.contains_key(&group)
        };
        let open = (0..).zip(&self.progress).filter(|(_, progress)| open(progress));
        open.filter_map(|(index, _)| self.caller(index)).collect()
    }

    /// Starts everything that waits for nothing.
    pub fn start(&mut self, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        for operation in operations.iter().filter(|operation| operation.after.is_none() && !operation.late) {
            self.begin(operation, 0, acts);
        }
    }

    /// Starts what waits for everything else to be over. Returns whether there is any.
    pub fn start_late(&mut self, now_ms: u64, acts: &mut Vec<Act>) -> bool {
        let operations = Rc::clone(&self.operations);
        for operation in operations.iter().filter(|operation| operation.late) {
            self.open += 1;
            self.begin(operation, now_ms, acts);
        }
        operations.iter().any(|operation| operation.late)
    }

    fn begin(&mut self, operation: &Operation, now_ms: u64, acts: &mut Vec<Act>) {
        if operation.awaits.is_some_and(|group| self.awaits(group)) {
            return;
        }
        if std::mem::replace(&mut self.progress[operation.index as usize].started, true) {
            return;
        }
        let parsed = ParsedTx::decode(&self.cluster, &operation.bytes);
        let groups = parsed.and_then(|tx| rules::voter_groups(&self.layout, &tx.body));
        let groups = match groups {
            Ok(groups) => self.handed_to(operation, groups),
            Err(reject) => {
                self.progress[operation.index as usize].fate = Some(Fate::Refused(reject));
                return self.finish(now_ms, operation.index, acts);
            }
        };
        let signing = self.signing(operation);
        let progress = &mut self.progress[operation.index as usize];
        progress.signing = signing;
        progress.partial = operation.handing.only.is_some();
        for group in groups {
            progress.groups.insert(group, Standing { state: State::Open, token: 0, attempts: 0, astray: false });
        }
        let groups: Vec<GroupId> = progress.groups.keys().copied().collect();
        for group in groups {
            // A few milliseconds apart, so that a router can die in between.
            let apart = self.rng.random_range(0..4);
            self.wake_in(operation.index, group, operation.at_ms.saturating_sub(now_ms) + apart, acts);
        }
    }

    /// The groups that a router hands a transaction to on which these vote.
    fn handed_to(&self, operation: &Operation, voters: Vec<GroupId>) -> Vec<GroupId> {
        let Some(only) = &operation.handing.only else { return voters };
        let lives = |group: &GroupId| !self.layout.retired(*group);
        if only.iter().all(lives) {
            return only.clone();
        }
        let heirs = only.iter().flat_map(|group| self.layout.successors(*group));
        heirs.filter(|group| voters.contains(group)).collect()
    }

    fn home(&self, account: &Address) -> GroupId {
        self.places.channels.get(account).copied().unwrap_or_else(|| self.layout.locate(account))
    }

    /// The groups that are asked for the accounts that have to sign: for a hidden one whoever speaks for its slot, though it
    /// may lie with a sibling of that group.
    fn signing(&self, operation: &Operation) -> Vec<GroupId> {
        let asked = |(at, mv): (usize, &Move)| match (mv, operation.hidden.get(at).copied().flatten()) {
            (Move::Issue(_), _) => Some(GroupId(LedgerId::BEACON.0)),
            (_, Some((named, _))) => Some(self.layout.heir(named)),
            (other, None) => other.voters().next().map(|voter| self.home(&voter.account)),
        };
        operation.moves.iter().enumerate().filter_map(asked).collect()
    }

    fn wake_in(&mut self, request: u32, group: GroupId, delay_ms: u64, acts: &mut Vec<Act>) {
        if let Some(standing) = self.progress[request as usize].groups.get_mut(&group) {
            standing.token += 1;
            acts.push(Act::Wake { request, group, token: standing.token, delay_ms });
        }
    }

    /// One message more; a router may die of it.
    fn spend(&mut self, now_ms: u64, operation: &Operation, acts: &mut Vec<Act>) {
        let progress = &mut self.progress[operation.index as usize];
        progress.messages += 1;
        if operation.handing.dies_after == Some(progress.messages) {
            self.deaths += 1;
            progress.fate.get_or_insert(Fate::Lost);
            self.finish(now_ms, operation.index, acts);
        }
    }

    /// Asks a group, unless nothing more is to be learned from it or something newer is due.
    pub fn wake(&mut self, now_ms: u64, index: u32, group: GroupId, token: u64, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        let (Some(operation), Some(progress)) = (operations.get(index as usize), self.progress.get_mut(index as usize))
        else {
            return;
        };
        let Some(standing) = progress.groups.get_mut(&group) else { return };
        let done = matches!(standing.state, State::Applied | State::Refused(_) | State::Resolved(false));
        if progress.finished || standing.token != token || done {
            return;
        }
        standing.attempts += 1;
        let (again, voted) = (standing.attempts > 1, standing.state != State::Open);
        self.retries += u64::from(again);
        let node = self.believed_leader(group, again);
        let tx = Submission::encode(operation.signed_for(group), openings(&self.layout, operation, group, now_ms));
        let wants_applied = operation.handing.wants_applied;
        let caller = self.caller(index);
        acts.push(Act::Send(node, Wire::Submit { request: index, group, tx, wants_applied, caller }));
        let patience = if voted {
            self.rng.random_range(OUTCOME_MS_MIN..OUTCOME_MS_MAX)
        } else {
            self.rng.random_range(ANSWER_MS_MIN..ANSWER_MS_MAX)
        };
        self.wake_in(index, group, patience, acts);
        self.spend(now_ms, operation, acts);
    }

    /// The node that is asked first; after silence it may be any of the group.
    fn believed_leader(&mut self, group: GroupId, again: bool) -> NodeId {
        let members = self.members.get(&group).map_or(&[][..], Vec::as_slice);
        let any = |rng: &mut ChaCha8Rng| members.get(rng.random_range(0..members.len().max(1))).copied();
        let believed = self.leaders.get(&group).copied();
        let chosen = if again && self.rng.random() { None } else { believed };
        chosen.or_else(|| any(&mut self.rng)).unwrap_or_default()
    }

    /// An answer arrived.
    pub fn answer(&mut self, now_ms: u64, from: NodeId, index: u32, group: GroupId, reply: Reply, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        let Some(operation) = operations.get(index as usize) else { return };
        if let Reply::Receipt(receipt) = &reply {
            // What is acknowledged twice must say the same, so the checkers see it too.
            acts.push(Act::Tell(Seen::Acknowledged { operation: index, receipt: receipt.clone() }));
            self.leaders.insert(group, from);
        }
        if self.progress[index as usize].finished || !self.progress[index as usize].groups.contains_key(&group) {
            return;
        }
        self.spend(now_ms, operation, acts);
        if self.progress[index as usize].finished {
            return;
        }
        if let Some(standing) = self.progress[index as usize].groups.get_mut(&group)
            && !matches!(reply, Reply::NotLeader(_))
        {
            standing.astray = reply == Reply::Refused(Reject::WrongShard);
        }
        match reply {
            Reply::Receipt(receipt) => self.set(index, group, State::Resolved(receipt.committed())),
            Reply::Voted(decision) => {
                self.leaders.insert(group, from);
                acts.push(Act::Tell(Seen::Told { operation: index, group, decision }));
                if self.state(index, group) == Some(State::Open) {
                    self.set(index, group, State::Voted(decision));
                    let patience = self.rng.random_range(OUTCOME_MS_MIN..OUTCOME_MS_MAX);
                    self.wake_in(index, group, patience, acts);
                }
            }
            Reply::Applied => {
                acts.push(Act::Tell(Seen::Applied { operation: index, group }));
                self.set(index, group, State::Applied);
            }
            Reply::NotLeader(hint) => {
                match hint.filter(|hint| *hint != from) {
                    Some(hint) => self.leaders.insert(group, hint),
                    None => self.leaders.remove(&group),
                };
                self.back_off(index, group, acts);
            }
            Reply::Refused(Reject::ChannelRefused) if self.caller(index).is_some() => {
                self.progress[index as usize].renewed = true;
                self.back_off(index, group, acts);
            }
            Reply::Refused(Reject::AccessDenied) if self.caller(index).is_some() && !given_up(operation) => {
                self.handed_on += 1;
                self.progress[index as usize].handed_on += 1;
                self.back_off(index, group, acts);
            }
            Reply::Refused(reject) if self.passing(operation, group, now_ms, reject) => {
                let moves = self.moving || operation.awaits.is_some();
                if moves && reject == Reject::UnknownGroup && self.leaders.get(&group) == Some(&from) {
                    self.leaders.remove(&group);
                }
                self.back_off(index, group, acts);
            }
            Reply::Refused(reject) => {
                acts.push(Act::Tell(Seen::Refused { operation: index, group, reject }));
                if self.state(index, group) == Some(State::Open) {
                    self.set(index, group, State::Refused(reject));
                }
            }
        }
        self.decide(now_ms, operation, acts);
    }

    /// Whether a refusal may be another one the next time.
    fn passing(&self, operation: &Operation, group: GroupId, now_ms: u64, reject: Reject) -> bool {
        match reject {
            // The definition of the asset is on its way: it was acknowledged by the beacon.
            Reject::UnknownAsset => matches!(operation.moves.first(), Some(Move::Mint { .. })),
            Reject::HiddenSlot => {
                let given = openings(&self.layout, operation, group, now_ms);
                now_ms < operation.handing.openings_at_ms || !given.is_empty()
            }
            // A node that has left it or has not begun, or a group to which the beacon's word of it is on its way.
            Reject::UnknownGroup if operation.awaits.is_some() => true,
            // It is gone, or has not begun on the node that was asked.
            Reject::UnknownGroup if group == GroupId::BEACON => self.moving,
            Reject::UnknownGroup => self.reshaping && group.kind() == Some(GroupKind::Shard),
            other => other.retryable(),
        }
    }

    fn state(&self, index: u32, group: GroupId) -> Option<State> {
        Some(self.progress[index as usize].groups.get(&group)?.state)
    }

    fn set(&mut self, index: u32, group: GroupId, state: State) {
        if let Some(standing) = self.progress[index as usize].groups.get_mut(&group) {
            // A receipt that is sent again says nothing about what is applied already.
            if standing.state != State::Applied {
                standing.state = state;
            }
        }
    }

    fn back_off(&mut self, index: u32, group: GroupId, acts: &mut Vec<Act>) {
        let delay = self.rng.random_range(10..BACK_OFF_MS_MAX);
        self.wake_in(index, group, delay, acts);
    }

    fn decide(&mut self, now_ms: u64, operation: &Operation, acts: &mut Vec<Act>) {
        let progress = &mut self.progress[operation.index as usize];
        if progress.fate.is_none() {
            progress.fate = fate(progress, self.hasty);
            let committed = match progress.fate {
                Some(Fate::Committed) => Some(true),
                Some(Fate::Aborted) => Some(false),
                Some(Fate::Refused(_) | Fate::Lost) | None => None,
            };
            if let Some(committed) = committed {
                acts.push(Act::Tell(Seen::Decided { operation: operation.index, committed }));
            }
        }
        let progress = &self.progress[operation.index as usize];
        let applied = progress.groups.values().all(|standing| standing.state == State::Applied);
        let waits = operation.handing.wants_applied && progress.fate == Some(Fate::Committed) && !applied;
        if progress.fate.is_some() && !waits {
            self.finish(now_ms, operation.index, acts);
        } else if waits {
            self.ask_those_who_refused(operation.index, acts);
        }
    }

    /// A group that refused stopped telling; since then it has voted by mail.
    fn ask_those_who_refused(&mut self, index: u32, acts: &mut Vec<Act>) {
        let groups = &self.progress[index as usize].groups;
        let refused = |standing: &Standing| matches!(standing.state, State::Refused(_));
        let asked: Vec<GroupId> =
            groups.iter().filter_map(|(group, standing)| refused(standing).then_some(*group)).collect();
        for group in asked {
            self.set(index, group, State::Open);
            self.back_off(index, group, acts);
        }
    }

    /// The members of a group are others by now, or it is there. What has waited for it begins.
    pub fn hear(&mut self, now_ms: u64, seated: &Committee, acts: &mut Vec<Act>) {
        self.hear_members(seated);
        if !self.awaited.remove(&seated.group) {
            return;
        }
        let operations = Rc::clone(&self.operations);
        let own = |operation: &&Operation| operation.awaits == Some(seated.group) && !operation.late;
        self.open += operations.iter().filter(own).count();
        for operation in operations.iter().filter(own) {
            let earlier = operation.after.and_then(|earlier| self.progress.get(earlier as usize));
            if earlier.is_none_or(|earlier| earlier.finished) {
                self.begin(operation, now_ms, acts);
            }
        }
    }

    fn hear_members(&mut self, seated: &Committee) {
        let known = self.epochs.entry(seated.group).or_default();
        if seated.epoch < *known {
            return;
        }
        *known = seated.epoch;
        self.members.insert(seated.group, nodes(seated));
        let believed = self.leaders.get(&seated.group).copied();
        if believed.is_some_and(|leader| seated.index_of(leader).is_none()) {
            self.leaders.remove(&seated.group);
        }
    }

    /// A newer layout is known. What a retired group has said counts for those that came from it; whoever has said
    /// nothing is asked.
    pub fn adopt(&mut self, now_ms: u64, layout: &Layout, committees: &[Committee], acts: &mut Vec<Act>) {
        // One that was overtaken has brought committees that the newer one did not.
        let news = committees.iter().filter(|committee| !self.epochs.contains_key(&committee.group));
        self.members.extend(news.map(|committee| (committee.group, nodes(committee))));
        if layout.version <= self.layout.version {
            return;
        }
        self.layout = layout.clone();
        let operations = Rc::clone(&self.operations);
        for operation in operations.iter() {
            let progress = &self.progress[operation.index as usize];
            let stale = progress.groups.keys().any(|group| layout.retired(*group));
            if progress.started && !progress.finished && stale {
                self.readdress(operation, acts);
                self.decide(now_ms, operation, acts);
            }
        }
    }

    /// Asks those that came from retired groups in their place.
    fn readdress(&mut self, operation: &Operation, acts: &mut Vec<Act>) {
        let Ok(tx) = ParsedTx::decode(&self.cluster, &operation.bytes) else { return };
        // It may have more voters by now than one may begin with.
        let rules = RuleContext {
            group: GroupId::BEACON,
            ledger: LedgerId::MAIN,
            layout: Some(&self.layout),
            time_ms: TimeMs(0),
            burned: &|_| 0,
            permission: None,
        };
        let Ok(voters) = rules.all_voters(&tx.body) else { return };
        let signing = self.signing(operation);
        let progress = &mut self.progress[operation.index as usize];
        progress.signing = signing;
        let (mut groups, mut asked) = (BTreeMap::<GroupId, Standing>::new(), Vec::new());
        for (group, standing) in std::mem::take(&mut progress.groups) {
            if !self.layout.retired(group) {
                groups.insert(group, standing);
                continue;
            }
            for heir in self.layout.successors(group).into_iter().filter(|heir| voters.contains(heir)) {
                // Of two that were joined, what the less decided one has said.
                let known = groups.entry(heir).or_insert_with(|| standing.clone());
                if rank(standing.state) < rank(known.state) {
                    known.state = standing.state;
                }
                asked.push(heir);
            }
        }
        progress.groups = groups;
        asked.sort_unstable();
        asked.dedup();
        for group in asked {
            self.back_off(operation.index, group, acts);
        }
    }

    fn finish(&mut self, now_ms: u64, index: u32, acts: &mut Vec<Act>) {
        if std::mem::replace(&mut self.progress[index as usize].finished, true) {
            return;
        }
        self.open -= 1;
        let operations = Rc::clone(&self.operations);
        for next in operations.iter().filter(|operation| operation.after == Some(index) && !operation.late) {
            self.begin(next, now_ms, acts);
        }
    }
}

/// Whether nobody else hands over what a channel does not take from its client. Who wants to know when all is applied asks on.
fn given_up(operation: &Operation) -> bool {
    operation.index.is_multiple_of(GIVEN_UP_OF) && !operation.handing.wants_applied
}

/// The openings that a group is given: its own, and those of retired groups whose heir it is.
fn openings(layout: &Layout, operation: &Operation, group: GroupId, now_ms: u64) -> Vec<ledger::tx::Opening> {
    let handing = &operation.handing;
    if now_ms < handing.openings_at_ms {
        return Vec::new();
    }
    let given = |named: &GroupId| layout.heir(*named) == group && !handing.withheld.contains(named);
    let all = operation.openings.iter().filter(|(named, _)| given(named));
    all.flat_map(|(_, openings)| openings.iter().cloned()).collect()
}

fn nodes(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

/// How much is known of a group.
const fn rank(state: State) -> u8 {
    match state {
        State::Open => 0,
        State::Refused(_) => 1,
        State::Voted(_) => 2,
        State::Resolved(_) => 3,
        State::Applied => 4,
    }
}

/// What a router can conclude.
fn fate(progress: &Progress, hasty: bool) -> Option<Fate> {
    let states = || progress.groups.iter().map(|(group, standing)| (group, standing.state));
    for (_, state) in states() {
        match state {
            State::Resolved(committed) => return Some(if committed { Fate::Committed } else { Fate::Aborted }),
            State::Applied => return Some(Fate::Committed),
            State::Voted(Decision::No(_)) => return Some(Fate::Aborted),
            State::Voted(Decision::Yes) | State::Open | State::Refused(_) => {}
        }
    }
    let agreed = |state| matches!(state, State::Voted(Decision::Yes));
    let enough =
        if hasty { states().any(|(_, state)| agreed(state)) } else { states().all(|(_, state)| agreed(state)) };
    if enough && !progress.partial {
        return Some(Fate::Committed);
    }
    let mut refusals = states().filter(|(group, _)| progress.signing.contains(group)).map(|(_, state)| match state {
        State::Refused(reject) => Some(reject),
        State::Open | State::Voted(_) | State::Resolved(_) | State::Applied => None,
    });
    let first = refusals.next()??;
    refusals.all(|refusal| refusal.is_some()).then_some(Fate::Refused(first))
}

#[cfg(test)]
mod tests {
    use ledger::committee::Member;
    use ledger::ids::Incarnation;
    use rand::SeedableRng;

    use super::*;
    use crate::cluster;
    use crate::config::SimConfig;
    use crate::workload::{self, Purpose};

    /// Clients of a small run, what they want, and the first committee of the channel that is founded in it.
    fn clients() -> (Clients, Rc<Vec<Operation>>, Committee) {
        let config = SimConfig { money: Some(40), transactions: Some(4), shards: Some(1), ..SimConfig::default() };
        let stream = || ChaCha8Rng::seed_from_u64(1);
        let shape = config.shape_of(1, &mut stream());
        let genesis = Rc::new(cluster::genesis(1, &shape).expect("the shape makes a cluster"));
        let channel = GroupId::channel(shape.channels);
        let load = workload::make_with(&genesis, &shape, &mut stream(), Some(channel), &mut stream());
        let operations = Rc::new(load.operations);
        let seats = genesis.nodes.iter().take(4).map(|node| Member { node: node.id, org: node.org, key: node.key });
        let committee = Committee::majority(channel, Incarnation(0), Epoch(0), seats.collect());
        let places = Rc::new(Places { genesis: Rc::clone(&genesis), channels: load.channels });
        (Clients::new(stream(), places, Rc::clone(&operations)), operations, committee)
    }

    #[test]
    fn what_is_about_a_channel_that_is_not_there_waits_for_it() {
        let (mut clients, operations, committee) = clients();
        let about = |acts: &[Act]| {
            let to_channel = |act: &&Act| matches!(act, Act::Wake { group, .. } if *group == committee.group);
            acts.iter().filter(to_channel).count()
        };
        let mut acts = Vec::new();
        clients.start(&mut acts);
        assert!(!acts.is_empty() && clients.awaits(committee.group));
        assert_eq!(about(&acts), 0);
        let (open, waiting) = (clients.open(), operations.iter().filter(|operation| operation.awaits.is_some()));
        acts.clear();
        clients.hear(0, &committee, &mut acts);
        assert!(about(&acts) > 0 && !clients.awaits(committee.group));
        assert_eq!(clients.open(), open + waiting.count());
        // What it hears of the members later begins nothing again.
        acts.clear();
        clients.hear(0, &committee, &mut acts);
        assert!(acts.is_empty());
    }

    #[test]
    fn what_a_channel_does_not_take_from_one_organisation_another_one_brings_or_nobody() {
        let (mut clients, operations, committee) = clients();
        let (channel, mut acts) = (committee.group, Vec::new());
        clients.start(&mut acts);
        clients.hear(0, &committee, &mut acts);
        for brought in [true, false] {
            let operation = operations.iter().find(|operation| {
                let groups: Vec<GroupId> = clients.progress[operation.index as usize].groups.keys().copied().collect();
                let lives = operation.handing.dies_after.is_none() && operation.purpose != Purpose::Again;
                groups == [channel] && lives && given_up(operation) != brought
            });
            let index = operation.expect("there are some of both").index;
            let before = clients.caller(index).map(|(org, _)| org);
            let refused = Reply::Refused(Reject::AccessDenied);
            clients.answer(0, NodeId(0), index, channel, refused, &mut acts);
            assert_eq!(clients.caller(index).map(|(org, _)| org) != before, brought);
            assert_eq!(clients.fate(index), (!brought).then_some(Fate::Refused(Reject::AccessDenied)));
        }
        assert_eq!(clients.handed_on, 1);
    }
}
