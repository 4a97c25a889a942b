//! Writing to a registry, and finding what belongs to a manifest.

use imgfs_formats::oci::{Artifact, Digest, EMPTY_CONFIG, INDEX_ARTIFACT};
use std::sync::atomic::{AtomicU64, Ordering};

use imgfs_core::source::{Credential, Placed, Pusher, Secret, WatchUpload, push_to};

use super::*;
use crate::support::registry::Uploads;

fn pusher(reference: &str, options: &Options) -> Pusher {
    push_to(&reference.parse().unwrap(), options).unwrap()
}

/// An artifact that belongs to `subject`, and to nobody else.
fn artifact(subject: &Descriptor) -> Bytes {
    let artifact = Artifact {
        subject: Some(subject.clone()),
        indexes: Vec::new(),
    };
    artifact.encode().into()
}

/// Pushes an artifact for an image that is there.
async fn add(pusher: &Pusher, subject: &Descriptor) -> Result<Descriptor, SourceError> {
    let manifest = artifact(subject);
    let descriptor = Artifact::descriptor(&manifest);
    pusher
        .put_blob(&Bytes::from_static(EMPTY_CONFIG), None)
        .await?;
    pusher
        .add_referrer(&subject.digest, &descriptor, &manifest)
        .await?;
    Ok(descriptor)
}

#[tokio::test]
async fn a_blob_is_sent_once_and_to_the_place_that_was_named() {
    for uploads in [Uploads::Relative, Uploads::Absolute] {
        let registry = Registry::start();
        registry.uploads(uploads);
        let pusher = pusher(&registry.reference("a/b"), &options());
        let blob = Bytes::from_static(b"some bytes");
        assert!(pusher.put_blob(&blob, None).await.unwrap());
        assert!(!pusher.put_blob(&blob, None).await.unwrap());
        let digest = Digest::sha256(&blob);
        assert_eq!(registry.blob(&digest).unwrap(), blob);
        let short = digest.hex()[..6].to_owned();
        let expected = [
            format!("HEAD /v2/a/b/blobs/{short} 404"),
            "POST /v2/a/b/blobs/uploads/ 202".to_owned(),
            "PUT /v2/a/b/blobs/uploads/1 201".to_owned(),
            format!("HEAD /v2/a/b/blobs/{short} 200"),
        ];
        assert_eq!(registry.log(), expected);
    }
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let registry = Registry::start();
    let pusher = pusher(&registry.reference("a/b"), &options());
    let blob = Bytes::from_static(b"elsewhere");
    // A repository has only what was put there, as far as HEAD is concerned.
    registry.fault(On::Blob, Fault::Status(404));
    registry.put_blob(blob.clone());
    assert!(!pusher.put_blob(&blob, Some("c/d")).await.unwrap());
    let seen = registry.requests();
    assert_eq!(seen.len(), 2);
    let query = format!("mount={}&from=c%2Fd", Digest::sha256(&blob));
    assert_eq!(seen[1].query, query);
    // It has no such blob: the upload that was begun instead goes on.
    registry.forget_requests();
    let blob = Bytes::from_static(b"nowhere");
    assert!(pusher.put_blob(&blob, Some("c/d")).await.unwrap());
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn credentials_stay_with_the_registry() {
    let storage = Registry::start();
    let registry = Registry::start();
    registry.require_basic("user", "word");
    registry.uploads(Uploads::Elsewhere(storage.address()));
    let mut options = options();
    let given = Credential::Password {
        username: "user".to_owned(),
        password: Secret::new("word"),
    };
    options.credentials = options.credentials.with_given(&registry.host(), given);
    let pusher = pusher(&registry.reference("a/b"), &options);
    let blob = Bytes::from_static(b"some bytes");
    assert!(pusher.put_blob(&blob, None).await.unwrap());
    assert!(storage.blob(&Digest::sha256(&blob)).is_some());
    let seen = storage.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
    assert!(
        registry
            .requests()
            .iter()
            .skip(1)
            .all(|seen| seen.authorization.is_some())
    );
}

#[tokio::test]
async fn a_token_for_pushing_is_asked_for_and_another_one_for_pulling() {
    let registry = Registry::start();
    registry.require_token(None);
    let options = options();
    let pusher = pusher(&registry.reference("a/b"), &options);
    pusher
        .put_blob(&Bytes::from_static(b"x"), None)
        .await
        .unwrap();
    let source = open(&registry.reference("a/b"), &options);
    assert!(source.tags().await.is_ok());
    let scopes: Vec<String> = registry
        .requests()
        .iter()
        .filter(|seen| seen.path == "/token")
        .map(|seen| {
            seen.query
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ",")
        })
        .collect();
    assert_eq!(scopes.len(), 2);
    assert!(
        scopes[0].contains("scope=repository:a/b:pull,push"),
        "{scopes:?}"
    );
    assert!(
        scopes[1].ends_with("scope=repository:a/b:pull"),
        "{scopes:?}"
    );
}

#[tokio::test]
async fn uploads_are_retried_as_a_whole() {
    let registry = Registry::start();
    registry.fault(On::Upload, Fault::Status(503));
    registry.fault(On::Upload, Fault::Drop);
    registry.fault(On::ManifestPut, Fault::Status(500));
    let image = small_image();
    let subject = registry.put_image("a/b", "t", &image);
    let pusher = pusher(&registry.reference("a/b"), &options());
    add(&pusher, &subject).await.unwrap();
    assert_eq!(registry.clear_faults(), 0);
    // What is no passing failure is said at once, with the registry's words.
    registry.fault_always(On::Upload, Fault::Status(403));
    let err = pusher
        .put_blob(&Bytes::from_static(b"new"), None)
        .await
        .unwrap_err();
    assert!(err.to_string().contains("refuses access to a/b"), "{err}");
}

#[tokio::test]
async fn mirrors_are_not_written_to() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let mirrored = |rest: &str| {
        let host = registry.host();
        let text = format!(
            "[registry.\"example.org\"]\n{rest}\n[[registry.\"example.org\".mirror]]\nlocation = \"{host}/m\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut options = options();
        options.configuration = imgfs_core::source::route::Configuration::from_env(
            |name| (name == "IMGFS_CONFIG").then(|| config.clone().into()),
            dir.path(),
        );
        options
    };
    let described = pusher("example.org/a/b", &mirrored("")).describe();
    assert_eq!(described, "example.org/a/b");
    let err = push_to(
        &"example.org/a/b".parse().unwrap(),
        &mirrored("blocked = true"),
    );
    let err = err.err().unwrap().to_string();
    assert!(err.contains("mirrors are not written to"), "{err}");
    let err = push_to(&"oci:/tmp".parse().unwrap(), &options());
    assert!(err.err().unwrap().to_string().contains("is in no registry"));
    assert_eq!(registry.requests().len(), 0);
}

#[tokio::test]
async fn referrers_are_found_by_the_api_in_pages() {
    let registry = Registry::start();
    registry.have_referrers(1);
    let subject = registry.put_image("a/b", "t", &small_image());
    let pusher = pusher(&registry.reference("a/b"), &options());
    let ours = add(&pusher, &subject).await.unwrap();
    // The API knows it: no tag is kept.
    assert!(
        registry
            .manifest(&format!("a/b/{}", subject.digest.tag()))
            .is_none()
    );
    // Somebody else's, of another type.
    let other = String::from_utf8(artifact(&subject).to_vec()).unwrap();
    let other = other.replace(INDEX_ARTIFACT, "text/signature");
    registry.put_manifest("a/b", "other", &subject.media_type, other);
    let source = open(&registry.reference("a/b"), &options());
    registry.forget_requests();
    let found = source
        .referrers(&subject.digest, INDEX_ARTIFACT)
        .await
        .unwrap();
    let found: Vec<Digest> = found.iter().map(|one| one.digest).collect();
    assert_eq!(found, [ours.digest]);
    let paths: Vec<String> = registry
        .requests()
        .iter()
        .map(|seen| seen.path.clone())
        .collect();
    let pages = paths
        .iter()
        .filter(|path| path.contains("/referrers/"))
        .count();
    assert_eq!((pages, paths.len()), (2, 3), "{paths:?}");
    let other = source
        .referrers(&subject.digest, "text/signature")
        .await
        .unwrap();
    assert_eq!(other.len(), 1);
    let nothing = source
        .referrers(&Digest::sha256(b""), INDEX_ARTIFACT)
        .await
        .unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn referrers_are_found_by_the_tag_where_there_is_no_api() {
    let registry = Registry::start();
    let subject = registry.put_image("a/b", "t", &small_image());
    let tag = format!("a/b/{}", subject.digest.tag());
    let source = open(&registry.reference("a/b"), &options());
    assert!(
        source
            .referrers(&subject.digest, INDEX_ARTIFACT)
            .await
            .unwrap()
            .is_empty()
    );
    // Somebody else keeps the list, with properties of their own.
    let theirs = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"artifactType":"text/signature","annotations":{"a":"b"},"x":1}],"annotations":{"kept":"yes"}}"#;
    registry.put_manifest(
        "a/b",
        &subject.digest.tag(),
        support::image::OCI_INDEX,
        theirs,
    );
    let pusher = pusher(&registry.reference("a/b"), &options());
    let ours = add(&pusher, &subject).await.unwrap();
    add(&pusher, &subject).await.unwrap();
    let list: serde_json::Value =
        serde_json::from_slice(&registry.manifest(&tag).unwrap()).unwrap();
    let before: serde_json::Value = serde_json::from_str(theirs).unwrap();
    assert_eq!(list["annotations"], before["annotations"]);
    assert_eq!(list["manifests"][0], before["manifests"][0]);
    assert_eq!(list["manifests"].as_array().unwrap().len(), 2);
    registry.forget_requests();
    let found = source
        .referrers(&subject.digest, INDEX_ARTIFACT)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest, ours.digest);
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn what_is_no_list_is_not_replaced() {
    let registry = Registry::start();
    let image = small_image();
    let subject = registry.put_image("a/b", "t", &image);
    let garbage = [image.manifest.clone(), Bytes::from_static(b"<html>")];
    for garbage in garbage {
        registry.put_manifest(
            "a/b",
            &subject.digest.tag(),
            support::image::OCI_MANIFEST,
            garbage.clone(),
        );
        let source = open(&registry.reference("a/b"), &options());
        let found = source
            .referrers(&subject.digest, INDEX_ARTIFACT)
            .await
            .unwrap();
        assert!(found.is_empty());
        let pusher = pusher(&registry.reference("a/b"), &options());
        let err = add(&pusher, &subject).await.unwrap_err().to_string();
        assert!(err.contains("is no list: remove it"), "{err}");
        let tag = format!("a/b/{}", subject.digest.tag());
        assert_eq!(registry.manifest(&tag).unwrap(), garbage);
    }
}

#[tokio::test]
async fn what_a_registry_says_to_a_path_it_does_not_know_is_no_failure() {
    for fault in [
        Fault::Status(404),
        Fault::Status(400),
        Fault::Status(405),
        Fault::Status(403),
        Fault::Status(501),
    ] {
        let registry = Registry::start();
        let subject = registry.put_image("a/b", "t", &small_image());
        let pusher = pusher(&registry.reference("a/b"), &options());
        add(&pusher, &subject).await.unwrap();
        registry.fault_always(On::Referrers, fault.clone());
        let source = open(&registry.reference("a/b"), &options());
        let found = source
            .referrers(&subject.digest, INDEX_ARTIFACT)
            .await
            .unwrap();
        assert_eq!(found.len(), 1, "{fault:?}");
    }
    // A failure that may pass is no answer.
    let registry = Registry::start();
    let subject = registry.put_image("a/b", "t", &small_image());
    registry.fault_always(On::Referrers, Fault::Status(503));
    let source = open(&registry.reference("a/b"), &options());
    let err = source
        .referrers(&subject.digest, INDEX_ARTIFACT)
        .await
        .unwrap_err();
    assert!(err.is_transient(), "{err}");
}

#[tokio::test]
async fn a_blob_is_passed_on_from_another_registry_whatever_fails_in_between() {
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let digest = Digest::sha256(&noise);
    let there = |host: &str| {
        let state = "_state=secret%2Fstate";
        Fault::Redirect(format!(
            "http://{host}/v2/a/b/blobs/uploads/1?{state}&digest={digest}"
        ))
    };
    let faults = [
        ("nothing", None),
        ("status", Some(Fault::Status(503))),
        ("end", Some(Fault::Drop)),
        ("silence", Some(Fault::Silence)),
    ];
    for (name, fault) in faults {
        let (registry, elsewhere) = (Registry::start(), Registry::start());
        let blob = elsewhere.put_blob(noise.clone());
        // The source's own failures are its own: it goes on where it broke off.
        elsewhere.fault(On::Blob, Fault::Truncate(100_000));
        if let Some(fault) = fault {
            registry.fault(On::UploadPut, fault);
        }
        let source = open(&elsewhere.reference("c/d"), &options());
        let pusher = pusher(&registry.reference("a/b"), &impatient());
        let (watched, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (seen, seen_most) = (Arc::clone(&watched), Arc::clone(&most));
        let watch: WatchUpload = Arc::new(move |done| {
            seen.store(done, Ordering::Relaxed);
            seen_most.fetch_max(done, Ordering::Relaxed);
        });
        let placed = pusher
            .copy_blob(&source, &blob, None, Arc::clone(&watch))
            .await;
        assert_eq!(placed.unwrap(), Placed::Sent, "{name}");
        assert_eq!(registry.blob(&digest).unwrap(), noise, "{name}");
        assert_eq!(watched.load(Ordering::Relaxed), blob.size, "{name}");
        assert_eq!(most.load(Ordering::Relaxed), blob.size, "{name}");
        assert_eq!(
            registry.faults_left() + elsewhere.faults_left(),
            0,
            "{name}"
        );
        let placed = pusher.copy_blob(&source, &blob, None, watch).await;
        assert_eq!(placed.unwrap(), Placed::WasThere, "{name}");
    }
    // Another place for the bytes: they are read anew.
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    let blob = elsewhere.put_blob(noise.clone());
    registry.fault(On::UploadPut, there(&registry.host()));
    let source = open(&elsewhere.reference("c/d"), &options());
    let pusher = pusher(&registry.reference("a/b"), &options());
    let placed = pusher
        .copy_blob(&source, &blob, None, Arc::new(|_| {}))
        .await;
    assert_eq!(placed.unwrap(), Placed::Sent);
    assert_eq!(registry.blob(&digest).unwrap(), noise);
    assert_eq!(elsewhere.requests().len(), 2);
}
