//! The kinds of trouble a run can be about, and their names.

use std::fmt;
use std::str::FromStr;

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What kind of trouble a run is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scenario { $($(#[$doc])* $name,)* }

        impl Scenario {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the command line and in reports.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

scenarios! {
    /// Nothing goes wrong, except that routers die.
    Calm = "calm";
    /// Loss, repetition and reordering.
    Lossy = "lossy";
    /// Nodes lose power, one by one or all together.
    Crashes = "crashes";
    /// Leaders are cut off, stopped and killed.
    Leaders = "leaders";
    /// The network falls apart, in one direction or both.
    Partitions = "partitions";
    /// Disks are slow, and power goes while they are.
    Disks = "disks";
    /// Clocks are wrong and jump.
    Clocks = "clocks";
    /// Most routers die in the middle of handing over; strangers hand over, too.
    Routers = "routers";
    /// Nodes do not pull, do not serve, serve late, or alter what they serve.
    Anchors = "anchors";
    /// The beacon is slow or cut off.
    Beacon = "beacon";
    /// All machines are suspended for longer than transactions are valid.
    Leaps = "leaps";
    /// Replicas of an incarnation that has ended send forged mail.
    Ghosts = "ghosts";
    /// One node is gone for good, and the others have to drain without it.
    Minority = "minority";
    /// All of it.
    Storm = "storm";
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchScenario(pub String);

impl fmt::Display for NoSuchScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        write!(f, "there is no scenario '{}'; use one of: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoSuchScenario {}

impl FromStr for Scenario {
    type Err = NoSuchScenario;

    fn from_str(text: &str) -> Result<Self, NoSuchScenario> {
        let found = Self::ALL.iter().find(|scenario| scenario.name() == text);
        found.copied().ok_or_else(|| NoSuchScenario(text.to_owned()))
    }
}
