//! What must not be logged.

use super::authentication::credentials;
use super::*;

/// Collects what is logged.
#[derive(Clone, Default)]
pub struct Log(pub Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// To be called before a thread listens to the log. Which places log at all is decided once for the
/// process, by who listens when a place is first come by: a listener that is always there keeps
/// others from deciding for none.
pub fn keep_places_logging() {
    static LISTENER: std::sync::Once = std::sync::Once::new();
    LISTENER.call_once(|| {
        let nowhere = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(std::io::sink)
            .finish();
        tracing::subscriber::set_global_default(nowhere).unwrap();
    });
}

#[test]
fn logs_contain_no_secret() {
    keep_places_logging();
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let storage = Registry::start();
    registry.redirect_blobs_to(&storage);
    registry.require_token(Some(("user", "hunter2")));
    registry.put_image("r", "latest", &small_image());
    let options = credentials(&dir, &registry.host(), "hunter2");
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let source = open(&registry.reference("r"), &options);
            resolve_image(source.as_ref(), &linux(), None)
                .await
                .unwrap();
        });
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/token?"), "the dance was logged: {text}");
    assert!(
        text.contains("signature=***"),
        "redirects are logged: {text}"
    );
    // "dXNlcjpodW50ZXIy" is user:hunter2 in base64.
    for secret in ["hunter2", "dXNlcjpodW50ZXIy", "token-1", "secret0"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(!format!("{options:?}").contains("hunter2"));
}
