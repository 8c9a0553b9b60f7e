//! Whole groups in one process: order, loss of nodes and files, catching up, and what is refused.

mod durable;
mod order;
mod records;
mod returning;
mod support;
