//! Work that is pure CPU: on threads where nobody waits for it to let others go on, never more of
//! it at a time than there are cores.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The turns on the cores of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Cores(Arc<Semaphore>);

impl Default for Cores {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

impl Cores {
    /// Does `work` on this thread when a core is free, which lets others of the runtime's threads
    /// go on meanwhile. Needs a runtime of several threads. `None`: the program ends.
    pub(crate) async fn run_here<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        Some(tokio::task::block_in_place(work))
    }

    /// Does `work` when a core is free. `None`: it panicked, or the program ends.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let span = tracing::Span::current();
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(work)
        });
        working.await.ok()
    }
}
