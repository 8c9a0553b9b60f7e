//! Why a replica cannot go on, in the words of what failed first.
//!
//! openraft tells that storing failed and wraps the cause into words of its own; an operator needs
//! the code, the file and what to do. Whoever hands openraft an error notes it here before.

use std::sync::Arc;

use parking_lot::Mutex;

/// The first failure of a replica. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    /// Keeps the cause, unless there was one before: later ones are its consequences.
    pub(crate) fn note(&self, cause: &str) {
        self.0.lock().get_or_insert_with(|| cause.to_owned());
    }

    /// What failed first.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
