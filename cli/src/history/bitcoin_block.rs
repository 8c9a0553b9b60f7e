//! A Bitcoin block as a history of payments between accounts.
//!
//! A block says who is paid and how much, but its inputs only point at outputs
//! of earlier blocks: neither their values nor their owners are in it. The
//! mapping uses what the block does say, and nothing else:
//!
//! - **One output with a value is one transfer**, in the order of the block; its
//!   amount is in satoshi. Outputs of value zero (data carriers) are skipped.
//!   [`Transfer::line`](super::Transfer::line) counts the outputs of the block
//!   from 1.
//! - **The payee** is the owner of the output's script: its mainnet address, or
//!   `script:` and the HASH160 of the script where it has no address.
//! - **The payer** of all outputs of a transaction is the owner of its *first
//!   input*, since the block cannot tell which input pays for which output:
//!   1. the output's own script, if the input spends an output of this block;
//!   2. else the address that the input reveals by spending it: P2WPKH and P2PKH
//!      by the public key, P2SH by the redeem script, P2WSH by the witness
//!      script. Which of these it is, is told by the shape of what is shown; a
//!      test holds this to every input whose script is known from the block;
//!   3. else `outpoint:TXID:N`, an owner known only by the output it spends.
//! - **The coinbase transaction** is paid by the account `coinbase`.
//!
//! Change that returns to the payer's own address is a payment to oneself. Fees
//! stay with the payer, as they are on no output; the coinbase pays them out
//! again. Both are why a replay takes its opening balances from
//! [`super::opening::auto`] and is a realistic load, not a copy of the chain.

use std::collections::BTreeMap;

use bitcoin::{
    Address, Block, Network, OutPoint, PubkeyHash, Script, ScriptBuf, Transaction, TxIn, Txid, WPubkeyHash,
    consensus::encode,
    hashes::Hash,
    script::{Instruction, PushBytes},
};

use super::{
    History,
    read::{HistoryError, HistoryReader},
};

/// The account that pays what a coinbase transaction hands out.
pub const COINBASE: &str = "coinbase";

/// Mainnet block 702861 (2,500 transactions), as the crate `bitcoin-test-data`
/// ships it: 5,992 transfers between 7,778 accounts.
///
/// # Errors
/// When the shipped bytes are damaged.
pub fn mainnet_702861() -> Result<History, HistoryError> {
    from_bytes("mainnet block 702861", bitcoin_test_data::blocks::mainnet_702861())
}

/// Maps one block in the network's own encoding; `name` is used in messages.
///
/// # Errors
/// When the bytes are not exactly one block.
pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<History, HistoryError> {
    let block: Block =
        encode::deserialize(bytes).map_err(|error| HistoryError::Block { reason: error.to_string() }.in_file(name))?;
    map(name, &block)
}

fn map(name: &str, block: &Block) -> Result<History, HistoryError> {
    let mut reader = HistoryReader::default();
    reader.begin(name);
    let mut earlier = Earlier::new();
    let mut line = 0;
    for transaction in &block.txdata {
        let payer = match transaction.input.first() {
            Some(input) if !transaction.is_coinbase() => payer(input, &earlier),
            _ => COINBASE.to_owned(),
        };
        for output in &transaction.output {
            line += 1;
            let payee = owner(&output.script_pubkey);
            reader.push(line, &payer, &payee, u128::from(output.value.to_sat()))?;
        }
        earlier.insert(transaction.compute_txid(), transaction);
    }
    Ok(reader.finish())
}

/// The transactions of this block that an input may point at.
type Earlier<'b> = BTreeMap<Txid, &'b Transaction>;

fn script_spent<'b>(earlier: &Earlier<'b>, outpoint: OutPoint) -> Option<&'b Script> {
    let output = earlier.get(&outpoint.txid)?.output.get(outpoint.vout as usize)?;
    Some(&output.script_pubkey)
}

/// The account of whoever may spend a script.
fn owner(script: &Script) -> String {
    match Address::from_script(script, Network::Bitcoin) {
        Ok(address) => address.to_string(),
        Err(_) => format!("script:{}", script.script_hash()),
    }
}

fn payer(input: &TxIn, earlier: &Earlier<'_>) -> String {
    if let Some(script) = script_spent(earlier, input.previous_output) {
        return owner(script);
    }
    match revealed(input) {
        Some(script) => owner(&script),
        None => {
            let OutPoint { txid, vout } = input.previous_output;
            format!("outpoint:{txid}:{vout}")
        }
    }
}

/// The script an input must have spent, told from what it shows to spend it.
fn revealed(input: &TxIn) -> Option<ScriptBuf> {
    let pushes = pushes(&input.script_sig)?;
    let witness: Vec<&[u8]> = input.witness.iter().collect();
    match (pushes.as_slice(), witness.as_slice()) {
        // Native witness programs: nothing in the script.
        ([], [signature, key]) if is_signature(signature) && is_key(key, true) => {
            Some(ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(key)))
        }
        ([], [.., script]) if witness.len() > 1 && !is_taproot(&witness) => {
            Some(ScriptBuf::new_p2wsh(&Script::from_bytes(script).wscript_hash()))
        }
        // A witness program inside P2SH: the program is all there is.
        ([program], [_, ..]) if Script::from_bytes(program).is_witness_program() => {
            Some(ScriptBuf::new_p2sh(&Script::from_bytes(program).script_hash()))
        }
        ([signature, key], []) if is_signature(signature) && is_key(key, false) => {
            Some(ScriptBuf::new_p2pkh(&PubkeyHash::hash(key)))
        }
        // The last push is a redeem script, unless it looks like the signature
        // that a bare multi-signature output ends with.
        ([_, .., redeem], []) if !redeem.is_empty() && !is_signature(redeem) => {
            Some(ScriptBuf::new_p2sh(&Script::from_bytes(redeem).script_hash()))
        }
        _ => None,
    }
}

/// What a script pushes, if it does nothing else; small numbers count as empty.
fn pushes(script: &Script) -> Option<Vec<&[u8]>> {
    if !script.is_push_only() {
        return None;
    }
    let bytes = |instruction| match instruction {
        Instruction::PushBytes(push) => PushBytes::as_bytes(push),
        Instruction::Op(_) => &[],
    };
    script.instructions().map(|instruction| instruction.ok().map(bytes)).collect()
}

/// DER followed by its sighash byte.
fn is_signature(bytes: &[u8]) -> bool {
    (9..=73).contains(&bytes.len()) && bytes[0] == 0x30 && usize::from(bytes[1]) + 3 == bytes.len()
}

fn is_key(bytes: &[u8], compressed_only: bool) -> bool {
    match bytes.len() {
        33 => matches!(bytes[0], 2 | 3),
        65 => !compressed_only && bytes[0] == 4,
        _ => false,
    }
}

/// A taproot script path ends with a control block (and maybe an annex), which
/// does not reveal the output key without curve arithmetic.
fn is_taproot(witness: &[&[u8]]) -> bool {
    let is_annex = |bytes: &[u8]| bytes.first() == Some(&0x50);
    let is_control = |bytes: &[u8]| bytes.len() >= 33 && bytes.len() % 32 == 1 && bytes[0] & 0xfe == 0xc0;
    witness.last().is_some_and(|last| is_annex(last) || is_control(last))
}

#[cfg(test)]
#[path = "bitcoin_block_tests.rs"]
mod tests;
