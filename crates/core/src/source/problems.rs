//! The problems of hosts that were passed over: each is said once, and kept for the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last problem of each host that was passed over, by its place in the list.
#[derive(Debug, Default)]
pub(super) struct Problems {
    hosts: Mutex<BTreeMap<usize, String>>,
}

impl Problems {
    /// Number `position` of the list, called `name`, has this problem.
    pub(super) fn report(&self, position: usize, name: &str, problem: &str) {
        // Many begin with the host's name, as they stand alone elsewhere.
        let problem = problem
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(": "))
            .unwrap_or(problem);
        let text = format!("{name} was passed over: {problem}");
        if self.lock().insert(position, text).is_none() {
            tracing::warn!("{name} is passed over for the next host: {problem}");
        } else {
            tracing::debug!("{name} is passed over for the next host: {problem}");
        }
    }

    /// For people: each host's.
    pub(super) fn each(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
