//! The mapping on the block that ships with it, held to what the block itself
//! can prove.

use std::collections::BTreeMap;

use super::*;
use crate::history::{Transfer, execute, opening};

fn block() -> Block {
    encode::deserialize(bitcoin_test_data::blocks::mainnet_702861()).unwrap()
}

#[test]
fn every_output_with_a_value_is_one_transfer() {
    let (block, history) = (block(), mainnet_702861().unwrap());
    let outputs = || block.txdata.iter().flat_map(|transaction| &transaction.output);
    let sum: u128 = outputs().map(|output| u128::from(output.value.to_sat())).sum();
    assert_eq!(history.rows, outputs().count() as u64);
    assert_eq!(history.transfers.iter().map(|transfer| transfer.amount).sum::<u128>(), sum);
    let skipped = outputs().filter(|output| output.value.to_sat() == 0).count() as u64;
    assert_eq!(history.skipped.zero_amount, skipped);
    assert_eq!(history.rows, history.transfers.len() as u64 + skipped);
    assert_eq!((history.skipped.no_receiver, history.malformed.total), (0, 0));
    for pair in history.transfers.windows(2) {
        assert!(pair[0].line < pair[1].line);
    }
}

#[test]
fn the_coinbase_pays_the_miner() {
    let history = mainnet_702861().unwrap();
    let (from, to) = history.names(&history.transfers[0]);
    assert_eq!(from, COINBASE);
    assert!(to.parse::<Address<bitcoin::address::NetworkUnchecked>>().is_ok(), "{to}");
    let paid_by_coinbase = |t: &&Transfer| history.names(t).0 == COINBASE;
    assert_eq!(history.transfers.iter().filter(paid_by_coinbase).count(), 1);
}

/// Where an input spends an output of the same block, its owner is known for
/// sure; the rules that work without that knowledge must agree.
#[test]
fn what_an_input_reveals_is_what_it_spends() {
    let block = block();
    let mut scripts = BTreeMap::new();
    for transaction in &block.txdata {
        let txid = transaction.compute_txid();
        for (vout, output) in (0u32..).zip(&transaction.output) {
            scripts.insert(OutPoint { txid, vout }, &output.script_pubkey);
        }
    }
    let (mut checked, mut unknown) = (0, 0);
    for input in block.txdata.iter().skip(1).flat_map(|transaction| &transaction.input) {
        let Some(script) = scripts.get(&input.previous_output) else {
            continue;
        };
        match revealed(input) {
            Some(told) => {
                assert_eq!(&told, *script, "{}", input.previous_output);
                checked += 1;
            }
            None => unknown += 1,
        }
    }
    assert!(checked > 100, "{checked}");
    assert_eq!(unknown, 0);
}

#[test]
fn almost_every_payer_has_an_address() {
    let history = mainnet_702861().unwrap();
    let nameless = |t: &&Transfer| history.names(t).0.starts_with("outpoint:");
    let nameless = history.transfers.iter().filter(nameless).count();
    assert!(nameless * 100 < history.transfers.len(), "{nameless}");
}

#[test]
fn the_history_is_the_same_each_time_and_can_be_executed() {
    let (one, two) = (mainnet_702861().unwrap(), mainnet_702861().unwrap());
    assert_eq!(one.transfers, two.transfers);
    assert_eq!((one.transfers.len(), one.accounts.len()), (5_992, 7_778));
    assert!(one.accounts.iter().eq(two.accounts.iter()));
    let opening = opening::auto(&one).unwrap();
    assert!(execute(&one, &opening).rejected.is_empty());
}

#[test]
fn bytes_that_are_no_block_are_an_error() {
    let whole = bitcoin_test_data::blocks::mainnet_702861();
    let mut longer = whole.to_vec();
    longer.push(0);
    for bytes in [&[][..], &whole[..80], &whole[..whole.len() - 1], &longer, &[0xff; 200]] {
        let error = from_bytes("block", bytes).unwrap_err();
        assert_eq!(error.code(), "HISTORY_BLOCK");
        assert!(error.to_string().starts_with("block: "), "{error}");
    }
}
