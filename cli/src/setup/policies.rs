//! Policies of a new cluster as people write them.
//!
//! Splits and collects; whether a policy can be is for `beacon::policies`, which judges the genesis.

use std::collections::BTreeMap;

use super::genesis::SpecError;

/// A policy in full: `any`, `all` and `majority` alone are meant over the admins of the members.
#[must_use]
pub fn whole(text: &str) -> String {
    match text.trim() {
        word @ ("any" | "all" | "majority") => format!("{word}(members.admin)"),
        other => other.to_owned(),
    }
}

/// What `MATTER=POLICY` texts state, each matter once.
///
/// # Errors
/// [`SpecError::Policy`] when one is of another form, or a matter is there twice.
pub fn stated(texts: &[String]) -> Result<BTreeMap<String, String>, SpecError> {
    let mut policies = BTreeMap::new();
    for text in texts {
        let Some((matter, policy)) = text.split_once('=') else {
            return Err(SpecError::Policy(format!("'{text}' is not MATTER=POLICY")));
        };
        if policies.insert(matter.trim().to_owned(), whole(policy)).is_some() {
            return Err(SpecError::Policy(format!("the policy of '{}' is given twice", matter.trim())));
        }
    }
    Ok(policies)
}
