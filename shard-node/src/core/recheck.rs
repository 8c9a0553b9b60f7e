//! The client signatures of a block that stands in the database: what a replica in `verify = every`
//! has to check again before it attests, when it does not know that it has checked the block.

use ledger::ids::Height;
use ledger::merkle;
use ledger::schema;
use ledger::tx::ParsedTx;
use ledger::view::{ReadFault, View};
use ledger::{Hash32, Header};

use crate::core::entry::{Command, Entry};
use crate::core::records::ReceiptPlace;

/// The transactions of a block whose signatures decide, as at the block's first execution: all but
/// those that had their receipt already. `None` when the entry that is stored is not the one that the
/// header commits to, which is as good as a forged signature.
///
/// # Errors
/// [`ReadFault`] when the database fails, or lacks the block.
pub fn transactions(view: &mut View<'_>, height: Height) -> Result<Option<Vec<ParsedTx>>, ReadFault> {
    let header: Option<Header> = view.load(&schema::header(height));
    let payload = view.get(&schema::entry(height));
    let (Some(header), Some(payload)) = (header, payload) else {
        let missing = ReadFault(format!("block {height} has no header or no entry"));
        return Err(view.fault().cloned().unwrap_or(missing));
    };
    let entry = Entry::decode(&payload);
    let hashes: Vec<Hash32> = entry.commands.iter().map(Command::hash).collect();
    if merkle::root(&hashes) != header.batch_root {
        return Ok(None);
    }
    let mut txs = Vec::new();
    for command in &entry.commands {
        let Command::Tx(bytes) = command else { continue };
        let Ok(tx) = ParsedTx::decode(&header.cluster, bytes) else { continue };
        let place: Option<ReceiptPlace> = view.load(&schema::receipt(&tx.txid));
        if place.is_none_or(|place| place.height >= height) {
            txs.push(tx);
        }
    }
    match view.fault() {
        Some(fault) => Err(fault.clone()),
        None => Ok(Some(txs)),
    }
}
