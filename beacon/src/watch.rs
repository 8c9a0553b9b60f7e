//! Nodes that vanish: who has not heard of whom, and what the cluster does about it.
//!
//! Each node asks all others for the time again and again, and so knows which of them are silent. While somebody watches,
//! it reports that under its signature ([`Silence`]). How long a silence lasts, the beacon's block time says. Once more than
//! half of the nodes with a seat, of more than half of the organisations with one, have reported a node for the whole of a
//! time-out, it has vanished: by the policy ([`Watch`]) its seats go to others, or it is only written down that they
//! would. It comes back when as many hear of it again, or by a command of its organisation.
//!
//! Nobody is asked twice: what was reported is kept until it is stale. A few nodes at most are replaced by policy; more at a
//! time look like a network that is cut, and are for people.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::arrivals;
use crate::epochs;
use crate::keys;
use crate::limits::{
    SILENCE_FRESH_MS, SILENCE_SKEW_MS_MAX, SILENT_NODES_MAX, WATCH_AFTER_MS_MAX, WATCH_AFTER_MS_MIN, WATCH_NODES_MAX,
    WATCH_NOTES_MAX,
};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority::{self, Verdict};
use crate::policies::Matter;
use crate::registry;
use crate::risk;
use crate::seats;

/// Version written into everything here.
pub const WATCH_VERSION: u8 = 1;

/// What is done about a node that has vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum WatchMode {
    /// Nothing: reports are not taken.
    Off = 0,
    /// It is written down that its seats would go to others.
    DryRun = 1,
    /// Its seats go to others.
    Replace = 2,
}

impl WatchMode {
    /// Its name in commands and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::Replace => "replace",
        }
    }
}

/// The policy for nodes that vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Watch {
    /// Format version, [`WATCH_VERSION`].
    pub version: u8,
    /// What is done.
    pub mode: WatchMode,
    /// How long a node has to be silent, milliseconds.
    pub after_ms: u64,
    /// Nodes that are out by this policy at a time, at most.
    pub at_most: u16,
}

impl Watch {
    /// The policy of a cluster that has decided on none.
    pub const DEFAULT: Self =
        Self { version: WATCH_VERSION, mode: WatchMode::Off, after_ms: 60 * 60 * 1000, at_most: 1 };

    fn well_formed(&self) -> bool {
        self.version == WATCH_VERSION
            && (WATCH_AFTER_MS_MIN..=WATCH_AFTER_MS_MAX).contains(&self.after_ms)
            && (1..=WATCH_NODES_MAX).contains(&usize::from(self.at_most))
    }
}

/// A node's word on whom it does not hear of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Silence {
    /// Format version, [`WATCH_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who says so.
    pub reporter: NodeId,
    /// When, by its guarded clock; later than in any report of it before.
    pub at_ms: TimeMs,
    /// Nodes that have not answered for a while, ascending. None: it hears of all.
    pub silent: Vec<NodeId>,
    /// By the key that the reporter signs headers with, over [`Silence::digest`].
    pub signature: Signature,
}

impl Silence {
    /// Signs a report. More nodes than a report may name are left out.
    #[must_use]
    pub fn sign(cluster: ClusterId, reporter: NodeId, at_ms: TimeMs, mut silent: Vec<NodeId>, key: &SecretKey) -> Self {
        silent.truncate(SILENT_NODES_MAX);
        let signature = key.sign(&digest(&cluster, reporter, at_ms, &silent));
        Self { version: WATCH_VERSION, cluster, reporter, at_ms, silent, signature }
    }

    /// What is signed: `sha256("seamark/silence/v1" ‖ cluster ‖ reporter ‖ at ‖ nodes)`, numbers in big-endian.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        digest(&self.cluster, self.reporter, self.at_ms, &self.silent)
    }

    /// Whether it is in form and signed with this key.
    #[must_use]
    pub fn holds(&self, key: &PublicKey) -> bool {
        self.version == WATCH_VERSION
            && self.silent.len() <= SILENT_NODES_MAX
            && self.silent.windows(2).all(|pair| pair[0] < pair[1])
            && self.silent.binary_search(&self.reporter).is_err()
            && crypto::verify(key, &self.digest(), &self.signature).is_ok()
    }
}

fn digest(cluster: &ClusterId, reporter: NodeId, at_ms: TimeMs, silent: &[NodeId]) -> Hash32 {
    let nodes: Vec<u8> = silent.iter().flat_map(|node| node.0.to_be_bytes()).collect();
    let parts: [&[u8]; 4] = [&cluster.0.0, &reporter.0.to_be_bytes(), &at_ms.0.to_be_bytes(), &nodes];
    tagged(b"seamark/silence/v1", &parts)
}

/// Since when a node has not heard of another one, by block time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Silent {
    /// Who is not heard of.
    pub node: NodeId,
    /// Who says so.
    pub reporter: NodeId,
    /// The first of its reports that name the node, without a longer pause since.
    pub since_ms: TimeMs,
    /// The last one.
    pub last_ms: TimeMs,
}

/// The last report of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Reported {
    version: u8,
    /// By its clock.
    at_ms: TimeMs,
    /// By block time.
    taken_ms: TimeMs,
}

/// A node that has vanished.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vanished {
    /// Format version, [`WATCH_VERSION`].
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// Since when all of these had not heard of it.
    pub since_ms: TimeMs,
    /// The beacon's block that found it.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
    /// Who had not heard of it, ascending.
    pub reporters: Vec<NodeId>,
    /// Whether its seats go to others; else it is only written down.
    pub acts: bool,
}

/// What was decided about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum WatchEvent {
    /// It has vanished, and its seats go to others.
    Replaced = 0,
    /// It has vanished, and its seats would go to others if the policy said so.
    WouldReplace = 1,
    /// It has vanished, and as many nodes as may be are out already.
    TooMany = 2,
    /// It is heard of again.
    Back = 3,
}

impl WatchEvent {
    /// Its name for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::WouldReplace => "would_replace",
            Self::TooMany => "too_many",
            Self::Back => "back",
        }
    }

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Replaced => "has vanished: its seats go to other nodes",
            Self::WouldReplace => "has vanished: its seats would go to other nodes",
            Self::TooMany => {
                "has vanished, and as many nodes as the policy allows are out already: replace it by command"
            }
            Self::Back => "is heard of again",
        }
    }
}

/// A line of what was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WatchNote {
    /// Format version, [`WATCH_VERSION`].
    pub version: u8,
    /// Counts the lines.
    pub number: u64,
    /// The node.
    pub node: NodeId,
    /// What was decided.
    pub event: WatchEvent,
    /// The beacon's block.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

const PROPOSAL: &[u8] = b"watch-proposal/";
const SILENT: &[u8] = b"silent/";
const REPORTED: &[u8] = b"reported/";
const VANISHED: &[u8] = b"vanished/";
const NOTE: &[u8] = b"watch-note/";

/// Key of the [`Watch`] in force.
#[must_use]
pub fn policy_key() -> Vec<u8> {
    registry::key(b"watch", &[])
}

/// Key of a [`Vanished`].
#[must_use]
pub fn vanished_key(node: NodeId) -> Vec<u8> {
    registry::key(VANISHED, &[&node.0.to_be_bytes()])
}

fn silent_key(node: NodeId, reporter: NodeId) -> Vec<u8> {
    registry::key(SILENT, &[&node.0.to_be_bytes(), &reporter.0.to_be_bytes()])
}

fn reported_key(reporter: NodeId) -> Vec<u8> {
    registry::key(REPORTED, &[&reporter.0.to_be_bytes()])
}

/// Key of the mark that a report has said something new for seats that wait, while a group took no mail.
fn held_key() -> Vec<u8> {
    registry::key(b"watch-held", &[])
}

fn values<T: BorshDeserialize>(view: &mut View<'_>, family: &[u8]) -> Vec<T> {
    registry::family(view, &registry::key(family, &[])).into_iter().map(|(_, value)| value).collect()
}

/// The policy in force.
pub fn policy(view: &mut View<'_>) -> Watch {
    view.load(&policy_key()).unwrap_or(Watch::DEFAULT)
}

/// Who has not heard of whom, by node and reporter; what is stale is among it.
pub fn silences(view: &mut View<'_>) -> Vec<Silent> {
    values(view, SILENT)
}

/// Nodes that have vanished, ascending.
pub fn vanished(view: &mut View<'_>) -> Vec<Vanished> {
    values(view, VANISHED)
}

/// What was decided, the latest last; so many lines are kept.
pub fn notes(view: &mut View<'_>) -> Vec<WatchNote> {
    values(view, NOTE)
}

/// The nodes whose seats go to others by the policy, ascending.
pub(crate) fn replaced(view: &mut View<'_>) -> Vec<NodeId> {
    vanished(view).into_iter().filter(|found| found.acts).map(|found| found.node).collect()
}

/// Forgets what is known of a node: it is struck off, or its organisation has said what it is to have.
pub(crate) fn forget(view: &mut View<'_>, node: NodeId) {
    let about = silences(view).into_iter().filter(|silent| silent.node == node || silent.reporter == node);
    let mut stale: Vec<Vec<u8>> = about.map(|silent| silent_key(silent.node, silent.reporter)).collect();
    stale.extend([vanished_key(node), reported_key(node)]);
    for key in stale {
        if view.get(&key).is_some() {
            registry::remove(view, key);
        }
    }
}

/// The nodes with a seat in a committee in force, and whose they are. Those that are struck off, which the committee of a
/// closed channel may still name, say nothing.
struct Witnesses(BTreeMap<NodeId, OrgId>);

impl Witnesses {
    fn read(view: &mut View<'_>) -> Self {
        let members = registry::committees(view).into_iter().flat_map(|committee| committee.members);
        let seated: BTreeMap<NodeId, OrgId> = members.map(|member| (member.node, member.org)).collect();
        Self(seated.into_iter().filter(|(node, _)| registry::node(view, *node).is_some()).collect())
    }

    /// Whether these are more than half of all nodes with a seat, of more than half of the organisations with one that
    /// could say anything about the node.
    fn suffice(&self, about: NodeId, saying: impl Iterator<Item = NodeId>) -> bool {
        let saying: BTreeSet<NodeId> = saying.filter(|node| *node != about && self.0.contains_key(node)).collect();
        let orgs: BTreeSet<OrgId> = saying.iter().filter_map(|node| self.0.get(node).copied()).collect();
        let others: BTreeSet<OrgId> = self.0.iter().filter(|(node, _)| **node != about).map(|(_, org)| *org).collect();
        2 * saying.len() > self.0.len() && 2 * orgs.len() > others.len()
    }
}

fn is_fresh(then: TimeMs, now: TimeMs) -> bool {
    now.0.saturating_sub(then.0) <= SILENCE_FRESH_MS
}

/// Nodes that enough others do not hear of at present, ascending. Nobody while nobody watches.
pub(crate) fn silent_now(view: &mut View<'_>, now: TimeMs) -> Vec<NodeId> {
    let fresh: Vec<Silent> = silences(view).into_iter().filter(|silent| is_fresh(silent.last_ms, now)).collect();
    let nodes: BTreeSet<NodeId> = fresh.iter().map(|silent| silent.node).collect();
    let witnesses = Witnesses::read(view);
    let saying = |node: NodeId| fresh.iter().filter(move |silent| silent.node == node).map(|silent| silent.reporter);
    nodes.into_iter().filter(|node| witnesses.suffice(*node, saying(*node))).collect()
}

/// The same as of the last report that was taken, for seats, which move in any block and are decided without its time. What
/// waits for this to become shorter goes on with a report, too.
pub(crate) fn silent_lately(view: &mut View<'_>) -> Vec<NodeId> {
    let reported: Vec<Reported> = values(view, REPORTED);
    let last = reported.iter().map(|reported| reported.taken_ms).max();
    last.map_or_else(Vec::new, |last| silent_now(view, last))
}

/// Whether there are seats to move that nobody has to give up: they wait while too few are heard of.
fn seats_wait(view: &mut View<'_>) -> bool {
    !arrivals::arriving(view).is_empty() || !epochs::targets(view).is_empty()
}

/// Refuses to move the seats of a node where too few of the others are heard of.
///
/// # Errors
/// [`Reject::NodeSilence`].
pub(crate) fn refuse_at_risk(view: &mut View<'_>, now: TimeMs, leaves: NodeId) -> Result<(), Reject> {
    let silent = silent_now(view, now);
    let heard = |node: NodeId| silent.binary_search(&node).is_err();
    let risky = registry::committees(view)
        .iter()
        .any(|committee| committee.index_of(leaves).is_some() && risk::of_leaving(committee, leaves, heard).is_some());
    if risky { Err(Reject::NodeSilence) } else { Ok(()) }
}

/// Takes an organisation's approval of a policy; the one with which the policy holds puts it in force. What was reported and found
/// before counts no more: time runs anew.
///
/// # Errors
/// [`Reject::WatchForm`], and when mail or proposals are full. The view is then unchanged.
pub(crate) fn set(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    watch: Watch,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    if !watch.well_formed() {
        return Err(Reject::WatchForm);
    }
    if watch == policy(view) {
        return Ok(CommandOutcome::Applied.into());
    }
    let proposal = (Matter::Operation, PROPOSAL, registry::key(PROPOSAL, &[&registry::encode(&watch)]));
    let decided = match majority::approve(view, at, proposal, watch, (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        Verdict::Decided(decided) => decided,
    };
    refuse_full(view)?;
    // What was approved beside it was about another policy in force.
    decided.close(view, |_| true);
    registry::put(view, policy_key(), &watch);
    let mut stale: Vec<Vec<u8>> =
        silences(view).into_iter().map(|silent| silent_key(silent.node, silent.reporter)).collect();
    stale.extend(vanished(view).into_iter().map(|found| vanished_key(found.node)));
    stale.into_iter().for_each(|key| registry::remove(view, key));
    let mail = seats::go_on(view);
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

/// Takes a node's report. Returns what is to be mailed: plans of committees without a node that has vanished, and of those
/// that have waited for one that was silent.
///
/// # Errors
/// [`Reject::SilenceForm`], [`Reject::WrongCluster`], and [`Reject::PeerBusy`] while a group does not take its mail. The
/// view is then unchanged.
pub fn apply_silence(
    view: &mut View<'_>,
    at: &BlockContext,
    report: &Silence,
) -> Result<Vec<(GroupId, Message)>, Reject> {
    let watch = policy(view);
    if watch.mode == WatchMode::Off {
        return Err(Reject::SilenceForm);
    }
    if report.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let witnesses = Witnesses::read(view);
    let reporter = registry::node(view, report.reporter).filter(|node| witnesses.0.contains_key(&node.id));
    let reporter = reporter.ok_or(Reject::SilenceForm)?;
    let before: Option<Reported> = view.load(&reported_key(reporter.id));
    let repeated = before.is_some_and(|before| report.at_ms <= before.at_ms);
    let signed = keys::speaks_with(view, &reporter).iter().any(|key| report.holds(key));
    if repeated || at.time_ms.0.abs_diff(report.at_ms.0) > SILENCE_SKEW_MS_MAX || !signed {
        return Err(Reject::SilenceForm);
    }
    // Without replacing anybody a report counts also while a group takes no mail: seats that wait go on behind a later one.
    let full = refuse_full(view);
    if watch.mode == WatchMode::Replace {
        full?;
    }
    let before = silent_lately(view);
    note_silence(view, at.time_ms, report);
    let returned = take_back(view, at, &witnesses);
    let moves = find(view, at, &watch, &witnesses);
    if moves || returned {
        let mail = seats::go_on(view);
        registry::bump_revision(view);
        return Ok(mail);
    }
    let news = silent_lately(view) != before || view.get(&held_key()).is_some();
    if !news || !seats_wait(view) {
        return Ok(Vec::new());
    }
    if full.is_err() {
        // No later report may be news, so this has to be remembered.
        registry::put(view, held_key(), &WATCH_VERSION);
        return Ok(Vec::new());
    }
    if view.get(&held_key()).is_some() {
        registry::remove(view, held_key());
    }
    let mail = seats::go_on(view);
    if !mail.is_empty() {
        registry::bump_revision(view);
    }
    Ok(mail)
}

/// Keeps what a report says, in the place of what its sender said before.
fn note_silence(view: &mut View<'_>, now: TimeMs, report: &Silence) {
    let reporter = report.reporter;
    let reported = Reported { version: WATCH_VERSION, at_ms: report.at_ms, taken_ms: now };
    registry::put(view, reported_key(reporter), &reported);
    let before: BTreeMap<NodeId, Silent> = silences(view)
        .into_iter()
        .filter(|silent| silent.reporter == reporter)
        .map(|silent| (silent.node, silent))
        .collect();
    for node in before.keys().filter(|node| report.silent.binary_search(node).is_err()) {
        registry::remove(view, silent_key(*node, reporter));
    }
    for node in report.silent.iter().copied() {
        if registry::node(view, node).is_none() {
            continue;
        }
        let known = before.get(&node).filter(|known| is_fresh(known.last_ms, now));
        let since_ms = known.map_or(now, |known| known.since_ms);
        registry::put(view, silent_key(node, reporter), &Silent { node, reporter, since_ms, last_ms: now });
    }
}

/// Nodes that enough others hear of again have not vanished. Says whether one of them had its seats taken.
fn take_back(view: &mut View<'_>, at: &BlockContext, witnesses: &Witnesses) -> bool {
    let found = vanished(view);
    if found.is_empty() {
        return false;
    }
    let silent = silences(view);
    let reporting: Vec<NodeId> = witnesses
        .0
        .keys()
        .copied()
        .filter(|node| {
            let reported: Option<Reported> = view.load(&reported_key(*node));
            reported.is_some_and(|reported| is_fresh(reported.taken_ms, at.time_ms))
        })
        .collect();
    let mut returned = false;
    for Vanished { node, acts, .. } in found {
        let misses = |reporter: &NodeId| silent.iter().any(|line| line.node == node && line.reporter == *reporter);
        let hearing = reporting.iter().copied().filter(|reporter| !misses(reporter));
        if witnesses.suffice(node, hearing) {
            registry::remove(view, vanished_key(node));
            write_note(view, at, node, WatchEvent::Back);
            returned |= acts;
        }
    }
    returned
}

/// Finds the nodes that have been silent for long enough. Says whether the seats of one are to move now.
fn find(view: &mut View<'_>, at: &BlockContext, watch: &Watch, witnesses: &Witnesses) -> bool {
    let now = at.time_ms;
    let long = |silent: &Silent| {
        is_fresh(silent.last_ms, now) && silent.last_ms.0.saturating_sub(silent.since_ms.0) >= watch.after_ms
    };
    let mut lines: BTreeMap<NodeId, Vec<Silent>> = BTreeMap::new();
    for silent in silences(view).into_iter().filter(long) {
        lines.entry(silent.node).or_default().push(silent);
    }
    let committees = registry::committees(view).into_iter();
    let seated: BTreeSet<NodeId> =
        committees.flat_map(|committee| committee.members).map(|member| member.node).collect();
    let mut moves = false;
    for (node, lines) in lines {
        let reporters: Vec<NodeId> = lines.iter().map(|line| line.reporter).collect();
        if !seated.contains(&node) || !witnesses.suffice(node, reporters.iter().copied()) {
            continue;
        }
        let known = vanished(view);
        let out = known.iter().filter(|other| other.acts && other.node != node).count();
        let room = out < usize::from(watch.at_most);
        let acts = watch.mode == WatchMode::Replace && room;
        let before = known.iter().find(|found| found.node == node);
        if before.is_some_and(|before| before.acts || before.acts == acts) {
            continue;
        }
        let Some(info) = registry::node(view, node) else { continue };
        let found = Vanished {
            version: WATCH_VERSION,
            node,
            org: info.org,
            since_ms: lines.iter().map(|line| line.since_ms).max().unwrap_or(now),
            height: at.height,
            time_ms: now,
            reporters,
            acts,
        };
        registry::put(view, vanished_key(node), &found);
        let event = match watch.mode {
            WatchMode::Replace if room => WatchEvent::Replaced,
            WatchMode::Replace => WatchEvent::TooMany,
            WatchMode::DryRun | WatchMode::Off => WatchEvent::WouldReplace,
        };
        write_note(view, at, node, event);
        moves |= acts;
    }
    moves
}

/// Writes a line; the oldest goes when there are too many.
fn write_note(view: &mut View<'_>, at: &BlockContext, node: NodeId, event: WatchEvent) {
    let known: Vec<(Vec<u8>, WatchNote)> = registry::family(view, &registry::key(NOTE, &[]));
    let number = known.last().map_or(0, |(_, note)| note.number + 1);
    let note = WatchNote { version: WATCH_VERSION, number, node, event, height: at.height, time_ms: at.time_ms };
    registry::put(view, registry::key(NOTE, &[&number.to_be_bytes()]), &note);
    let surplus = (known.len() + 1).saturating_sub(WATCH_NOTES_MAX);
    known.into_iter().take(surplus).for_each(|(key, _)| registry::remove(view, key));
}
