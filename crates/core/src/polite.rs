//! Threads for work that nobody waits for.

use tokio::sync::oneshot;

/// The lowest priority there is.
const NICE: i32 = 19;

/// Starts `work` on a thread that gets what others leave of the processor. The answer never comes
/// if it cannot be started, or panics.
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("imgfs-proof".to_owned());
    let span = tracing::Span::current();
    let started = thread.spawn(move || {
        let _entered = span.entered();
        // On Linux this concerns the calling thread alone. Without it the work is only less polite.
        let _ignored = rustix::process::setpriority_process(None, NICE);
        // The asker may be gone.
        let _gone = sender.send(work());
    });
    if let Err(err) = started {
        tracing::debug!("no thread for work beside: {err}");
    }
    receiver
}
