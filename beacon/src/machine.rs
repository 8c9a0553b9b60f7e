//! What the beacon group executes: asset issues, admin commands and checkpoints.
//!
//! Nothing is written until everything has been checked, so a refusal leaves no trace in the view.
//! Messages are returned, not sent: the composed machine emits them into the mail streams.

use borsh::{BorshDeserialize, BorshSerialize};
use channel::{Phase, Refusal};
use cross_shard::message::Message;
use cross_shard::stream;
use ledger::asset::{AssetDef, AssetSpec};
use ledger::certificate::Certificate;
use ledger::genesis::OrgInfo;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{GroupId, JobId, LedgerId, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::rules;
use ledger::tx::{Move, ParsedTx, Slot};
use ledger::view::View;

use crate::audit::evidence::{self, Proof, Twice};
use crate::audit::quarantine;
use crate::channels::{self, Proposed};
use crate::command::{BeaconCommand, SignedCommand};
use crate::engine;
use crate::epochs::{self, Ask};
use crate::extract;
use crate::genesis::{node_form, usable_addr, usable_ca, usable_key};
use crate::jobs::{self, Asked, JobKind};
use crate::keys;
use crate::limits::{CAPACITY_MAX, COMMAND_VALID_MS_MAX, COMMANDS_OPEN_MAX, DIVERGENCES_MAX, NODES_MAX};
use crate::nodes;
use crate::orgs;
use crate::policies;
use crate::registry::{self, Checkpoint, Divergence};
use crate::seats::{self, change_capacity};
use crate::watch;

/// Executes a transaction that only issues assets. Signatures have been verified before. Returns
/// the update for every shard and channel, in the order to be sent.
///
/// An issuer is judged by the authorisation its address commits to: the beacon holds no accounts
/// and so does not know of later rotations.
///
/// # Errors
/// [`Reject`] when it is refused; the view is then unchanged.
pub fn execute_issue(view: &mut View<'_>, at: &BlockContext, tx: &ParsedTx) -> Result<Vec<(GroupId, Message)>, Reject> {
    rules::check_time(tx, at.time_ms)?;
    let specs = issued(tx)?;
    let mut defs: Vec<AssetDef> = Vec::with_capacity(specs.len());
    for spec in specs {
        if !spec.well_formed() {
            return Err(Reject::AssetForm);
        }
        if !tx.witnesses.iter().any(|witness| witness.auth.address() == spec.issuer) {
            return Err(Reject::NotAuthorised);
        }
        let id = spec.id();
        if defs.iter().any(|def| def.id == id) || registry::asset(view, &id).is_some() {
            return Err(Reject::AssetExists);
        }
        defs.push(AssetDef { version: 1, id, spec: spec.clone(), frozen: false });
    }
    let groups = ledgers(view).ok_or(Reject::UnknownGroup)?;
    let mut mail = Vec::with_capacity(defs.len() * groups.len());
    for def in defs {
        registry::put(view, registry::asset_key(&def.id), &def);
        mail.extend(groups.iter().map(|group| (*group, Message::AssetUpdate(def.clone()))));
    }
    Ok(mail)
}

/// Refuses what writes to other groups while one of them does not take its mail. Nobody waits for a closed channel.
///
/// # Errors
/// [`Reject::PeerBusy`].
pub fn refuse_full(view: &mut View<'_>) -> Result<(), Reject> {
    let peers: Vec<GroupId> = stream::outbox_leaves(view).into_iter().map(|leaf| leaf.peer).collect();
    let full = |peer: GroupId| stream::out_stream(view, peer).full() && !channels::is_closed(view, peer);
    let full = peers.into_iter().any(full);
    if full { Err(Reject::PeerBusy) } else { Ok(()) }
}

/// Every group that keeps accounts and takes mail: the shards of the layout, then the channels.
pub(crate) fn ledgers(view: &mut View<'_>) -> Option<Vec<GroupId>> {
    let mut groups: Vec<GroupId> = registry::layout(view)?.shards.iter().map(|shard| shard.group).collect();
    groups.extend(channels::groups(view));
    Some(groups)
}

/// The specs of a transaction whose slots all issue assets on the beacon's ledger.
fn issued(tx: &ParsedTx) -> Result<Vec<&AssetSpec>, Reject> {
    let mut specs = Vec::with_capacity(tx.body.slots.len());
    let mut elsewhere = 0;
    for slot in &tx.body.slots {
        match slot {
            Slot::Hidden { .. } => return Err(Reject::HiddenSlot),
            Slot::Clear { ledger: LedgerId::BEACON, mv: Move::Issue(spec) } => specs.push(spec),
            Slot::Clear { .. } => elsewhere += 1,
        }
    }
    match (specs.len(), elsewhere) {
        (_, 0) => Ok(specs),
        (0, _) => Err(Reject::WrongShard),
        _ => Err(Reject::MultiVoter),
    }
}

/// What an accepted command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum CommandOutcome {
    /// The registry has changed.
    Applied,
    /// It waits for more organisations.
    Pending {
        /// Organisations that have approved.
        approvals: u16,
        /// Approvals that decide.
        needed: u16,
    },
    /// A channel was proposed, or an organisation's word on one was taken.
    Founding {
        /// The founding.
        id: Hash32,
        /// How far it has come: it waits for more organisations, or was given up.
        phase: Phase,
    },
    /// A channel was founded.
    Founded {
        /// The founding.
        id: Hash32,
        /// The channel's group.
        group: GroupId,
    },
    /// A job was proposed, begun, cut or taken back.
    Job {
        /// The job.
        id: JobId,
        /// How far it has come.
        phase: jobs::Phase,
    },
}

/// What executing a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// For whoever sent it.
    pub outcome: CommandOutcome,
    /// What other groups are to be told, in the order to be sent.
    pub mail: Vec<(GroupId, Message)>,
    /// Committees that come into force, for the beacon's own look-ups: other groups have them by mail.
    pub committees: Vec<ledger::Committee>,
}

impl From<CommandOutcome> for Executed {
    fn from(outcome: CommandOutcome) -> Self {
        Self { outcome, mail: Vec::new(), committees: Vec::new() }
    }
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The rejection; [`Reject::ChannelRefused`] if the rules of channels say no.
    pub reject: Reject,
    /// What the rules of channels say.
    pub channel: Option<Refusal>,
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Self {
        Self { reject, channel: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { reject: Reject::ChannelRefused, channel: Some(refusal) }
    }
}

/// A command that has been executed, kept as long as it could be sent again.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct Done {
    outcome: CommandOutcome,
}

const DONE: &[u8] = b"done/";

/// Executes a signed command. Sent again it returns the first outcome and changes nothing.
///
/// # Errors
/// [`Refused`]; the view is then unchanged.
pub fn execute_command(view: &mut View<'_>, at: &BlockContext, bytes: &[u8]) -> Result<Executed, Refused> {
    let signed = SignedCommand::decode(bytes)?;
    let command = signed.parse()?;
    if at.time_ms > signed.valid_until_ms {
        return Err(Reject::Expired.into());
    }
    if signed.valid_until_ms.0 > at.time_ms.0.saturating_add(COMMAND_VALID_MS_MAX) {
        return Err(Reject::ValidTooLong.into());
    }
    let signer = registry::org(view, signed.org).ok_or(Reject::Registry)?;
    let name = signed.digest(&at.cluster);
    let done_key = done_key(&signed, &name);
    // A known digest was signed when it was first executed, also if the key has rotated since.
    if let Some(done) = view.load::<Done>(&done_key) {
        return Ok(done.outcome.into());
    }
    signed.verify(&at.cluster, &signer.admin_key)?;
    let (expired, open) = remembered(view, at.time_ms);
    if open >= COMMANDS_OPEN_MAX {
        return Err(Reject::Busy.into());
    }
    let before = extract::before(view);
    if before.is_some() {
        refuse_full(view)?;
    }
    let mut executed = apply(view, at, &signer, command, &signed)?;
    if let Some((channels, known)) = before {
        executed.mail.extend(extract::of(view).since(&known, &channels));
    }
    expired.into_iter().for_each(|key| registry::remove(view, key));
    registry::put(view, done_key, &Done { outcome: executed.outcome });
    Ok(executed)
}

/// What a command that was executed has come to, as long as it is remembered.
pub fn outcome_of(view: &mut View<'_>, signed: &SignedCommand, digest: &Hash32) -> Option<CommandOutcome> {
    view.load::<Done>(&done_key(signed, digest)).map(|done| done.outcome)
}

/// The deadline leads, so that what can be forgotten stands first.
fn done_key(signed: &SignedCommand, digest: &Hash32) -> Vec<u8> {
    registry::key(DONE, &[&signed.valid_until_ms.0.to_be_bytes(), &digest.0])
}

/// Keys of remembered commands past their deadline, and how many are not.
fn remembered(view: &mut View<'_>, now: TimeMs) -> (Vec<Vec<u8>>, usize) {
    let prefix = registry::key(DONE, &[]);
    let keys: Vec<Vec<u8>> = view.scan_prefix(&prefix).into_iter().map(|(key, _)| key).collect();
    let total = keys.len();
    let expired: Vec<Vec<u8>> = keys
        .into_iter()
        .filter(|key| key.get(prefix.len()..prefix.len() + 8).is_some_and(|until| until < &now.0.to_be_bytes()[..]))
        .collect();
    let open = total - expired.len();
    (expired, open)
}

fn apply(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: &OrgInfo,
    command: BeaconCommand,
    signed: &SignedCommand,
) -> Result<Executed, Refused> {
    match command {
        BeaconCommand::RegisterOrg(org) => {
            return Ok(orgs::register(view, at, signer, org, signed.valid_until_ms)?.into());
        }
        BeaconCommand::RemoveOrg { org } => {
            return Ok(orgs::remove(view, at, signer, org, signed.valid_until_ms)?);
        }
        BeaconCommand::ProposeSealedChannel { terms, promise, hosting, until_ms } => {
            let proposed = Proposed { terms, promise, hosting, until_ms, salt: signed.salt };
            return channels::propose(view, at, signer.id, proposed);
        }
        BeaconCommand::ActOnChannel { founding, act } => {
            return channels::act(view, at, signer.id, &founding, &act);
        }
        BeaconCommand::SwitchEngine { group, engine } => {
            return Ok(engine::switch(view, at, signer.id, (group, engine), signed.valid_until_ms)?);
        }
        BeaconCommand::RegisterNode(node) => {
            let nodes = registry::nodes(view);
            let clash = nodes
                .iter()
                .any(|known| known.id == node.id || known.key == node.key || known.tls_key_hash == node.tls_key_hash);
            let revoked = extract::is_revoked(view, signer.id, &node.tls_key_hash);
            if node.org != signer.id || clash || revoked || nodes.len() >= NODES_MAX || !node_form(&node) {
                return Err(Reject::Registry.into());
            }
            if nodes::was_removed(view, &node) {
                return Err(Reject::NodeGone.into());
            }
            if keys::was_replaced(view, &node.key) {
                return Err(Reject::NodeKeyUsed.into());
            }
            // Seats that nobody could take before wait for it.
            let waited_for = !nodes::barred(view).is_empty() || engine::under_way(view);
            if waited_for {
                refuse_full(view)?;
            }
            registry::put(view, registry::node_key(node.id), &node);
            if waited_for {
                let mail = seats::go_on(view);
                registry::bump_revision(view);
                return Ok(Executed { mail, ..CommandOutcome::Applied.into() });
            }
        }
        BeaconCommand::UpdateNodeAddrs { node, peer_addr, client_addr } => {
            if !usable_addr(&peer_addr) || !usable_addr(&client_addr) {
                return Err(Reject::Registry.into());
            }
            change_node(view, signer, node, |info| {
                info.peer_addr = peer_addr;
                info.client_addr = client_addr;
            })?;
        }
        BeaconCommand::UpdateNodeTls { node, tls_key_hash } => {
            let taken = registry::nodes(view).iter().any(|known| known.tls_key_hash == tls_key_hash);
            if taken || extract::is_revoked(view, signer.id, &tls_key_hash) {
                return Err(Reject::Registry.into());
            }
            change_node(view, signer, node, |info| info.tls_key_hash = tls_key_hash)?;
        }
        BeaconCommand::SetNodeCapacity { node, capacity } => {
            if capacity > CAPACITY_MAX {
                return Err(Reject::Registry.into());
            }
            let known = registry::node(view, node).ok_or(Reject::Registry)?;
            if known.org != signer.id {
                return Err(Reject::NotAuthorised.into());
            }
            if capacity == 0 {
                watch::refuse_at_risk(view, at.time_ms, node)?;
            }
            refuse_full(view)?;
            let mut mail = change_capacity(view, ledger::genesis::NodeInfo { capacity, ..known })?;
            if capacity > 0 {
                mail.extend(nodes::stays(view, node));
            }
            registry::bump_revision(view);
            return Ok(Executed { mail, ..CommandOutcome::Applied.into() });
        }
        BeaconCommand::RemoveNode { node } => {
            nodes::remove(view, at, signer.id, node)?;
            return Ok(CommandOutcome::Applied.into());
        }
        BeaconCommand::JoinNode { node } => return Ok(nodes::join(view, at, signer.id, node)?),
        BeaconCommand::ReplaceNode { node, successor } => {
            return Ok(nodes::replace(view, at, signer.id, (node, successor))?);
        }
        BeaconCommand::SetPolicy(change) => {
            return Ok(policies::set(view, at, signer.id, change, signed.valid_until_ms)?);
        }
        BeaconCommand::SetWatch(policy) => {
            return Ok(watch::set(view, at, signer.id, policy, signed.valid_until_ms)?);
        }
        BeaconCommand::SetEpochs(policy) => {
            return Ok(epochs::ask(view, at, signer.id, Ask::Policy(policy), signed.valid_until_ms)?);
        }
        BeaconCommand::Rebalance => {
            return Ok(epochs::ask(view, at, signer.id, Ask::Rebalance, signed.valid_until_ms)?);
        }
        BeaconCommand::ReleaseQuarantine(held) => {
            return Ok(quarantine::release(view, at, signer.id, held, signed.valid_until_ms)?);
        }
        BeaconCommand::SplitShard { group, layout, manual } => {
            let asked = Asked { kind: JobKind::Split { group }, layout, manual };
            return Ok(jobs::propose(view, at, signer.id, asked, signed.valid_until_ms)?);
        }
        BeaconCommand::MergeShards { left, right, layout, manual } => {
            let asked = Asked { kind: JobKind::Merge { left, right }, layout, manual };
            return Ok(jobs::propose(view, at, signer.id, asked, signed.valid_until_ms)?);
        }
        BeaconCommand::MoveShard { group, from, to, layout } => {
            let asked = Asked { kind: JobKind::Move { group, from, to }, layout, manual: false };
            return Ok(jobs::propose(view, at, signer.id, asked, signed.valid_until_ms)?);
        }
        BeaconCommand::CutShard { job } => return Ok(jobs::cut(view, at, signer.id, job)?),
        BeaconCommand::CancelJob { job } => return Ok(jobs::cancel(view, at, signer.id, job)?),
        BeaconCommand::RotateNodeKey { node, key, possession } => {
            return Ok(keys::rotate(view, at, signer.id, node, (key, possession))?);
        }
        BeaconCommand::SetScale(policy) => {
            return Ok(jobs::scale::set(view, at, signer.id, policy, signed.valid_until_ms)?);
        }
        BeaconCommand::UpdateOrgCa { ca_pem } => {
            let taken = registry::orgs(view).iter().any(|org| org.id != signer.id && same_text(&org.ca_pem, &ca_pem));
            if taken || !usable_ca(&ca_pem) {
                return Err(Reject::Registry.into());
            }
            registry::put(view, registry::org_key(signer.id), &OrgInfo { ca_pem, ..signer.clone() });
        }
        BeaconCommand::RotateAdminKey { key } => {
            let (old, new) = (sha256(&signer.admin_key.0), sha256(&key.0));
            let usable = usable_key(&key) && key != signer.admin_key && !extract::is_revoked(view, signer.id, &new);
            if !usable || !extract::has_room(view, signer.id) {
                return Err(Reject::Registry.into());
            }
            extract::revoke(view, signer.id, &old);
            registry::put(view, registry::org_key(signer.id), &OrgInfo { admin_key: key, ..signer.clone() });
        }
        BeaconCommand::RevokeCredential { credential } => {
            // The admin key is replaced, not left out: the organisation could never sign again. So is a
            // node's: without one, no other node would let it in, not even to hear of its next one.
            let nodes = registry::nodes(view);
            let of_node = nodes.iter().any(|node| node.org == signer.id && node.tls_key_hash == credential);
            let in_use = of_node || credential == sha256(&signer.admin_key.0);
            if in_use || extract::is_revoked(view, signer.id, &credential) || !extract::has_room(view, signer.id) {
                return Err(Reject::Registry.into());
            }
            extract::revoke(view, signer.id, &credential);
        }
    }
    registry::bump_revision(view);
    Ok(CommandOutcome::Applied.into())
}

fn change_node(
    view: &mut View<'_>,
    signer: &OrgInfo,
    id: NodeId,
    change: impl FnOnce(&mut ledger::genesis::NodeInfo),
) -> Result<(), Reject> {
    let mut node = registry::node(view, id).ok_or(Reject::Registry)?;
    if node.org != signer.id {
        return Err(Reject::NotAuthorised);
    }
    change(&mut node);
    registry::put(view, registry::node_key(id), &node);
    Ok(())
}

/// Takes a certified header of a group. Returns whether the group's last checkpoint moved: `false`
/// for one that is known or older, and for one that contradicts the last, which is kept as a
/// [`Divergence`] and puts the group into quarantine.
///
/// # Errors
/// [`Reject::WrongCluster`], [`Reject::CommitteeUnknown`] when the registry has no such committee
/// or a new height is signed by one no longer in force, [`Reject::MailForged`] when the certificate
/// does not hold, or the first block of a shard that was born does not continue its parents. The view is then unchanged.
pub fn apply_checkpoint(view: &mut View<'_>, at: &BlockContext, certificate: &Certificate) -> Result<bool, Reject> {
    let header = &certificate.header;
    if header.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    if certificate.version != 1 || header.version != ledger::header::HEADER_VERSION {
        return Err(Reject::MailForged);
    }
    let hash = header.hash();
    let last = registry::checkpoint(view, header.group);
    if last.is_some_and(|last| header.height < last.height || last.header_hash == hash) {
        return Ok(false);
    }
    let contradicts = last.is_some_and(|last| header.height == last.height);
    let committee = if contradicts {
        registry::committee_by_hash(view, header.group, &header.committee_hash)
    } else {
        registry::committee(view, header.group).filter(|current| current.hash() == header.committee_hash)
    };
    let committee = committee.ok_or(Reject::CommitteeUnknown)?;
    let verdict = match view.checked() {
        Some(checked) => checked.verify(certificate, &committee),
        None => certificate.verify(&committee),
    };
    verdict.map_err(|_| Reject::MailForged)?;
    if contradicts {
        record_divergence(view, at, certificate, &hash);
        return Ok(false);
    }
    if !jobs::commit::follows_birth(view, header) {
        return Err(Reject::MailForged);
    }
    let checkpoint =
        Checkpoint { height: header.height, header_hash: hash, state_root: header.state_root, time_ms: header.time_ms };
    registry::put(view, registry::checkpoint_key(header.group), &checkpoint);
    registry::put(view, registry::proof_key(header.group), certificate);
    Ok(true)
}

fn record_divergence(view: &mut View<'_>, at: &BlockContext, second: &Certificate, hash: &Hash32) {
    let (group, height) = (second.header.group, second.header.height);
    if let Some(first) = registry::checkpoint_proof(view, group) {
        evidence::against_group(view, at, group, height, &Proof::Twice(Twice::of(first, second.clone())));
    }
    let key = registry::divergence_key(group, height, hash);
    let known = view.scan_prefix(&registry::divergence_prefix(group));
    if known.len() >= DIVERGENCES_MAX || known.iter().any(|(found, _)| *found == key) {
        return;
    }
    let Some(first) = registry::checkpoint_proof(view, group) else {
        return;
    };
    registry::put(view, key, &Divergence { version: 1, first, second: second.clone(), seen_ms: at.time_ms });
}

/// Whether two certificates are the same, but for line breaks.
fn same_text(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}
