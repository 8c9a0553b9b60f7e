//! `transactions.csv` of ethereum-etl: `from_address`, `to_address`, `value`.
//!
//! Rows are taken in the order of the file, which is the order that published
//! expected states are computed in; `block_number` and `transaction_index` are
//! not looked at. A contract creation has an empty `to_address`. The file does
//! not say whether a transaction failed on its chain; every row with a value is
//! a payment.

use super::{
    layout::{Columns, Header, Layout},
    read::HistoryError,
};

pub(super) fn columns(header: &Header) -> Result<Option<Columns>, HistoryError> {
    let found = (header.find("from_address")?, header.find("to_address")?, header.find("value")?);
    let (Some(from), Some(to), Some(amount)) = found else {
        return Ok(None);
    };
    Ok(Some(Columns { layout: Layout::EthereumEtl, from, to, amount }))
}
