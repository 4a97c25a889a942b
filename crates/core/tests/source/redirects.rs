//! Blobs on another host.

use super::authentication::credentials;
use super::faults::content;
use super::*;

#[tokio::test]
async fn redirects_carry_no_credentials_and_are_resolved_again_when_they_expire() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let storage = Registry::start();
    registry.redirect_blobs_to(&storage);
    registry.require_basic("user", "hunter2");
    let blob = registry.put_blob(content());
    let options = credentials(&dir, &registry.host(), "hunter2");
    let source = open(&registry.reference("r"), &options);
    let get = async |range| read(source.as_ref(), &blob, range).await.unwrap();
    assert_eq!(get(0..10).await, content()[..10]);
    assert_eq!(get(10..20).await, content()[10..20]);
    assert!(
        storage
            .requests()
            .iter()
            .all(|seen| seen.authorization.is_none())
    );
    let statuses = |registry: &Registry| -> Vec<u16> {
        registry.requests().iter().map(|seen| seen.status).collect()
    };
    assert_eq!(statuses(&registry), [401, 307], "the URL is kept");
    assert_eq!(statuses(&storage), [206, 206]);
    storage.expire_urls();
    assert_eq!(get(20..30).await, content()[20..30]);
    assert_eq!(statuses(&registry), [401, 307, 307]);
    assert_eq!(statuses(&storage), [206, 206, 403, 206]);
    // A storage that goes on refusing is asked as often as one that fails, each time by a new URL.
    storage.fault_always(On::Blob, Fault::Status(403));
    let err = read(source.as_ref(), &blob, 0..1)
        .await
        .unwrap_err()
        .to_string();
    assert!(err.contains("the storage refuses the URL"), "{err}");
    assert!(!err.contains("secret"), "{err}");
    assert_eq!(
        statuses(&storage),
        [206, 206, 403, 206, 403, 403, 403, 403, 403]
    );
    assert_eq!(statuses(&registry), [401, 307, 307, 307, 307, 307, 307]);
}
