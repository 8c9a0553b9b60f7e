//! Whole groups in one process: order, loss of nodes and files, catching up, and what is refused.

mod lent;
mod order;
mod records;
mod returning;
mod support;
