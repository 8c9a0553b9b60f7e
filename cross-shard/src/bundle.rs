//! Bundles of mail and acknowledgements, each under a certificate of the group it comes from.
//!
//! The certified header commits to the whole stream by its head, so any later certificate proves
//! all earlier mail. A bundle that ends before the head carries a proof that the head continues it; its
//! length is logarithmic, so no stream is too long for its mail to be proved.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::Certificate;
use ledger::checked::Checked;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::GroupId;
use ledger::layout::Layout;
use ledger::limits::{BUNDLE_BYTES_MAX, BUNDLE_MESSAGES_MAX, BUNDLE_PROOF_MAX};
use ledger::merkle::MerklePath;
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::View;

use crate::message::Message;
use crate::stream::{InCursor, OutStream, StreamLeaf, in_cursor, out_stream};

/// Contiguous messages of one stream and the proof that the source has sent them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Bundle {
    /// Format version, 2.
    pub version: u8,
    /// Who sends.
    pub source: GroupId,
    /// Who receives; bound by `leaf.peer`.
    pub dest: GroupId,
    /// Sequence number of the first message.
    pub first_seq: u64,
    /// The messages, encoded.
    pub messages: Vec<Vec<u8>>,
    /// What leads from the last message here to the certified head: the roots of the largest complete
    /// subtrees in between.
    pub proof: Vec<Hash32>,
    /// Certified head of the stream.
    pub leaf: StreamLeaf,
    /// From the leaf to the header's `outbox_root`.
    pub path: MerklePath,
    /// A certified header of the source.
    pub certificate: Certificate,
}

/// Proof that the destination has taken everything below `leaf.next_seq`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AckProof {
    /// Format version, 1.
    pub version: u8,
    /// The destination's cursor; `peer` is the source, to whom this goes.
    pub leaf: StreamLeaf,
    /// From the leaf to the header's `inbox_cursors_root`.
    pub path: MerklePath,
    /// A certified header of the destination.
    pub certificate: Certificate,
}

/// Looks up a committee by group and hash in the group's own state.
pub type CommitteeSource<'a> = &'a mut dyn FnMut(GroupId, Hash32) -> Option<Committee>;

/// The committee with this hash, from state.
pub fn committee_in(view: &mut View<'_>, group: GroupId, hash: Hash32) -> Option<Committee> {
    view.load(&schema::committee(group, &hash))
}

fn judge(
    certificate: &Certificate,
    group: GroupId,
    committees: CommitteeSource<'_>,
    checked: Option<&Checked>,
) -> Result<(), Reject> {
    if certificate.header.group != group {
        return Err(Reject::MailForged);
    }
    let committee = committees(group, certificate.header.committee_hash).ok_or(Reject::CommitteeUnknown)?;
    let verdict = match checked {
        Some(checked) => checked.verify(certificate, &committee),
        None => certificate.verify(&committee),
    };
    verdict.map_err(|_| Reject::MailForged)
}

/// Refuses what an ended incarnation of a group certified: a group that was rebuilt sends again,
/// under its new incarnation, what still counts.
fn alive(view: &mut View<'_>, certificate: &Certificate) -> Result<(), Reject> {
    let current: Option<Committee> = view.load(&schema::current_committee(certificate.header.group));
    match current {
        Some(current) if certificate.header.incarnation < current.incarnation => Err(Reject::DeadIncarnation),
        _ => Ok(()),
    }
}

/// Refuses mail of a group that the layout has retired: what is left of it comes from those that came from it.
fn lives(view: &mut View<'_>, group: GroupId) -> Result<(), Reject> {
    // The committee in force goes with its group, so the layout is looked at only where there is none.
    let retired = view.get(&schema::current_committee(group)).is_none()
        && view.load::<Layout>(&schema::layout()).is_some_and(|layout| layout.retired(group));
    if retired { Err(Reject::MailRetired) } else { Ok(()) }
}

impl Bundle {
    /// Checks size, certificate and path against committees that the receiver knows. That the messages
    /// lead to the head is checked on delivery, from the cursor.
    ///
    /// # Errors
    /// [`Reject::CommitteeUnknown`] when the bundle has to be parked, [`Reject::MailForged`] when it
    /// proves nothing.
    pub fn check(&self, committees: CommitteeSource<'_>) -> Result<(), Reject> {
        self.check_once(committees, None)
    }

    /// As [`Bundle::check`], with a memory of certificates that need no check any more.
    ///
    /// # Errors
    /// As [`Bundle::check`].
    pub fn check_once(&self, committees: CommitteeSource<'_>, checked: Option<&Checked>) -> Result<(), Reject> {
        let bytes: usize = self.messages.iter().map(Vec::len).sum();
        let within = self.version == 2
            && (1..=BUNDLE_MESSAGES_MAX).contains(&self.messages.len())
            && bytes <= BUNDLE_BYTES_MAX
            && self.proof.len() <= BUNDLE_PROOF_MAX;
        let end = self.first_seq.checked_add(self.messages.len() as u64);
        let ends = end.is_some_and(|end| end <= self.leaf.next_seq);
        if !within || !ends || self.leaf.peer != self.dest {
            return Err(Reject::MailForged);
        }
        judge(&self.certificate, self.source, committees, checked)?;
        if !self.path.leads_to(&self.leaf.hash(), &self.certificate.header.outbox_root) {
            return Err(Reject::MailForged);
        }
        Ok(())
    }

    /// Takes what lies at and beyond the cursor, in order: trims what overlaps, refuses a gap,
    /// checks that they lead from the cursor to the certified head, and moves the cursor.
    /// Returns the decoded messages; nothing when all of them were taken before.
    ///
    /// # Errors
    /// [`Reject::MailRetired`] of a group that the layout has retired, [`Reject::MailGap`] beyond the cursor,
    /// [`Reject::MailForged`] when the proof or a message does not hold, and what [`Bundle::check`] returns. The view is then unchanged.
    pub fn deliver(&self, view: &mut View<'_>, me: GroupId) -> Result<Vec<(u64, Message)>, Reject> {
        if self.dest != me {
            return Err(Reject::MailForged);
        }
        lives(view, self.source)?;
        let cursor = in_cursor(view, self.source);
        let Some(known) = cursor.next_seq.checked_sub(self.first_seq) else {
            return Err(Reject::MailGap);
        };
        if known >= self.messages.len() as u64 {
            return Ok(Vec::new());
        }
        let checked = view.checked();
        self.check_once(&mut |group, hash| committee_in(view, group, hash), checked)?;
        alive(view, &self.certificate)?;
        let (taken, after) = self.follow(cursor)?;
        view.store(schema::inbox(self.source), &after);
        Ok(taken)
    }

    /// Follows the messages from a cursor that is not before the first one, and the proof from there to
    /// the head. Returns the messages at and beyond the cursor, and the cursor behind them.
    ///
    /// # Errors
    /// [`Reject::MailForged`] when a message does not decode or all of it leads elsewhere,
    /// [`Reject::MailGap`] for a cursor before the first message.
    pub fn follow(&self, from: InCursor) -> Result<(Vec<(u64, Message)>, InCursor), Reject> {
        let known = from.next_seq.checked_sub(self.first_seq).ok_or(Reject::MailGap)?;
        let new = self.messages.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        let mut taken = Vec::with_capacity(new.len());
        let mut after = from;
        for bytes in new {
            let message: Message = borsh::from_slice(bytes).map_err(|_| Reject::MailForged)?;
            taken.push((after.next_seq, message));
            after.push(bytes);
        }
        if !after.leads_to(&self.proof, &self.leaf) {
            return Err(Reject::MailForged);
        }
        Ok((taken, after))
    }
}

impl AckProof {
    /// Checks certificate, path and addressee against committees that the receiver knows.
    ///
    /// # Errors
    /// As [`Bundle::check`].
    pub fn check(&self, me: GroupId, committees: CommitteeSource<'_>) -> Result<(), Reject> {
        self.check_once(me, committees, None)
    }

    /// As [`AckProof::check`], with a memory of certificates that need no check any more.
    ///
    /// # Errors
    /// As [`Bundle::check`].
    pub fn check_once(
        &self,
        me: GroupId,
        committees: CommitteeSource<'_>,
        checked: Option<&Checked>,
    ) -> Result<(), Reject> {
        if self.version != 1 || self.leaf.peer != me {
            return Err(Reject::MailForged);
        }
        judge(&self.certificate, self.certificate.header.group, committees, checked)?;
        if !self.path.leads_to(&self.leaf.hash(), &self.certificate.header.inbox_cursors_root) {
            return Err(Reject::MailForged);
        }
        Ok(())
    }

    /// Drops what the peer has taken and returns its cursor.
    ///
    /// # Errors
    /// What [`AckProof::check`] returns, [`Reject::MailRetired`] of a group that the layout has retired, and
    /// [`Reject::MailForged`] for a cursor beyond the stream.
    /// The view is then unchanged.
    pub fn apply(&self, view: &mut View<'_>, me: GroupId) -> Result<u64, Reject> {
        let dest = self.certificate.header.group;
        lives(view, dest)?;
        let mut stream: OutStream = out_stream(view, dest);
        if self.leaf.next_seq <= stream.acked {
            return Ok(stream.acked);
        }
        let checked = view.checked();
        self.check_once(me, &mut |group, hash| committee_in(view, group, hash), checked)?;
        alive(view, &self.certificate)?;
        if self.leaf.next_seq > stream.next_seq {
            return Err(Reject::MailForged);
        }
        for seq in stream.acked..self.leaf.next_seq {
            view.delete(schema::mail(dest, seq));
        }
        stream.acked = self.leaf.next_seq;
        view.store(schema::outbox(dest), &stream);
        Ok(stream.acked)
    }
}
