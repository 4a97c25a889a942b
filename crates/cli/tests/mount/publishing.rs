//! `imgfs index`: made, published, shown, fetched and verified by the real program.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::support::docker_registry::DockerRegistry;
use super::*;

/// A layer large enough for midstates, and a small one.
fn large_image() -> Image {
    host_image(vec![
        gzip(&[file("large", noise(7, 9_000_000)), dir("d")]),
        plain(&[file("small", "s")]),
    ])
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Paths of layers' blobs among the requests so far.
fn layers_fetched(world: &World, image: &Image) -> usize {
    let requests = world.registry.requests();
    let is_layer = |path: &str| {
        let digest = path.rsplit('/').next().unwrap();
        (image.layers.iter())
            .any(|layer| imgfs_formats::oci::Digest::sha256(&layer.blob).to_string() == digest)
    };
    requests
        .iter()
        .filter(|seen| seen.method == "GET" && is_layer(&seen.path))
        .count()
}

/// Makes a key pair in the world's directory.
fn make_keys(world: &World, name: &str) -> Option<(String, String)> {
    if !has(&["openssl"]) {
        return None;
    }
    let (key, public) = (
        world.path(&format!("{name}.pem")),
        world.path(&format!("{name}.pub")),
    );
    let openssl = |arguments: &[&std::ffi::OsStr]| {
        process::run(world.command("openssl").args(arguments)).ok();
    };
    openssl(&[
        "genpkey".as_ref(),
        "-algorithm".as_ref(),
        "ed25519".as_ref(),
        "-out".as_ref(),
        key.as_ref(),
    ]);
    openssl(&[
        "pkey".as_ref(),
        "-in".as_ref(),
        key.as_ref(),
        "-pubout".as_ref(),
        "-out".as_ref(),
        public.as_ref(),
    ]);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Some((text(&key), text(&public)))
}

#[test]
fn what_is_built_is_published_and_verified() {
    let world = World::new();
    let image = large_image();
    let reference = world.put(&image);
    world.imgfs(&["index", "build", &reference]).ok();
    assert_eq!(
        layers_fetched(&world, &image),
        image.layers.len() + 2,
        "in parts of 4 MiB"
    );
    // All is here: neither building nor publishing fetches a layer again.
    world.registry.forget_requests();
    world.imgfs(&["index", "build", &reference]).ok();
    let published = json(&world.imgfs(&["index", "push", "--json", &reference]).ok());
    assert_eq!(layers_fetched(&world, &image), 0);
    assert_eq!(published[0]["layers"].as_array().unwrap().len(), 2);
    let index = published[0]["layers"][0]["index"].as_str().unwrap();
    // Nothing changed: nothing is sent again.
    let again = json(&world.imgfs(&["index", "push", "--json", &reference]).ok());
    assert_eq!(again[0]["artifacts"], published[0]["artifacts"]);
    assert_eq!(again[0]["layers"][0]["sent"], 0);

    let shown = json(&world.imgfs(&["index", "show", "--json", &reference]).ok());
    assert_eq!(shown[0]["trust"], "proven");
    assert_eq!(shown[0]["index"], index);
    assert_eq!(shown[0]["entries"], 2);
    assert_eq!(shown[0]["files"], 1);

    // Somebody with an empty cache finds it, and does not fetch the layers for that.
    let elsewhere = world.path("elsewhere");
    let at = ["--cache-dir", elsewhere.to_str().unwrap()];
    world.registry.forget_requests();
    let shown = json(
        &world
            .imgfs(&[&at[..], &["index", "show", "--json", &reference]].concat())
            .ok(),
    );
    assert_eq!(shown[0]["trust"], "claimed");
    assert_eq!(shown[0]["index"], index);
    let pulled = json(
        &world
            .imgfs(&[&at[..], &["index", "pull", "--json", &reference]].concat())
            .ok(),
    );
    assert_eq!(pulled[0]["index"], index);
    assert_eq!(layers_fetched(&world, &image), 0);
    let verified = world.imgfs(&[&at[..], &["index", "verify", "--json", &reference]].concat());
    let verified = json(&verified.ok());
    assert_eq!(verified[0]["outcome"], "same");
    assert_eq!(verified[0]["index"], index);
    let shown = world
        .imgfs(&[&at[..], &["index", "show", "--offline", &reference]].concat())
        .ok();
    assert!(shown.contains("claimed"), "{shown}");

    // Another builder comes to the same artifact.
    let other = world.path("other");
    let at = ["--cache-dir", other.to_str().unwrap()];
    let theirs = json(
        &world
            .imgfs(&[&at[..], &["index", "push", "--json", &reference]].concat())
            .ok(),
    );
    assert_eq!(theirs[0]["artifacts"], published[0]["artifacts"]);
}

#[test]
fn midstates_are_made_for_an_index_that_is_here() {
    let world = World::new();
    let image = large_image();
    let reference = world.put(&image);
    world.imgfs(&["pull", &reference]).ok();
    let midstates = world.cache().join("midstates/sha256");
    assert!(!midstates.exists());
    world.imgfs(&["index", "build", &reference]).ok();
    let files: Vec<_> = std::fs::read_dir(&midstates).unwrap().collect();
    assert_eq!(files.len(), 1);
    let file = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
    let blob = &image.layers[0].blob;
    let states = imgfs_formats::oci::Midstates::decode(&file, blob.len() as u64).unwrap();
    let digest = imgfs_formats::oci::Digest::sha256(blob);
    for (segment, bytes) in (0..).zip(blob.chunks(4 << 20)) {
        states.check(segment, bytes, &digest).unwrap();
    }
}

#[test]
fn indexes_in_a_repository_of_their_own_are_signed_by_several() {
    let world = World::new();
    let (Some((key, public)), Some((other_key, other_public))) =
        (make_keys(&world, "one"), make_keys(&world, "two"))
    else {
        return;
    };
    let reference = world.put(&large_image());
    let repository = world.registry.reference("indexes");
    let push = |key: &str| {
        world
            .imgfs(&[
                "index",
                "push",
                "--to",
                &repository,
                "--sign",
                key,
                &reference,
            ])
            .ok();
    };
    push(&key);
    push(&other_key);
    // Nothing is said about the image in its own repository.
    let names = world.registry.manifest_names();
    assert!(
        names.iter().all(|name| !name.starts_with("r/sha256-")),
        "{names:?}"
    );
    let elsewhere = world.path("elsewhere");
    let show = |public: &str| {
        json(
            &world
                .imgfs(&[
                    "--cache-dir",
                    elsewhere.to_str().unwrap(),
                    "index",
                    "show",
                    "--json",
                    "--index-repo",
                    &repository,
                    "--index-key",
                    public,
                    &reference,
                ])
                .ok(),
        )
    };
    for public in [&public, &other_public] {
        let shown = show(public);
        assert_eq!(shown[0]["trust"], "pinned");
        assert_eq!(shown[1]["trust"], "pinned");
    }
    // A key that others may read is warned of, and used.
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    let pushed = world.imgfs(&[
        "index",
        "push",
        "--to",
        &repository,
        "--sign",
        &key,
        &reference,
    ]);
    assert!(pushed.stderr.contains("chmod 600"), "{}", pushed.stderr);
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let loud = world.imgfs(&[
        "-vvv",
        "index",
        "push",
        "--to",
        &repository,
        "--sign",
        &key,
        &reference,
    ]);
    assert!(!loud.stderr.contains(secret), "the key is in the log");
    // Keys that are none.
    world
        .imgfs(&["index", "push", "--sign", &public, &reference])
        .fails(1, &["no private key in PEM form"]);
    world
        .imgfs(&["index", "show", "--index-key", &key, &reference])
        .fails(1, &["no public key in PEM form"]);
}

#[test]
fn a_difference_is_named_and_fails() {
    let world = World::new();
    let image = host_image(vec![plain(&[file("a", "one")])]);
    let reference = world.put(&image);
    world
        .imgfs(&["index", "verify", &reference])
        .fails(1, &["no index is published for"]);
    world
        .imgfs(&["index", "pull", &reference])
        .fails(1, &["no index is published for", "imgfs index push"]);
    // Somebody publishes an index with another mode in it.
    let blob = &image.layers[0].blob;
    let mut index = imgfs_formats::layer::LayerIndex::of_blob(blob).unwrap();
    let other = plain(&[file("a", "one").mode(0o4755)]);
    index.toc = imgfs_formats::layer::LayerIndex::of_blob(&other.blob)
        .unwrap()
        .toc;
    let lie = index.encode().unwrap();
    let file = world.registry.put_blob(lie.clone());
    world.registry.put_blob("{}");
    let artifact = imgfs_formats::oci::Artifact {
        subject: Some(imgfs_formats::oci::Descriptor::of_manifest(&image.manifest)),
        indexes: vec![imgfs_formats::oci::PublishedIndex {
            layer: index.blob,
            digest: index.digest(),
            index: file,
            midstates: None,
            signatures: std::collections::BTreeMap::new(),
        }],
    };
    world.registry.have_referrers(10);
    let body = artifact.encode();
    world
        .registry
        .put_manifest("r", "lie", support::image::OCI_MANIFEST, body);
    let outcome = world.imgfs(&["index", "verify", &reference]);
    outcome.fails(
        1,
        &["the mode of \"a\" is \"644\", not \"4755\" as claimed"],
    );
    let table = String::from_utf8(outcome.stdout).unwrap();
    assert!(table.contains("different"), "{table}");
    // It is taken for what it is.
    let shown = world.imgfs(&["index", "show", &reference]).ok();
    assert!(shown.contains("claimed"), "{shown}");
}

#[test]
fn images_on_disk_have_no_place_for_indexes() {
    let world = World::new();
    let layout = world.path("layout");
    let image = host_image(vec![plain(&[file("a", "one")])]);
    support::image::write_layout(&layout, &[("t", &image)]);
    let reference = format!("oci:{}:t", layout.display());
    world
        .imgfs(&["index", "push", &reference])
        .fails(1, &["is in no registry"]);
    let repository = world.registry.reference("indexes");
    world
        .imgfs(&["index", "push", "--to", &repository, &reference])
        .ok();
    let shown = world.imgfs(&["index", "show", &reference]).ok();
    assert!(shown.contains("proven"), "{shown}");
}

#[test]
fn docker_registry_keeps_it_and_skopeo_reads_it() {
    let world = World::new();
    let name = world::test_name();
    let Some(programs) = support::programs::find(&name, &["docker-registry", "skopeo"]) else {
        return;
    };
    let [docker_registry, skopeo] = programs.as_slice() else {
        unreachable!("two were asked for");
    };
    let registry = DockerRegistry::start(docker_registry, &world.path(""), "");
    let layout = world.path("layout");
    let image = large_image();
    support::image::write_layout(&layout, &[("t", &image)]);
    let reference = format!("{}/some/name:t", registry.address);
    process::run(world.command(skopeo).args([
        "--insecure-policy",
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &format!("oci:{}:t", layout.display()),
        &format!("docker://{reference}"),
    ]))
    .ok();
    let published = json(&world.imgfs(&["index", "push", "--json", &reference]).ok());
    let artifact = published[0]["artifacts"][0].as_str().unwrap();
    let raw = |name: &str| {
        let name = format!("docker://{name}");
        let arguments = ["inspect", "--raw", "--tls-verify=false", &name];
        json(&process::run(world.command(skopeo).args(arguments)).ok())
    };
    let manifest = raw(artifact);
    assert_eq!(manifest["artifactType"], "application/vnd.imgfs.index.v1");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    let subject = imgfs_formats::oci::Digest::sha256(&image.manifest);
    assert_eq!(manifest["subject"]["digest"], subject.to_string());
    // It has no referrers API, so the list is kept under the tag.
    let list = raw(&format!("{}/some/name:{}", registry.address, subject.tag()));
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    let digest = artifact.split_once('@').unwrap().1;
    assert_eq!(list["manifests"][0]["digest"], digest);
    // Another repository of the same registry: the files are mounted, not sent again.
    let repository = format!("{}/indexes", registry.address);
    let moved = json(
        &world
            .imgfs(&["index", "push", "--json", "--to", &repository, &reference])
            .ok(),
    );
    assert_eq!(moved[0]["layers"][0]["sent"], 0);
    let layer = imgfs_formats::oci::Digest::sha256(&image.layers[0].blob);
    let manifest = raw(&format!("{repository}:{}", layer.tag()));
    assert_eq!(manifest.get("subject"), None);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    // Found both ways, with an empty cache.
    let elsewhere = world.path("elsewhere");
    let at = ["--cache-dir", elsewhere.to_str().unwrap(), "index"];
    let verify = ["verify", "--json", &reference];
    let verified = json(&world.imgfs(&[&at[..], &verify].concat()).ok());
    assert_eq!(verified[0]["outcome"], "same");
    assert!(
        verified[0]["origin"]
            .as_str()
            .unwrap()
            .contains("some/name@")
    );
    let verify = ["verify", "--json", "--index-repo", &repository, &reference];
    let verified = json(&world.imgfs(&[&at[..], &verify].concat()).ok());
    assert_eq!(verified[0]["outcome"], "same");
    assert!(
        verified[0]["origin"]
            .as_str()
            .unwrap()
            .contains("/indexes:sha256-")
    );
}
