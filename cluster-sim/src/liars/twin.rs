//! A second machine of a node, with the same key, that knows nothing of the first.
//!
//! It hears what the first one hears, keeps nothing on any disk, and applies nothing: its committee stays, and where
//! another engine takes over it ends. After a restart it begins with the state of the first one, and has forgotten what it signed.

use std::collections::VecDeque;
use std::sync::Arc;

use consensus::bft::{Begin, Decided, Input, Machine, Message, Output, Settings};
use ledger::committee::Committee;
use ledger::ids::{NodeId, Tick};

use super::Scene;
use crate::wire::Wire;
use crate::wire::bft::BftWire;

/// The second machine.
pub(super) struct Twin {
    machine: Machine,
    committee: Arc<Committee>,
    /// What it wanted when it was made.
    first: Vec<Output>,
}

impl Twin {
    pub(super) fn new(settings: Settings, begin: Begin, now: Tick) -> Self {
        let (committee, mut first) = (Arc::clone(&begin.committee), Vec::new());
        Self { machine: Machine::new(settings, begin, now, &mut first), committee, first }
    }

    /// A member has said something. Returns how much the twin says to that.
    pub(super) fn hear(
        &mut self,
        scene: &Scene<'_>,
        from: NodeId,
        message: &Message,
        said: &mut Vec<(NodeId, Wire)>,
    ) -> u64 {
        self.run(scene, Input::Peer { from, message: message.clone() }, said)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) -> u64 {
        let due = self.machine.deadline().is_some_and(|deadline| deadline <= scene.now);
        if due { self.run(scene, Input::Tick, said) } else { 0 }
    }

    fn run(&mut self, scene: &Scene<'_>, input: Input, said: &mut Vec<(NodeId, Wire)>) -> u64 {
        let mut outputs = std::mem::take(&mut self.first);
        let (mut inputs, mut spoken) = (VecDeque::from([input]), 0);
        loop {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Persist { first, records } => {
                        inputs.push_back(Input::Persisted((first + records.len() as u64).saturating_sub(1)));
                    }
                    Output::Send { to, message } => {
                        spoken += 1;
                        said.push((to, scene.wire(message)));
                    }
                    Output::Judge { value, batch, agreed } => {
                        let valid = (scene.fit)(&batch, agreed);
                        inputs.push_back(Input::Judged { value, valid });
                    }
                    Output::Commit { decided, .. } => {
                        let committee = Arc::clone(&self.committee);
                        inputs.push_back(Input::Applied { index: decided.value.index, committee });
                    }
                    Output::Fetch { node, index } => {
                        said.push((node, scene.bft(BftWire::Ask { from: index })));
                    }
                    Output::Forget(_)
                    | Output::Fate { .. }
                    | Output::Standing(_)
                    | Output::Evidence(_)
                    | Output::Unremembered(_)
                    | Output::Stop(_) => {}
                }
            }
            let Some(input) = inputs.pop_front() else { return spoken };
            self.machine.step(scene.now, input, &mut outputs);
        }
    }

    /// Somebody has answered with what was decided.
    pub(super) fn decided(
        &mut self,
        scene: &Scene<'_>,
        from: NodeId,
        values: &[Decided],
        said: &mut Vec<(NodeId, Wire)>,
    ) -> u64 {
        let mut spoken = 0;
        for decided in values {
            spoken += self.run(scene, Input::Decided { from, decided: Box::new(decided.clone()) }, said);
        }
        spoken
    }
}
