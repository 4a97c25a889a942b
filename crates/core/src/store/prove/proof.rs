//! How far a layer is on its way from an index that somebody claims to one that was made here.
//!
//! ```text
//! NotAsked                                 its index is its own, or nobody asked
//! Waiting ──> Fetching ──> Checking ──> Proven
//!    │           │  └<─ wrong bytes ─┤
//!    └───────────┴───────────────────┴─> Contradicted, Stopped
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Whether a layer's index says the truth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nobody wants to know.
    #[default]
    NotAsked,
    /// Its turn has not come, or another process is at it.
    Waiting,
    /// The rest of the blob is being fetched. Bytes of the blob.
    Fetching {
        /// Those that are here.
        here: u64,
        /// All of them.
        all: u64,
    },
    /// All of the blob is here: the index is made anew and compared.
    Checking,
    /// It does: the layer's own index says the same, and is in the cache.
    Proven,
    /// It does not: the layer is quarantined.
    Contradicted {
        /// What differs first.
        what: String,
    },
    /// It will not be known in this mount.
    Stopped {
        /// Why not.
        why: String,
    },
}

/// A step of a proof, without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofStep {
    /// Its turn has not come.
    Waiting,
    /// The rest of the blob is being fetched.
    Fetching,
    /// The index is made anew and compared.
    Checking,
    /// The index is right.
    Proven,
    /// It is not: the layer is quarantined.
    Contradicted,
    /// It will not be known in this mount.
    Stopped,
}

impl Proof {
    /// How far it is; nothing where nobody asked.
    pub fn step(&self) -> Option<ProofStep> {
        match self {
            Self::NotAsked => None,
            Self::Waiting => Some(ProofStep::Waiting),
            Self::Fetching { .. } => Some(ProofStep::Fetching),
            Self::Checking => Some(ProofStep::Checking),
            Self::Proven => Some(ProofStep::Proven),
            Self::Contradicted { .. } => Some(ProofStep::Contradicted),
            Self::Stopped { .. } => Some(ProofStep::Stopped),
        }
    }

    /// Whether `next` may come after it.
    fn may_become(&self, next: &Self) -> bool {
        use Proof::{Checking, Contradicted, Fetching, NotAsked, Proven, Stopped, Waiting};
        match self {
            // When the layer is opened.
            NotAsked => matches!(next, Waiting),
            // Its turn came; `Checking` if another process has made the layer's own index
            // meanwhile, `Contradicted` if reads have found it wrong.
            Waiting => matches!(
                next,
                Fetching { .. } | Checking | Contradicted { .. } | Stopped { .. }
            ),
            // More came, or all; `Stopped` if the disk is full, for one.
            Fetching { .. } => matches!(
                next,
                Fetching { .. } | Checking | Contradicted { .. } | Stopped { .. }
            ),
            // `Fetching` again if the blob's digest is wrong and somebody may have the right bytes,
            // `Checking` again if comparing needs bytes that cannot be had now.
            Checking => matches!(
                next,
                Fetching { .. } | Checking | Proven | Contradicted { .. } | Stopped { .. }
            ),
            // What is said stays said.
            Proven | Contradicted { .. } | Stopped { .. } => false,
        }
    }

    /// Whether it will not change any more.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::NotAsked | Self::Proven | Self::Contradicted { .. } | Self::Stopped { .. } => {
                true
            }
            Self::Waiting | Self::Fetching { .. } | Self::Checking => false,
        }
    }
}

/// A layer's [`Proof`] as it changes.
#[derive(Default)]
pub(in crate::store) struct ProofCell(Mutex<Proof>);

impl ProofCell {
    pub(in crate::store) fn get(&self) -> Proof {
        self.lock().clone()
    }

    /// Moves on. Any other move is a fault of this program, and leaves it as it was.
    pub(in crate::store) fn set(&self, next: Proof) {
        let mut proof = self.lock();
        let is_legal = proof.may_become(&next);
        debug_assert!(is_legal, "from {proof:?} to {next:?}");
        if is_legal {
            *proof = next;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Proof> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_final() {
        let fetching = |here| Proof::Fetching { here, all: 9 };
        let what = || "x".to_owned();
        let all = [
            Proof::NotAsked,
            Proof::Waiting,
            fetching(1),
            Proof::Checking,
            Proof::Proven,
            Proof::Contradicted { what: what() },
            Proof::Stopped { why: what() },
        ];
        // From each, in the order above, to each.
        let legal = [
            [0, 1, 0, 0, 0, 0, 0],
            [0, 0, 1, 1, 0, 1, 1],
            [0, 0, 1, 1, 0, 1, 1],
            [0, 0, 1, 1, 1, 1, 1],
            [0; 7],
            [0; 7],
            [0; 7],
        ];
        for (from, row) in all.iter().zip(legal) {
            for (to, expected) in all.iter().zip(row) {
                let found = u8::from(from.may_become(to));
                assert_eq!(found, expected, "from {from:?} to {to:?}");
            }
        }
    }
}
