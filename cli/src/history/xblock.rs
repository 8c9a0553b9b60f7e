//! The XBlock layout that block-emulator reads:
//! `blockNumber,timestamp,transactionHash,from,to,toCreate,fromIsContract,`
//! `toIsContract,value,…`, found by name, so later columns may differ.
//!
//! The files are in chain order, which is kept. A contract creation has `None`
//! for `to` and the new address in `toCreate`; it is a row without a receiver.
//! Payments from and to contracts count like any other.

use super::{
    layout::{Columns, Header, Layout},
    read::HistoryError,
};

pub(super) fn columns(header: &Header) -> Result<Option<Columns>, HistoryError> {
    let found = (header.find("from")?, header.find("to")?, header.find("value")?);
    let (Some(from), Some(to), Some(amount)) = found else {
        return Ok(None);
    };
    // `from,to,value` alone could be anything; these two make it XBlock.
    if header.find("blocknumber")?.is_none() || header.find("tocreate")?.is_none() {
        return Ok(None);
    }
    Ok(Some(Columns { layout: Layout::XBlock, from, to, amount }))
}
