//! Decoding: what is encoded comes back, and no bytes whatever bring a decoder down.

mod support;

use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, ClusterId, GroupId, LedgerId, TimeMs};
use ledger::tx::{Move, ParsedTx, SignedTx, Slot, TxBody};
use ledger::{
    AssetSpec, Authorisation, Certificate, Committee, Header, Layout, PublicKey, Receipt, Signature, Witness,
};
use proptest::prelude::*;
use support::cluster;

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 20]>().prop_map(Address)
}

fn asset() -> impl Strategy<Value = AssetId> {
    any::<[u8; 16]>().prop_map(AssetId)
}

fn public_key() -> impl Strategy<Value = PublicKey> {
    (any::<u8>(), any::<[u8; 32]>()).prop_map(|(first, rest)| {
        let mut key = [first; 33];
        key[1..].copy_from_slice(&rest);
        PublicKey(key)
    })
}

fn authorisation() -> impl Strategy<Value = Authorisation> {
    prop_oneof![
        public_key().prop_map(Authorisation::Single),
        prop::collection::btree_set(public_key(), 1..=16).prop_flat_map(|keys| {
            (1..=u8::try_from(keys.len()).expect("at most 16"), Just(keys))
                .prop_map(|(threshold, keys)| Authorisation::Multi { threshold, keys: keys.into_iter().collect() })
        }),
    ]
}

fn any_move() -> impl Strategy<Value = Move> {
    let amount = || 1u128..=u128::MAX;
    prop_oneof![
        (address(), address(), asset(), amount()).prop_map(|(from, to, asset, amount)| Move::Pay {
            from,
            to,
            asset,
            amount
        }),
        (address(), address(), asset(), amount())
            .prop_map(|(issuer, to, asset, amount)| { Move::Mint { issuer, to, asset, amount } }),
        (address(), asset(), amount()).prop_map(|(issuer, asset, amount)| Move::Burn { issuer, asset, amount }),
        (address(), "[A-Za-z0-9.-]{1,16}", "[ -~]{0,64}", 0u8..=36)
            .prop_map(|(issuer, symbol, name, decimals)| { Move::Issue(AssetSpec { issuer, symbol, name, decimals }) }),
        (address(), authorisation()).prop_map(|(account, auth)| Move::Rotate { account, auth }),
    ]
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![
        4 => (any::<u64>(), any_move()).prop_map(|(ledger, mv)| Slot::Clear { ledger: LedgerId(ledger), mv }),
        1 => (any::<u64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(ledger, group, hash)| Slot::Hidden {
            ledger: LedgerId(ledger),
            group: GroupId(group),
            hash: Hash32(hash),
        }),
    ]
}

fn any_body() -> impl Strategy<Value = TxBody> {
    (
        any::<u64>(),
        any::<[u8; 16]>(),
        prop::collection::vec(slot(), 1..=12),
        prop::collection::vec(any::<u8>(), 0..=256),
        any::<bool>(),
    )
        .prop_map(|(until, salt, mut slots, memo, one_ledger)| {
            let first = slots[0].ledger();
            for slot in slots.iter_mut().filter(|_| one_ledger) {
                let (Slot::Clear { ledger, .. } | Slot::Hidden { ledger, .. }) = slot;
                *ledger = first;
            }
            let valid_until_ms = TimeMs(until);
            let mut body = TxBody { version: 1, cluster: cluster(), valid_until_ms, salt, slots, memo };
            if body.spans_ledgers() {
                // One that several ledgers could read is refused.
                body.memo.clear();
            }
            body
        })
}

fn witness() -> impl Strategy<Value = Witness> {
    authorisation().prop_map(|auth| {
        let signatures = (0..auth.threshold()).map(|index| (index as u8, Signature([index as u8; 64]))).collect();
        Witness { auth, signatures }
    })
}

fn signed() -> impl Strategy<Value = SignedTx> {
    (any_body(), prop::collection::vec(witness(), 0..4)).prop_map(|(body, mut witnesses)| {
        // More witnesses than slots are refused: one for each voter is the most that is needed.
        witnesses.truncate(body.slots.len());
        SignedTx { version: 1, body: body.encode(), witnesses }
    })
}

/// Decoders of everything that comes from outside. None may panic.
fn decode_everything(bytes: &[u8]) {
    let _ = TxBody::decode(bytes);
    if let Ok(tx) = ParsedTx::decode(&cluster(), bytes) {
        let _ = tx.verify_signatures();
    }
    if let Ok(tx) = ParsedTx::decode_sent(&cluster(), bytes) {
        let _ = (tx.verify_signatures(), tx.deal(|_, _| None));
    }
    let _ = ledger::Submission::body_of(bytes);
    if let Ok(layout) = borsh::from_slice::<Layout>(bytes)
        && layout.well_formed()
    {
        let _ = layout.locate(&Address([1; 20]));
    }
    if let Ok(committee) = borsh::from_slice::<Committee>(bytes) {
        let _ = committee.well_formed();
    }
    let _ = borsh::from_slice::<Certificate>(bytes);
    let _ = borsh::from_slice::<Header>(bytes);
    let _ = borsh::from_slice::<Receipt>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn transactions_survive_the_wire_byte_for_byte(tx in signed()) {
        let bytes = tx.encode();
        prop_assert_eq!(&borsh::from_slice::<SignedTx>(&bytes).expect("own bytes"), &tx);
        let parsed = ParsedTx::decode(&cluster(), &bytes).expect("the form is right");
        prop_assert_eq!(parsed.body.encode(), tx.body.clone());
        prop_assert_eq!(&parsed.witnesses, &tx.witnesses);
        prop_assert_eq!(parsed.txid, tx.txid(&cluster()));
        let other = ClusterId(Hash32([1; 32]));
        prop_assert_ne!(tx.txid(&other), parsed.txid);
    }

    #[test]
    fn what_decodes_has_no_second_encoding(tx in signed(), at in any::<prop::sample::Index>(), mask in 1u8..) {
        let mut bytes = tx.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        decode_everything(&bytes);
        if let Ok(changed) = borsh::from_slice::<SignedTx>(&bytes) {
            prop_assert_ne!(&changed, &tx);
            prop_assert_eq!(changed.encode(), bytes);
        }
        let mut body = tx.body.clone();
        let at = at % body.len();
        body[at] ^= mask;
        if let Ok(changed) = TxBody::decode(&body) {
            prop_assert_eq!(changed.encode(), body);
        }
    }

    #[test]
    fn no_bytes_bring_a_decoder_down(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_edited_transaction_brings_a_decoder_down(
        tx in signed(),
        cut in any::<prop::sample::Index>(),
        insert in prop::collection::vec(any::<u8>(), 0..8),
        drop in 0usize..8,
    ) {
        let mut bytes = tx.encode();
        let at = cut.index(bytes.len());
        let end = (at + drop).min(bytes.len());
        bytes.splice(at..end, insert);
        decode_everything(&bytes);
    }

    #[test]
    fn any_shard_prefixes_are_judged_without_panic(
        shards in prop::collection::vec((any::<u64>(), any::<u8>(), any::<u32>()), 0..6),
        key in any::<[u8; 32]>(),
    ) {
        let shards: Vec<_> = shards
            .into_iter()
            .map(|(bits, length, ordinal)| ledger::ShardRange {
                group: GroupId::shard(ordinal),
                prefix: ledger::BitPrefix { bits, length },
            })
            .collect();
        for shard in &shards {
            let _ = (shard.prefix.covers(&key), shard.prefix.to_string());
        }
        let _ = Layout { shards, ..Layout::even(1) }.well_formed();
    }
}
