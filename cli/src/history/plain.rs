//! The plain layout: a header that names `from`, `to` and `amount`, in any
//! order and among any other columns. The order of rows is the order of
//! execution. It is tried first, so a file that has these three is read by them.

use super::{
    layout::{Columns, Header, Layout},
    read::HistoryError,
};

pub(super) fn columns(header: &Header) -> Result<Option<Columns>, HistoryError> {
    let found = (header.find("from")?, header.find("to")?, header.find("amount")?);
    let (Some(from), Some(to), Some(amount)) = found else {
        return Ok(None);
    };
    Ok(Some(Columns { layout: Layout::Plain, from, to, amount }))
}
