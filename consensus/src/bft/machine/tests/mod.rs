//! Machines in a group: what they decide, what liars cannot do, what comes back after a crash, how little they write, and
//! how little a flood takes.

mod bounds;
mod liars;
mod net;
mod order;
mod restart;
mod writes;
