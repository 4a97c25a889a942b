//! Multi-platform lists: put together, annotated, pushed; what moves for it and what does not.

use serde_json::Value;

use super::*;
use crate::listing::{dir, file};
use crate::process::run;
use crate::support::docker_registry::DockerRegistry;
use crate::support::image::{OCI_INDEX, OCI_MANIFEST, image_index, write_layout};
use crate::support::registry::{Fault, On, Registry};

pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image with a layer of its own, whose bytes cannot be compressed.
pub fn for_platform(platform: &str, seed: u64, size: usize) -> Image {
    let layer = gzip(&[
        dir("etc"),
        file("etc/platform", platform),
        file("noise", noise(seed, size)),
    ]);
    image(platform, vec![layer])
}

/// The same image as Docker writes it.
pub fn dockers(image: &Image) -> Image {
    let text = String::from_utf8(image.manifest.to_vec()).unwrap();
    let text = text
        .replace(OCI_MANIFEST, DOCKER_MANIFEST)
        .replace(
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.container.image.v1+json",
        )
        .replace(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        );
    Image {
        media_type: DOCKER_MANIFEST.to_owned(),
        manifest: text.into(),
        ..image.clone()
    }
}

/// A world whose registry keeps repositories apart.
fn separate() -> World {
    let world = World::new();
    world.registry.separate_repositories();
    world
}

/// Puts an image; its reference.
fn put(registry: &Registry, name: &str, image: &Image) -> String {
    let (repository, tag) = name.split_once(':').unwrap();
    registry.put_image(repository, tag, image);
    registry.reference(name)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The manifest or list that the registry has.
fn pushed(registry: &Registry, name: &str) -> Value {
    serde_json::from_slice(&registry.manifest(name).unwrap()).unwrap()
}

#[test]
fn a_list_is_put_together_annotated_shown_and_removed() {
    let world = separate();
    let amd = put(
        &world.registry,
        "a:amd",
        &for_platform("linux/amd64", 1, 100),
    );
    let arm = put(&world.registry, "a:arm", &for_platform("linux/arm", 2, 100));
    let list = world.registry.reference("t:1");
    let created = format!("Created manifest list {list}");
    world
        .imgfs(&["manifest", "create", &list, &amd])
        .ok_saying(&[&created]);

    // It is there: nobody is asked, nothing is changed.
    world.registry.forget_requests();
    let refused = world.imgfs(&["manifest", "create", &list, &arm]);
    let words = [
        "refusing to amend an existing manifest list with no --amend flag",
        "manifest rm",
    ];
    refused.fails(1, &words);
    assert_eq!(world.registry.log(), Vec::<String>::new());
    world.imgfs(&["manifest", "create", "-a", &list, &arm]).ok();
    // Once more changes nothing.
    world
        .imgfs(&["manifest", "create", "--amend", &list, &amd, &arm])
        .ok();

    let annotate = [
        "manifest",
        "annotate",
        "--variant",
        "v6",
        "--os-version",
        "1.2",
        "--os-features",
        "x,y",
    ];
    let said = world.imgfs(&[&annotate[..], &[&list, &arm]].concat()).ok();
    assert_eq!(said, "");
    let shown = world.imgfs(&["manifest", "inspect", &list]);
    let shown = json(&shown.ok_saying(&["kept here"]));
    assert_eq!(shown["mediaType"], OCI_INDEX);
    let platforms: Vec<&Value> = shown["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["platform"])
        .collect();
    let expected = [
        serde_json::json!({"architecture": "amd64", "os": "linux"}),
        serde_json::json!({
            "architecture": "arm", "os": "linux", "os.version": "1.2", "os.features": ["x", "y"], "variant": "v6",
        }),
    ];
    assert_eq!(platforms, expected.iter().collect::<Vec<_>>());
    let table = world.imgfs(&["manifest", "inspect", "-t", &list]).ok();
    assert!(table.contains("linux(1.2+x+y)/arm/v6"), "{table}");
    // A member as the registry has it.
    let member = world.imgfs(&["manifest", "inspect", &list, &arm]).ok();
    let digest = shown["manifests"][1]["digest"].as_str().unwrap();
    assert_eq!(
        json(&member),
        pushed(&world.registry, &format!("a/{digest}"))
    );

    let other = world.registry.reference("a:other");
    world
        .imgfs(&["manifest", "annotate", "--arch", "arm", &list, &other])
        .fails(
            1,
            &[
                &format!("manifest for image {other} does not exist in {list}"),
                &amd,
            ],
        );
    world
        .imgfs(&["manifest", "annotate", "--arch", "aarch64", &list, digest])
        .fails(1, &["\"aarch64\" is no architecture", "write arm64"]);

    // It is no part of the cache.
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    world.imgfs(&["manifest", "inspect", &list]).ok();
    let missing = world.registry.reference("t:2");
    // The others go all the same.
    world
        .imgfs(&["manifest", "rm", &missing, &list])
        .fails(1, &[&format!("No such manifest: {missing}")]);
    world
        .imgfs(&["manifest", "rm", &list])
        .fails(1, &["No such manifest"]);
    world
        .imgfs(&["manifest", "push", &list])
        .fails(1, &["not found", "manifest create"]);
    world
        .imgfs(&["manifest", "inspect", &list])
        .fails(1, &["has no image t:1"]);
}

#[test]
fn what_is_no_image_of_one_platform_is_refused() {
    let world = World::new();
    let image = for_platform("linux/amd64", 1, 100);
    put(&world.registry, "a:1", &image);
    let index = image_index(&[("linux/amd64", &image)]);
    world.registry.put_manifest("a", "list", OCI_INDEX, index);
    let artifact = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": support::image::descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": [],
    });
    world.registry.put_blob("{}");
    world
        .registry
        .put_manifest("a", "artifact", OCI_MANIFEST, artifact.to_string());
    let list = world.registry.reference("t:1");
    let check = |member: &str, words: &[&str]| {
        let outcome = world.imgfs(&["manifest", "create", &list, member]);
        outcome.fails(1, words);
    };
    let of = |name: &str| world.registry.reference(name);
    check(
        &of("a:list"),
        &["a:list is a manifest list", "manifest inspect -t"],
    );
    check(&of("a:artifact"), &["no container image"]);
    check(&of("a:none"), &["has no image a:none"]);
    check("oci:/tmp", &["is in no registry"]);
    let by_digest = format!("t@{}", imgfs_formats::oci::Digest::sha256(b""));
    let named = world.imgfs(&["manifest", "create", &of(&by_digest), &of("a:1")]);
    named.fails(1, &["named by a tag"]);
    // Nothing came of all that.
    assert!(!world.path(".local/share/imgfs/lists").exists());
}

#[test]
fn no_layer_moves_within_a_registry() {
    let world = separate();
    let (amd, arm) = (
        for_platform("linux/amd64", 1, 300_000),
        for_platform("linux/arm64", 2, 300_000),
    );
    let amd_name = put(&world.registry, "other/place:amd", &amd);
    let arm_name = put(&world.registry, "t:arm", &arm);
    let list = world.registry.reference("t:1");
    world
        .imgfs(&["manifest", "create", &list, &amd_name, &arm_name])
        .ok();
    world.registry.forget_requests();
    let printed = world.imgfs(&["manifest", "push", &list]);
    let digest = printed.ok_saying(&["2 mounted", "was there"]);

    let short = |bytes: &[u8]| imgfs_formats::oci::Digest::sha256(bytes).hex()[..6].to_owned();
    let mut expected = vec![
        format!("HEAD /v2/t/manifests/{} 200", short(&arm.manifest)),
        format!("HEAD /v2/t/manifests/{} 404", short(&amd.manifest)),
        format!("GET /v2/other/place/manifests/{} 200", short(&amd.manifest)),
        format!("PUT /v2/t/manifests/{} 201", short(&amd.manifest)),
        "PUT /v2/t/manifests/1 201".to_owned(),
    ];
    for blob in &amd.blobs {
        expected.push(format!("HEAD /v2/t/blobs/{} 404", short(blob)));
        expected.push("POST /v2/t/blobs/uploads/ 201".to_owned());
    }
    let mut log = world.registry.log();
    log.sort();
    expected.sort();
    assert_eq!(log, expected);
    // No more than two manifests went out, and one came in.
    let sent: usize = world
        .registry
        .requests()
        .iter()
        .map(|seen| seen.body.len())
        .sum();
    assert!(sent < 3000, "{sent} bytes were sent");
    assert!(
        world.registry.bytes() < 2000,
        "{} bytes came",
        world.registry.bytes()
    );

    // What is there is what was printed, and it is what was shown before.
    let body = world.registry.manifest("t/1").unwrap();
    assert_eq!(
        digest.trim(),
        imgfs_formats::oci::Digest::sha256(&body).to_string()
    );
    let shown = world
        .imgfs(&["manifest", "inspect", "-q", &list])
        .ok_bytes();
    assert_eq!(shown, body);

    // Again: a HEAD for each member, and the list.
    world.registry.forget_requests();
    let again = world.imgfs(&["manifest", "push", "-p", &list]);
    assert_eq!(again.ok(), digest);
    assert_eq!(world.registry.requests().len(), 3);
    world
        .imgfs(&["manifest", "rm", &list])
        .fails(1, &["No such manifest"]);

    // Each platform is found.
    for platform in ["linux/amd64", "linux/arm64"] {
        let cat = ["cat", "--platform", platform, &list, "/etc/platform"];
        assert_eq!(world.imgfs(&cat).ok(), platform);
    }
}

#[test]
fn blobs_of_another_registry_are_passed_on_and_checked() {
    let world = separate();
    let elsewhere = Registry::start();
    let image = for_platform("linux/amd64", 3, 3_000_000);
    let name = put(&elsewhere, "a:1", &image);
    let list = world.registry.reference("t:1");
    world.imgfs(&["manifest", "create", &list, &name]).ok();

    // The first bytes are wrong: they never become a blob, and the right ones follow.
    elsewhere.fault(On::Blob, Fault::Corrupt);
    // The upload fails once, and begins anew.
    world.registry.fault(On::UploadPut, Fault::Status(503));
    let outcome = world.imgfs(&["manifest", "push", "--json", &list]);
    let printed = outcome.ok_saying(&["2 copied, 3.0 MB"]);
    let value = schema::check("manifest-push", &printed);
    let size: usize = image.blobs.iter().map(bytes::Bytes::len).sum();
    assert_eq!(value["members"][0]["blobs"]["copied_bytes"], size);
    assert_eq!(value["members"][0]["was_there"], false);
    for blob in &image.blobs {
        let digest = imgfs_formats::oci::Digest::sha256(blob);
        assert_eq!(world.registry.blob(&digest).unwrap(), blob);
    }
    assert_eq!(elsewhere.faults_left() + world.registry.faults_left(), 0);
    for seen in world.registry.requests() {
        if seen.method == "PUT" && seen.path.contains("uploads") {
            assert!(
                seen.headers.contains_key("content-length"),
                "{:?}",
                seen.headers
            );
            assert!(
                !seen.headers.contains_key("transfer-encoding"),
                "{:?}",
                seen.headers
            );
        }
    }
    let cat = ["cat", "--platform", "linux/amd64", &list, "/etc/platform"];
    assert_eq!(world.imgfs(&cat).ok(), "linux/amd64");

    // Once it is there it is not passed on again, not even for another list.
    elsewhere.forget_requests();
    let other = world.registry.reference("t:2");
    world.imgfs(&["manifest", "push", &list, &other]).ok();
    assert_eq!(elsewhere.log(), Vec::<String>::new());
    assert_eq!(
        world.registry.manifest("t/1"),
        world.registry.manifest("t/2")
    );
}

#[test]
fn wrong_bytes_make_no_blob_and_no_list() {
    let world = separate();
    let elsewhere = Registry::start();
    let image = for_platform("linux/amd64", 4, 100_000);
    let name = put(&elsewhere, "a:1", &image);
    let list = world.registry.reference("t:1");
    world.imgfs(&["manifest", "create", &list, &name]).ok();
    elsewhere.replace_blob(&image.blobs[1], {
        let mut wrong = image.blobs[1].to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        wrong
    });
    let outcome = world.imgfs(&["manifest", "push", &list]);
    outcome.fails(1, &["does not match its digest"]);
    assert_eq!(
        world
            .registry
            .blob(&imgfs_formats::oci::Digest::sha256(&image.blobs[1])),
        None
    );
    assert_eq!(world.registry.manifest_names(), Vec::<String>::new());
    // The list is still here, to be pushed again.
    world.imgfs(&["manifest", "rm", &list]).ok();
}

#[test]
fn the_token_is_for_the_repositories_that_are_mounted_from() {
    let world = separate();
    let name = put(
        &world.registry,
        "other/place:1",
        &for_platform("linux/amd64", 1, 100),
    );
    let list = world.registry.reference("t:1");
    world.imgfs(&["manifest", "create", &list, &name]).ok();
    world.registry.require_token(None);
    world.registry.forget_requests();
    world.imgfs(&["manifest", "push", &list]).ok();
    let requests = world.registry.requests();
    let scopes: Vec<Vec<String>> = (requests.iter())
        .filter(|seen| seen.path == "/token")
        .map(|seen| {
            let pairs = url::form_urlencoded::parse(seen.query.as_bytes());
            let scopes = pairs.filter(|(key, _)| key == "scope");
            scopes.map(|(_, scope)| scope.into_owned()).collect()
        })
        .collect();
    let expected = [
        vec![
            "repository:t:pull,push".to_owned(),
            "repository:other/place:pull".to_owned(),
        ],
        vec!["repository:other/place:pull".to_owned()],
    ];
    assert_eq!(scopes, expected);
}

#[test]
fn the_kind_of_list_follows_the_images() {
    let world = World::new();
    let oci = for_platform("linux/amd64", 1, 100);
    let docker = dockers(&for_platform("linux/arm64", 2, 100));
    let (oci, docker) = (
        put(&world.registry, "a:oci", &oci),
        put(&world.registry, "a:docker", &docker),
    );
    let check = |tag: &str, members: &[&str], options: &[&str], expected: &str, says: bool| {
        let list = world.registry.reference(&format!("t:{tag}"));
        world
            .imgfs(&[&["manifest", "create", &list], members].concat())
            .ok();
        let outcome = world.imgfs(&[&["manifest", "push", &list], options].concat());
        assert_eq!(
            outcome.stderr.contains("becomes an OCI index"),
            says,
            "{}",
            outcome.stderr
        );
        outcome.ok();
        assert_eq!(
            pushed(&world.registry, &format!("t/{tag}"))["mediaType"],
            expected,
            "{tag}"
        );
        let seen = world.registry.requests();
        assert_eq!(seen.last().unwrap().headers["content-type"], expected);
    };
    check("oci", &[&oci], &[], OCI_INDEX, false);
    check("docker", &[&docker], &[], DOCKER_LIST, false);
    check("both", &[&docker, &oci], &[], OCI_INDEX, true);
    check("chosen", &[&docker], &["--format", "oci"], OCI_INDEX, false);
    check(
        "other",
        &[&docker, &oci],
        &["--format=docker"],
        DOCKER_LIST,
        false,
    );
}

#[test]
fn a_damaged_list_is_named_and_can_be_removed() {
    let world = World::new();
    let name = put(&world.registry, "a:1", &for_platform("linux/amd64", 1, 100));
    let list = world.registry.reference("t:1");
    world.imgfs(&["manifest", "create", &list, &name]).ok();
    let kept = std::fs::read_dir(world.path(".local/share/imgfs/lists")).unwrap();
    let path = kept
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some());
    std::fs::write(path.unwrap(), "{").unwrap();
    for command in [
        &["push", &list][..],
        &["inspect", &list],
        &["create", "-a", &list, &name],
    ] {
        let outcome = world.imgfs(&[&["manifest"], command].concat());
        outcome.fails(1, &["is damaged", &format!("imgfs manifest rm {list}")]);
    }
    world.imgfs(&["manifest", "rm", &list]).ok();
    world.imgfs(&["manifest", "create", &list, &name]).ok();
}

/// Debian's registry with an image at each of these names, copied there by skopeo.
fn docker_registry(world: &World, dir: &str, images: &[(&str, &Image)]) -> Option<DockerRegistry> {
    let programs = support::programs::find(&world::test_name(), &["docker-registry", "skopeo"])?;
    let dir = world.path(dir);
    std::fs::create_dir(&dir).unwrap();
    let registry = DockerRegistry::start(&programs[0], &dir, "");
    for (name, image) in images {
        let layout = dir.join(name.replace(['/', ':'], "_"));
        write_layout(&layout, &[("t", image)]);
        let from = format!("oci:{}:t", layout.display());
        let to = format!("docker://{}/{name}", registry.address);
        let copy = [
            "--insecure-policy",
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ];
        run(world.command(&programs[1]).args(copy).args([from, to])).ok();
    }
    Some(registry)
}

#[test]
fn skopeo_and_podman_read_the_list() {
    let world = World::new();
    let amd = for_platform("linux/amd64", 1, 50_000);
    let arm = for_platform("linux/arm", 2, 50_000);
    let s390x = for_platform("linux/s390x", 3, 50_000);
    if !has(&["podman"]) {
        return;
    }
    let images = [("team/amd:1", &amd), ("tool:arm", &arm)];
    let Some(registry) = docker_registry(&world, "here", &images) else {
        return;
    };
    let Some(elsewhere) = docker_registry(&world, "there", &[("z:1", &s390x)]) else {
        return;
    };
    let of = |name: &str| format!("{}/{name}", registry.address);
    let list = of("tool:1");
    let z = format!("{}/z:1", elsewhere.address);
    let create = [
        "manifest",
        "create",
        &list,
        &of("team/amd:1"),
        &of("tool:arm"),
        &z,
    ];
    world.imgfs(&create).ok();
    let annotate = [
        "manifest",
        "annotate",
        "--variant",
        "v7",
        &list,
        &of("tool:arm"),
    ];
    world.imgfs(&annotate).ok();
    let push = world.imgfs(&["manifest", "push", "--json", &list]).ok();
    let push = schema::check("manifest-push", &push);
    let counts: Vec<_> = (push["members"].as_array().unwrap().iter())
        .map(|member| {
            let blobs = &member["blobs"];
            (
                member["was_there"].clone(),
                blobs["mounted"].clone(),
                blobs["copied"].clone(),
            )
        })
        .collect();
    let expected = [(false, 2, 0), (true, 0, 0), (false, 0, 2)];
    let expected =
        expected.map(|(there, mounted, copied)| (there.into(), mounted.into(), copied.into()));
    assert_eq!(counts, expected);

    let named = format!("docker://{list}");
    let raw = run(world
        .command("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &named]));
    let raw = raw.ok_bytes();
    assert_eq!(
        push["digest"],
        imgfs_formats::oci::Digest::sha256(&raw).to_string()
    );
    // All of it is there: every manifest and blob is read and checked.
    let copy = [
        "--insecure-policy",
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        &named,
    ];
    let layout = format!("oci:{}:t", world.path("copied").display());
    run(world.command("skopeo").args(copy).arg(&layout)).ok();

    let containers = world.path(".config/containers");
    std::fs::create_dir_all(&containers).unwrap();
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    std::fs::write(containers.join("policy.json"), policy).unwrap();
    let registries = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    );
    std::fs::write(world.path("registries.conf"), registries).unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = world.command("podman");
        command.env("CONTAINERS_REGISTRIES_CONF", world.path("registries.conf"));
        for place in ["root", "runroot", "tmpdir"] {
            command.arg(format!("--{place}")).arg(world.path(place));
        }
        run(command.args(["--storage-driver", "vfs"]).args(arguments))
    };
    let inspected = podman(&["manifest", "inspect", &list]).ok();
    assert_eq!(
        json(&inspected)["manifests"][1]["platform"]["variant"],
        "v7"
    );
    for (platform, architecture) in [("linux/arm/v7", "arm"), ("linux/s390x", "s390x")] {
        podman(&["pull", "-q", "--platform", platform, &list]).ok();
        let found = podman(&["image", "inspect", "--format", "{{.Architecture}}", &list]).ok();
        assert_eq!(found.trim(), architecture);
        let cat = ["cat", "--platform", platform, &list, "/etc/platform"];
        assert_eq!(world.imgfs(&cat).ok(), format!("linux/{architecture}"));
    }
}
