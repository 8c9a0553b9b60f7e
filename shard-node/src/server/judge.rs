//! What a member of a Byzantine group asks of a batch before it votes for it.
//!
//! Only what every honest member answers alike is asked, the clock apart: what the bytes themselves say, and
//! their signatures. What depends on the state is the machine's, which rejects it on every replica alike; and
//! what other commands than transactions carry, certificates and signed commands, it checks with the state at
//! hand. So an honest leader's batch is never refused for what another member has not applied yet. An honest leader
//! sequences nothing that does not decode or whose signature does not hold: a batch with such a transaction
//! is no accident.
//!
//! The clock is asked for as long as the group has not agreed: a leader cannot move the group's time by more
//! than the limit, and members whose clocks differ come to an end all the same.

use async_trait::async_trait;
use bytes::Bytes;
use consensus::bft::Judge;
use ledger::Committee;
use ledger::ids::{ClusterId, GroupId, NodeId, TimeMs};
use ledger::reject::Reject;
use ledger::schema;
use ledger::tx::ParsedTx;
use parking_lot::Mutex;
use rayon::prelude::*;

use crate::core::entry::Entry;
use crate::core::fit;
use crate::server::checks::{self, Known};
use crate::server::group::HostContext;
use crate::server::halt::Halt;
use crate::server::replica::{ReplicaShare, StateHandle};

pub use crate::core::fit::Unfit;

/// Judges batches for one replica.
pub struct HostJudge {
    context: HostContext,
    cluster: ClusterId,
    group: GroupId,
    state: StateHandle,
    halt: Halt,
    known: Known,
    /// The guarded clock against the tick, as it was known last: only the monotonic clock moves it since.
    guarded_ms: Mutex<Option<i64>>,
}

impl HostJudge {
    /// A judge for the replica of this state, which remembers what it has verified in `known`.
    #[must_use]
    pub fn new(context: &HostContext, share: &ReplicaShare, group: GroupId, known: Known) -> Self {
        let (state, halt) = (share.state.clone(), share.halt.clone());
        let cluster = context.genesis.cluster_id();
        Self { context: context.clone(), cluster, group, state, halt, known, guarded_ms: Mutex::new(None) }
    }

    /// The guarded clock among the members in force.
    fn now(&self) -> Result<TimeMs, Unfit> {
        // What cannot be read stops the group where it matters.
        let committee: Option<Committee> = self.state.load(&schema::current_committee(self.group)).unwrap_or_default();
        let members = committee.into_iter().flat_map(|committee| committee.members).map(|member| member.node);
        let members: Vec<NodeId> = members.collect();
        let readings = self.context.readings.borrow().clone();
        let read = readings.and_then(|readings| readings.guarded_ms(self.context.node, &members));
        let offset = {
            let mut last = self.guarded_ms.lock();
            let known = read.or(*last);
            *last = known;
            known.ok_or(Unfit::NoClock)?
        };
        let now = i64::try_from(self.context.clock.tick().0).unwrap_or(i64::MAX).saturating_add(offset);
        Ok(TimeMs(u64::try_from(now).unwrap_or(0)))
    }
}

#[async_trait]
impl Judge for HostJudge {
    async fn judge(&self, batch: Bytes, agreed: bool) -> Result<(), String> {
        let now = if agreed { None } else { Some(self.now().map_err(|unfit| unfit.to_string())?) };
        let (cluster, known) = (self.cluster, self.known.clone());
        let judging = tokio::task::spawn_blocking(move || judge(&cluster, &batch, now, &known));
        match checks::finished(&self.halt, "a proposed batch", judging).await {
            Some(verdict) => verdict.map_err(|unfit| unfit.to_string()),
            None => Err("it could not be checked".to_owned()),
        }
    }
}

/// Judges a batch: its form, its time by this clock, and every signature that is not known to hold.
///
/// # Errors
/// [`Unfit`].
pub fn judge(cluster: &ClusterId, batch: &[u8], now: Option<TimeMs>, known: &Known) -> Result<(), Unfit> {
    let entry = fit::entry(batch, now)?;
    let (places, txs) = transactions(cluster, &entry)?;
    match known.first_forged(&txs) {
        Some(at) => Err(Unfit::Transaction { command: places[at], reject: Reject::BadSignature }),
        None => Ok(()),
    }
}

/// The transactions of an entry, and where in it they stand.
fn transactions(cluster: &ClusterId, entry: &Entry) -> Result<(Vec<usize>, Vec<ParsedTx>), Unfit> {
    let found = fit::transactions(entry)?;
    let decode = |(command, bytes): &(usize, &[u8])| fit::decode(cluster, *command, bytes);
    let txs = found.par_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
    Ok((found.into_iter().map(|(command, _)| command).collect(), txs))
}

#[cfg(test)]
mod tests {
    use ledger::genesis::{Genesis, VerifyMode};
    use ledger::ids::Address;
    use ledger::limits::{BATCH_TXS_MAX, CLOCK_SKEW_MS_MAX, STAMP_AGE_MS_MAX};

    use super::*;
    use crate::core::entry::{Command, ENTRY_VERSION};
    use crate::core::support::NOW;
    use crate::server::testing::{Lone, forged, lone_genesis, mint};

    fn batch(stamp_ms: TimeMs, commands: Vec<Command>) -> Vec<u8> {
        Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode()
    }

    fn pay(genesis: &Genesis, salt: u8) -> Command {
        Command::Tx(mint(genesis, salt, Address([4; 20]), 1_000).1.to_vec())
    }

    /// The verdict of somebody who has verified nothing yet, at [`NOW`].
    fn verdict(genesis: &Genesis, batch: &[u8]) -> Result<(), Unfit> {
        judge(&genesis.cluster_id(), batch, Some(NOW), &Known::default())
    }

    #[test]
    fn a_batch_of_an_honest_leader_is_voted_for() {
        let genesis = lone_genesis(VerifyMode::Ingest);
        // What the other commands carry is judged with the state, by the machine.
        let others = [Command::Deliver(vec![1]), Command::Ack(vec![]), Command::Registry(vec![2; 40])];
        let commands = others.into_iter().chain([pay(&genesis, 1), pay(&genesis, 2)]).collect();
        assert_eq!(verdict(&genesis, &batch(NOW, commands)), Ok(()));
        assert_eq!(verdict(&genesis, &batch(NOW, Vec::new())), Ok(()));
    }

    #[test]
    fn what_no_honest_leader_sequences_is_refused() {
        let genesis = lone_genesis(VerifyMode::Ingest);
        assert_eq!(verdict(&genesis, b"garbage"), Err(Unfit::Form));
        let mut longer = batch(NOW, vec![pay(&genesis, 1)]);
        longer.push(0);
        assert_eq!(verdict(&genesis, &longer), Err(Unfit::Form), "in the log it would be an empty block");
        let at = |command, reject| Err(Unfit::Transaction { command, reject });
        let with = |tx: Vec<u8>| batch(NOW, vec![Command::Ack(vec![]), pay(&genesis, 1), Command::Tx(tx)]);
        assert_eq!(verdict(&genesis, &with(vec![9; 30])), at(2, Reject::Malformed));
        assert_eq!(verdict(&genesis, &with(forged(&genesis, 7).to_vec())), at(2, Reject::BadSignature));
        let other = Genesis { name: "another".to_owned(), ..lone_genesis(VerifyMode::Ingest) };
        let foreign = mint(&other, 1, Address([4; 20]), 1_000).1;
        assert_eq!(verdict(&genesis, &with(foreign.to_vec())), at(2, Reject::WrongCluster));
        let many = vec![Command::Tx(Vec::new()); BATCH_TXS_MAX + 1];
        assert_eq!(verdict(&genesis, &batch(NOW, many)), Err(Unfit::Transactions(BATCH_TXS_MAX + 1)));
    }

    #[test]
    fn a_stamp_is_near_the_clock_until_the_group_has_agreed() {
        let genesis = lone_genesis(VerifyMode::Ingest);
        let stamped = |ms| batch(TimeMs(ms), vec![pay(&genesis, 1)]);
        for good in [NOW.0 + CLOCK_SKEW_MS_MAX, NOW.0 - STAMP_AGE_MS_MAX] {
            assert_eq!(verdict(&genesis, &stamped(good)), Ok(()));
        }
        let (ahead, old) = (NOW.0 + CLOCK_SKEW_MS_MAX + 1, NOW.0 - STAMP_AGE_MS_MAX - 1);
        assert_eq!(verdict(&genesis, &stamped(ahead)), Err(Unfit::Ahead(CLOCK_SKEW_MS_MAX + 1)));
        assert_eq!(verdict(&genesis, &stamped(old)), Err(Unfit::Old(STAMP_AGE_MS_MAX + 1)));
        let agreed = |batch: &[u8]| judge(&genesis.cluster_id(), batch, None, &Known::default());
        assert_eq!((agreed(&stamped(u64::MAX)), agreed(&stamped(0))), (Ok(()), Ok(())));
        let forged = batch(NOW, vec![Command::Tx(forged(&genesis, 7).to_vec())]);
        assert!(agreed(&forged).is_err(), "time alone is not asked for any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_the_clocks_of_others_a_node_votes_only_for_what_is_agreed() {
        let lone = Lone::start(VerifyMode::Ingest).await;
        let (share, known) = (&lone.handle.share, Known::default());
        let with_clock = HostJudge::new(&lone.context, share, lone.handle.group, known.clone());
        let stamp = with_clock.now().expect("it is alone, so its own clock is the median");
        let entry = Bytes::from(batch(stamp, vec![pay(&lone.genesis, 1)]));
        assert_eq!(with_clock.judge(entry.clone(), false).await, Ok(()));
        let context = HostContext { readings: tokio::sync::watch::channel(None).1, ..lone.context.clone() };
        let without = HostJudge::new(&context, share, lone.handle.group, known);
        assert_eq!(without.judge(entry.clone(), false).await, Err(Unfit::NoClock.to_string()));
        assert_eq!(without.judge(entry, true).await, Ok(()));
        lone.stop().await;
    }
}
