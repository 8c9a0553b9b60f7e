//! What exactly those liars do that have several ways, each with a name, so that a set of runs can be shown to have met all of
//! them.

use ledger::ids::TxId;

use super::{Liar, Lie};

macro_rules! ruses {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $lie:ident;)*) => {
        /// One of the things that a liar of a kind does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Ruse { $($(#[$doc])* $name,)* }

        impl Ruse {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// Whose it is.
            #[must_use]
            pub const fn of(self) -> Lie { match self { $(Self::$name => Lie::$lie,)* } }
        }
    };
}

ruses! {
    /// Proposes a value that follows another one than was decided last.
    WrongParent = "wrong-parent", BadProposer;
    /// One of the next entry.
    WrongIndex = "wrong-index", BadProposer;
    /// One that was made for the next round.
    WrongRound = "wrong-round", BadProposer;
    /// One that hands over to the proposer itself.
    OwnHeir = "own-heir", BadProposer;
    /// One that hands over to nobody of the group.
    StrangeHeir = "strange-heir", BadProposer;
    /// A batch that is none.
    Garbage = "garbage", BadProposer;
    /// A batch with more bytes than one may have.
    Oversized = "oversized", BadProposer;
    /// A stamp of an hour ago.
    PastStamp = "past-stamp", BadProposer;
    /// A stamp of an hour ahead.
    FutureStamp = "future-stamp", BadProposer;
    /// A transaction that its account has not signed.
    ForgedTransaction = "forged-transaction", BadProposer;
    /// A payment of more than its payer has, and as good as any otherwise: members vote for it.
    Overdraft = "overdraft", BadProposer;
    /// Says that a value was decided, with a proof of something else.
    DecidedValue = "decided-value", Forger;
    /// Votes of everybody, one by one.
    Votes = "votes", Forger;
    /// Prevotes of everybody as a quorum for a value.
    Polka = "polka", Forger;
    /// Precommits of everybody as a quorum that ends a round.
    Precommits = "precommits", Forger;
    /// Votes of everybody as a quorum that skips a round.
    Skip = "skip", Forger;
    /// A certificate of a block that is none.
    Certificate = "certificate", Forger;
    /// An amount for somebody in another shard, under such a certificate.
    ForgedMail = "forged-mail", Forger;
    /// A proof under such a certificate of how much its group has taken of another shard's mail, or more than that.
    ForgedAck = "forged-ack", Forger;
}

/// What a liar has done since somebody asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// How often it has lied.
    pub lies: u64,
    /// What it has done that has a name.
    pub ruses: Vec<Ruse>,
    /// Payments of more than there is that it has signed for others.
    pub overdrafts: Vec<TxId>,
}

impl Liar {
    /// It does something that has a name. What is said of a value is counted as a lie for each time that it is said.
    pub(super) fn did(&mut self, ruse: Ruse) {
        self.deeds.lies += u64::from(ruse.of() == Lie::Forger);
        self.deeds.ruses.push(ruse);
    }

    /// What it has done since this was asked last, if anything; also while its node had no power.
    pub(crate) fn confess(&mut self) -> Option<Deeds> {
        let deeds = std::mem::take(&mut self.deeds);
        Some(deeds).filter(|deeds| *deeds != Deeds::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ruse_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Ruse::ALL.iter().map(|ruse| ruse.name()).collect();
        assert_eq!(names.len(), Ruse::ALL.len());
    }
}
