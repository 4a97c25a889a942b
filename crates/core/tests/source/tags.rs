//! Listing the tags of a repository, page by page.

use super::*;

/// A registry with five tags of `a/b`, two on a page, and the names that a list must have.
fn five() -> (Registry, [&'static str; 5]) {
    let registry = Registry::start();
    let names = ["1.0", "2.0", "edge", "latest", "x_y-z"];
    for name in names {
        registry.put_manifest(
            "a/b",
            name,
            "application/json",
            format!("{{\"n\":\"{name}\"}}"),
        );
    }
    registry.put_manifest("a/other", "foreign", "application/json", "{}");
    (registry, names)
}

async fn list(registry: &Registry) -> Result<Vec<String>, SourceError> {
    let source = open(&registry.reference("a/b"), &options());
    source.tags().await
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    let (registry, names) = five();
    assert_eq!(list(&registry).await.unwrap(), names);
    let relative = "</v2/a/b/tags/list?QUERY>; rel=\"next\"".to_owned();
    let absolute = format!(
        "<http://{}/v2/a/b/tags/list?QUERY>; rel=next",
        registry.host()
    );
    for link in [relative, absolute] {
        registry.page_tags(2, &link);
        registry.forget_requests();
        assert_eq!(list(&registry).await.unwrap(), names, "{link}");
        let queries: Vec<_> = (registry.requests().iter())
            .map(|seen| seen.query.clone())
            .collect();
        assert_eq!(queries, ["n=1000", "last=2.0", "last=latest"], "{link}");
    }
}

#[tokio::test]
async fn lists_that_lead_astray_are_refused() {
    let (registry, _) = five();
    for (link, words) in [
        (
            "<https://evil.example/v2/a/b/tags/list?QUERY>; rel=next",
            "another host",
        ),
        ("<?n=1000>; rel=next", "circle"),
    ] {
        registry.page_tags(2, link);
        let err = list(&registry).await.unwrap_err().to_string();
        assert!(
            err.contains(words) && err.contains("tags of a/b"),
            "{link}: {err}"
        );
    }
}

#[tokio::test]
async fn a_list_needs_what_everything_else_needs() {
    let (registry, names) = five();
    registry.fault(On::Tags, Fault::Status(503));
    registry.fault(On::Tags, Fault::Drop);
    assert_eq!(list(&registry).await.unwrap(), names);
    registry.require_token(None);
    assert_eq!(list(&registry).await.unwrap(), names);
    registry.require_basic("user", "secret");
    let err = list(&registry).await.unwrap_err();
    assert!(matches!(err, SourceError::Denied { .. }), "{err}");
}

#[tokio::test]
async fn layouts_and_archives_list_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let image = small_image();
    let images = [("one", &image), ("two", &image)];
    write_layout(&dir.path().join("layout"), &images);
    let layout = format!("oci:{}:one", dir.path().join("layout").display());
    assert_eq!(
        open(&layout, &options()).tags().await.unwrap(),
        ["one", "two"]
    );
    let names = [("busybox:1", &image), ("busybox:2", &image)];
    for write in [write_old_archive, write_new_archive] {
        let file = dir.path().join("archive.tar");
        write(&file, &names);
        let archive = format!("docker-archive:{}:busybox:1", file.display());
        let tags = open(&archive, &options()).tags().await.unwrap();
        assert_eq!(tags, ["busybox:1", "busybox:2"]);
    }
}
