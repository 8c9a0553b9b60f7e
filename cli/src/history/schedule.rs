//! The order in which a replay may send its payments, behind one interface.
//!
//! The driver asks [`Schedule::ready`] for transfers whenever it has room in
//! flight, and reports back what became of each: first
//! [`Schedule::committed`], then [`Schedule::visible`]; or
//! [`Schedule::rejected`]. It is done when [`Schedule::is_finished`].

use super::{Balances, Causal, History, OutOfTurn, flight::Flight};

/// The orders a replay can keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// No payment is sent before what funds it is visible to its payer.
    #[default]
    Causal,
    /// Everything at once, in the order of the input.
    None,
}

/// A running order.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// See [`Causal`].
    Causal(Causal),
    /// See [`AllAtOnce`].
    None(AllAtOnce),
}

impl Schedule {
    /// An order over all transfers of a history.
    #[must_use]
    pub fn new(order: Order, history: &History, opening: &Balances) -> Self {
        match order {
            Order::Causal => Self::Causal(Causal::new(history, opening)),
            Order::None => Self::None(AllAtOnce::new(history)),
        }
    }

    /// Up to `max` transfers to send now, as indices into
    /// [`History::transfers`]. Each is handed out once.
    pub fn ready(&mut self, max: usize) -> Vec<u32> {
        match self {
            Self::Causal(order) => order.ready(max),
            Self::None(order) => order.ready(max),
        }
    }

    /// The debit of a sent transfer was applied.
    ///
    /// # Errors
    /// When that was reported before, or the transfer is not in flight.
    pub fn committed(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        match self {
            Self::Causal(order) => order.committed(transfer),
            Self::None(order) => order.flight.commit(transfer),
        }
    }

    /// The credit of a sent transfer was applied at its payee. Says also that
    /// it was committed, where that was not reported.
    ///
    /// # Errors
    /// As [`Schedule::committed`].
    pub fn visible(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        match self {
            Self::Causal(order) => order.visible(transfer),
            Self::None(order) => order.flight.show(transfer).map(|_| ()),
        }
    }

    /// The ledger refused a sent transfer for good; nothing moved.
    ///
    /// # Errors
    /// As [`Schedule::committed`].
    pub fn rejected(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        match self {
            Self::Causal(order) => order.rejected(transfer),
            Self::None(order) => order.flight.reject(transfer),
        }
    }

    /// Transfers handed out whose end was not reported.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flight().in_flight()
    }

    /// Transfers not handed out yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.flight().unsent()
    }

    /// Every transfer was sent and its end reported.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.flight().is_finished()
    }

    /// Nothing is in flight or can be sent, yet some transfers remain: a
    /// payment that others were waiting for was rejected against expectation.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let nothing_ready = match self {
            Self::Causal(order) => order.nothing_ready(),
            Self::None(_) => self.unsent() == 0,
        };
        nothing_ready && self.in_flight() == 0 && !self.is_finished()
    }

    fn flight(&self) -> &Flight {
        match self {
            Self::Causal(order) => &order.flight,
            Self::None(order) => &order.flight,
        }
    }
}

/// No order at all: every transfer may be sent from the start.
#[derive(Clone, Debug)]
pub struct AllAtOnce {
    next: u32,
    transfers: u32,
    flight: Flight,
}

impl AllAtOnce {
    fn new(history: &History) -> Self {
        let transfers = u32::try_from(history.transfers.len()).unwrap_or(u32::MAX);
        Self { next: 0, transfers, flight: Flight::new(transfers as usize) }
    }

    fn ready(&mut self, max: usize) -> Vec<u32> {
        let many = u32::try_from(max).unwrap_or(u32::MAX).min(self.transfers - self.next);
        let handed: Vec<u32> = (self.next..self.next + many).collect();
        self.next += many;
        handed.iter().for_each(|&transfer| self.flight.send(transfer));
        handed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::HistoryReader;

    #[test]
    fn all_at_once_hands_out_everything_in_the_order_of_the_input() {
        let mut reader = HistoryReader::default();
        reader.add("h", &b"from,to,amount\na,b,1\nb,c,1\nc,a,1\n"[..]).unwrap();
        let history = reader.finish();
        let mut schedule = Schedule::new(Order::None, &history, &Balances::default());
        assert_eq!(schedule.ready(2), [0, 1]);
        assert_eq!(schedule.ready(usize::MAX), [2]);
        assert_eq!(schedule.ready(9), Vec::<u32>::new());
        schedule.visible(2).unwrap();
        schedule.committed(0).unwrap();
        schedule.visible(0).unwrap();
        assert!(schedule.visible(0).is_err());
        assert!(!schedule.is_finished() && !schedule.is_stalled());
        schedule.rejected(1).unwrap();
        assert!(schedule.is_finished() && !schedule.is_stalled());
    }
}
