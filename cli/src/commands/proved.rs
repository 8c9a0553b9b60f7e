//! Where an answer stands that has been proved, and the file that its proof was written to.

use std::path::Path;

use client::Answer;
use serde::Serialize;

use crate::error::CliError;

/// What proves an answer, for programs. It has been judged before the answer is shown.
#[derive(Debug, Serialize)]
pub(super) struct Proved {
    group: String,
    /// The block that the answer is of.
    height: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

impl Proved {
    /// Writes the proof of an answer to a file, if one is named.
    ///
    /// # Errors
    /// `file` when it cannot be written.
    pub(super) fn keep<T>(answer: &Answer<T>, out: Option<&Path>) -> Result<Self, CliError> {
        if let (Some(path), Some(proof)) = (out, &answer.proof) {
            std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
        }
        let proof = out.map(|path| path.display().to_string());
        Ok(Self { group: answer.group.to_string(), height: answer.height.0, proof })
    }

    pub(super) fn text(&self) -> String {
        let file = self.proof.as_ref().map_or_else(String::new, |file| format!("; the proof is in {file}"));
        format!("  proved by block {} of {}{file}", self.height, self.group)
    }
}
