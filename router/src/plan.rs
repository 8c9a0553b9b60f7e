//! Which group a transaction goes to. Pure: layout in, group out.
//!
//! Every move has one voter: the account that can refuse. All voters of a transaction must lie in
//! one group, since this version commits by one voter group; followers may lie anywhere, mail finds
//! them.

use ledger::tx::ParsedTx;
use ledger::{GroupId, Layout, LedgerId, Move, Reject, Slot, TxBody};

/// The one group whose vote decides this transaction.
///
/// # Errors
/// [`Reject::MultiVoter`] when voters lie in several groups, [`Reject::HiddenSlot`] when a move is
/// hidden, [`Reject::MoveCount`] when there is none, [`Reject::UnknownGroup`] when a move is on a
/// ledger that no group serves.
pub fn plan(layout: &Layout, tx: &ParsedTx) -> Result<GroupId, Reject> {
    plan_body(layout, &tx.body)
}

/// As [`plan`], for a body alone.
///
/// # Errors
/// As [`plan`].
pub fn plan_body(layout: &Layout, body: &TxBody) -> Result<GroupId, Reject> {
    let mut target = None;
    for slot in &body.slots {
        let voter = match slot {
            Slot::Hidden { .. } => return Err(Reject::HiddenSlot),
            Slot::Clear { ledger, mv } => voter_group(layout, *ledger, mv)?,
        };
        match target {
            None => target = Some(voter),
            Some(group) if group != voter => return Err(Reject::MultiVoter),
            Some(_) => {}
        }
    }
    target.ok_or(Reject::MoveCount)
}

/// Assets are defined on the beacon's ledger and everything else happens on the main one. A move
/// on the wrong one of the two is as unknown as a move on a ledger that does not exist.
fn voter_group(layout: &Layout, ledger: LedgerId, mv: &Move) -> Result<GroupId, Reject> {
    let (home, group) = match mv {
        Move::Issue(_) => (LedgerId::BEACON, GroupId::BEACON),
        _ => (LedgerId::MAIN, layout.locate(&mv.voters().next().map(|voter| voter.account).unwrap_or_default())),
    };
    if ledger == home { Ok(group) } else { Err(Reject::UnknownGroup) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::asset::AssetSpec;
    use ledger::{Address, AssetId, ClusterId, Hash32, TimeMs};
    use proptest::prelude::*;

    fn body(slots: Vec<Slot>) -> TxBody {
        TxBody {
            version: 1,
            cluster: ClusterId::default(),
            valid_until_ms: TimeMs(1),
            salt: [0; 16],
            slots,
            memo: Vec::new(),
        }
    }

    fn pay(from: u64, to: u64) -> Slot {
        let mv = Move::Pay { from: address(from), to: address(to), asset: AssetId([1; 16]), amount: 1 };
        Slot::Clear { ledger: LedgerId::MAIN, mv }
    }

    fn address(number: u64) -> Address {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Address(bytes)
    }

    fn issue(ledger: LedgerId) -> Slot {
        let spec = AssetSpec { issuer: address(1), symbol: "X".into(), name: String::new(), decimals: 0 };
        Slot::Clear { ledger, mv: Move::Issue(spec) }
    }

    #[test]
    fn each_shape_has_its_group_or_its_reason() {
        let layout = Layout::even(4);
        let hidden = Slot::Hidden { ledger: LedgerId::MAIN, group: GroupId::shard(0), hash: Hash32::ZERO };
        let plan = |slots| plan_body(&layout, &body(slots));
        assert_eq!(plan(vec![]), Err(Reject::MoveCount));
        assert_eq!(plan(vec![hidden.clone()]), Err(Reject::HiddenSlot));
        assert_eq!(plan(vec![pay(1, 2), hidden]), Err(Reject::HiddenSlot));
        assert_eq!(plan(vec![issue(LedgerId::BEACON)]), Ok(GroupId::BEACON));
        assert_eq!(plan(vec![issue(LedgerId::MAIN)]), Err(Reject::UnknownGroup));
        assert_eq!(plan(vec![issue(LedgerId::BEACON), pay(1, 2)]), Err(Reject::MultiVoter));
        let Slot::Clear { mv, .. } = pay(1, 2) else { unreachable!() };
        let elsewhere = Slot::Clear { ledger: LedgerId(77), mv };
        assert_eq!(plan(vec![elsewhere]), Err(Reject::UnknownGroup));
    }

    proptest! {
        #[test]
        fn the_group_is_where_all_payers_live(
            shards in 1u32..40,
            payers in prop::collection::vec(any::<u64>(), 1..8),
            payee in any::<u64>(),
        ) {
            let layout = Layout::even(shards);
            let mut homes: Vec<_> = payers.iter().map(|payer| layout.locate(&address(*payer))).collect();
            let slots = payers.iter().map(|payer| pay(*payer, payee)).collect();
            let planned = plan_body(&layout, &body(slots));
            let first = homes[0];
            homes.dedup();
            prop_assert_eq!(planned, if homes.len() == 1 { Ok(first) } else { Err(Reject::MultiVoter) });
        }

        #[test]
        fn payees_and_order_do_not_matter(
            shards in 1u32..40,
            payer in any::<u64>(),
            payees in prop::collection::vec(any::<u64>(), 1..8),
        ) {
            let layout = Layout::even(shards);
            let slots: Vec<_> = payees.iter().map(|payee| pay(payer, *payee)).collect();
            let mut reversed = slots.clone();
            reversed.reverse();
            let planned = plan_body(&layout, &body(slots));
            prop_assert_eq!(planned, Ok(layout.locate(&address(payer))));
            prop_assert_eq!(planned, plan_body(&layout, &body(reversed)));
        }
    }
}
