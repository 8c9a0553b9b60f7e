//! Load on a cluster: real signed payments through a router, and an account of what became of them.
//!
//! Owns keys for account strings, the asset of a run and its first distribution ([`stage`]),
//! signing ahead ([`sign`]), sending by a schedule ([`replay`]), the benchmark ([`bench`]) and its
//! transactions ([`workload`]), the founding of channels ([`channels`]), the benchmark inside them ([`beside`])
//! and of joining one ([`join`]), that of one engine beside the other ([`engines`]) and of going from one to the other
//! ([`switch`]), that of a node that takes a replica over ([`takeover`]), that of a shard that is cut and joined ([`reshape`]), and
//! what they measure. It starts no cluster and prints nothing but progress.

pub mod agree;
pub mod bench;
pub mod beside;
pub mod channels;
mod checked;
mod counted;
mod drive;
pub mod engines;
pub mod join;
pub mod latency;
pub mod machine;
pub mod oracle;
pub mod replay;
pub mod reshape;
pub mod sign;
mod source;
pub mod stage;
mod steady;
pub mod switch;
pub mod takeover;
mod wait;
pub mod workload;

/// Wall-clock time of one part of a run, in the order they happened.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
}

/// Takes the time of one part after the other.
#[derive(Debug)]
pub struct Phases {
    since: std::time::Instant,
    done: Vec<Phase>,
}

impl Phases {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self { since: std::time::Instant::now(), done: Vec::new() }
    }

    /// Ends the part that ran until now.
    pub fn end(&mut self, name: &'static str) {
        let seconds = crate::output::rounded(self.since.elapsed().as_secs_f64());
        self.done.push(Phase { name, seconds });
        self.since = std::time::Instant::now();
    }

    /// All parts.
    #[must_use]
    pub fn finish(self) -> Vec<Phase> {
        self.done
    }
}
