//! How far each transfer has come. Shared by all orders; refuses reports that
//! do not fit, so that no credit is ever counted twice.

/// A report on a transfer that cannot be true at this point: it was never
/// handed out, or its end was already reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transfer {transfer} cannot be reported as {report} now")]
pub struct OutOfTurn {
    /// Index of the transfer.
    pub transfer: u32,
    /// What was reported.
    pub report: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unsent,
    Sent,
    Committed,
    Visible,
    Rejected,
}

/// The stage of every transfer and the counts that follow from it.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    stages: Vec<Stage>,
    sent: usize,
    ended: usize,
}

impl Flight {
    pub fn new(transfers: usize) -> Self {
        Self { stages: vec![Stage::Unsent; transfers], sent: 0, ended: 0 }
    }

    /// Sent, and neither rejected nor visible yet.
    pub fn in_flight(&self) -> usize {
        self.sent - self.ended
    }

    pub fn is_finished(&self) -> bool {
        self.ended == self.stages.len()
    }

    pub fn unsent(&self) -> usize {
        self.stages.len() - self.sent
    }

    pub fn send(&mut self, transfer: u32) {
        if let Some(stage @ Stage::Unsent) = self.stages.get_mut(transfer as usize) {
            *stage = Stage::Sent;
            self.sent += 1;
        }
    }

    /// The debit was applied.
    pub fn commit(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        match self.stages.get_mut(transfer as usize) {
            Some(stage @ Stage::Sent) => *stage = Stage::Committed,
            _ => {
                return Err(OutOfTurn { transfer, report: "committed" });
            }
        }
        Ok(())
    }

    /// The credit was applied. True if this also is the first news of the debit.
    pub fn show(&mut self, transfer: u32) -> Result<bool, OutOfTurn> {
        let first_news = match self.stages.get_mut(transfer as usize) {
            Some(stage @ (Stage::Sent | Stage::Committed)) => std::mem::replace(stage, Stage::Visible) == Stage::Sent,
            _ => {
                return Err(OutOfTurn { transfer, report: "visible" });
            }
        };
        self.ended += 1;
        Ok(first_news)
    }

    /// The ledger refused it for good.
    pub fn reject(&mut self, transfer: u32) -> Result<(), OutOfTurn> {
        match self.stages.get_mut(transfer as usize) {
            Some(stage @ Stage::Sent) => *stage = Stage::Rejected,
            _ => {
                return Err(OutOfTurn { transfer, report: "rejected" });
            }
        }
        self.ended += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_happen_next_is_taken() {
        let mut flight = Flight::new(3);
        assert_eq!(flight.commit(0), Err(OutOfTurn { transfer: 0, report: "committed" }));
        (0..3).for_each(|t| flight.send(t));
        flight.send(1);
        assert_eq!((flight.in_flight(), flight.unsent()), (3, 0));

        flight.commit(0).unwrap();
        assert!(flight.commit(0).is_err() && flight.reject(0).is_err());
        assert_eq!(flight.show(0), Ok(false));
        assert!(flight.show(0).is_err() && flight.commit(0).is_err());

        assert_eq!(flight.show(1), Ok(true));
        flight.reject(2).unwrap();
        assert!(flight.reject(2).is_err() && flight.show(2).is_err());
        assert_eq!(flight.in_flight(), 0);
        assert!(flight.is_finished());
        assert!(flight.show(3).is_err() && flight.commit(u32::MAX).is_err());
    }
}
