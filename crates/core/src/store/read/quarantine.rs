//! Why nothing of a layer is served any more.

use std::sync::OnceLock;

use tokio::sync::Notify;

/// Whether something is quarantined, and why. Only the first reason counts.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    reason: OnceLock<String>,
    begun: Notify,
}

impl Quarantine {
    /// Begins it; says whether it had not begun before.
    pub(super) fn begin(&self, reason: String) -> bool {
        let is_first = self.reason.set(reason).is_ok();
        if is_first {
            self.begun.notify_waiters();
        }
        is_first
    }

    /// The reason, once there is one.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Ends when it begins.
    pub(super) async fn until_begun(&self) {
        let begun = self.begun.notified();
        if self.reason().is_none() {
            begun.await;
        }
    }
}
