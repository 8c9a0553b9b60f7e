//! Whole groups in one process: order, loss of nodes and files, catching up, floods, and what is refused.

mod durable;
mod floods;
mod formats;
mod lent;
mod order;
mod records;
mod returning;
mod support;
