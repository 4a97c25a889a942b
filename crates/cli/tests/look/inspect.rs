//! What can be said of an image without its layers: `history`, `layers`, `inspect`, `manifest
//! inspect`, `tags`.

use bytes::Bytes;
use imgfs_formats::oci::Digest;
use serde_json::{Value, json};

use super::*;
use crate::listing::{dir, file};
use crate::support::image::{OCI_INDEX, image_index, write_layout, write_new_archive};

/// An image with a history: a step with a layer, one without, and a layer again.
pub fn with_history(layers: Vec<Layer>, steps: &Value) -> Image {
    let mut image = host_image(layers);
    let mut config: Value = serde_json::from_slice(&image.blobs[0]).unwrap();
    config["history"] = steps.clone();
    config["created"] = json!("2024-05-06T07:08:09.5Z");
    let config = Bytes::from(config.to_string());
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"] = json!(Digest::sha256(&config).to_string());
    manifest["config"]["size"] = json!(config.len());
    image.blobs[0] = config;
    image.manifest = manifest.to_string().into();
    image
}

fn two_layers() -> Image {
    let layers = vec![
        gzip(&[dir("etc"), file("etc/noise", noise(1, 50_000))]),
        gzip(&[file("more", noise(2, 7000))]),
    ];
    let steps = json!([
        {"created": "2020-01-02T03:04:05Z", "created_by": "ADD rootfs.tar / # base", "comment": "buildkit"},
        {"created": "2020-01-03T03:04:05Z", "created_by": "ENV A=b", "empty_layer": true},
        {"created": "2021-01-03T03:04:05.123456789Z",
            "created_by": format!("RUN \t/bin/sh -c {} \u{1b}[2J done", "x".repeat(100))},
    ]);
    with_history(layers, &steps)
}

#[test]
fn history_is_told_by_manifest_and_config_alone() {
    let world = World::new();
    let image = two_layers();
    let reference = world.put(&image);
    let json = schema::check(
        "history",
        &world.imgfs(&["history", "--json", &reference]).ok(),
    );
    let log = world.registry.log();
    assert_eq!(log.len(), 2, "manifest and config: {log:#?}");
    assert_eq!(
        world.registry.bytes(),
        (image.manifest.len() + image.blobs[0].len()) as u64
    );
    let sizes: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["size"].clone())
        .collect();
    let blob = |number: usize| Value::from(image.layers[number].blob.len());
    assert_eq!(sizes, [blob(1), 0.into(), blob(0)], "newest first");
    assert_eq!(json[0]["id"], Digest::sha256(&image.blobs[0]).to_string());
    assert_eq!(json[1]["id"], Value::Null);
    assert_eq!(
        (&json[0]["unpacked"], &json[1]["unpacked"]),
        (&Value::Null, &0.into())
    );
    let text = world.imgfs(&["history", &reference]).ok();
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("IMAGE "), "{text}");
    assert!(rows[1].contains("years ago  RUN /bin/sh -c xxx"), "{text}");
    assert!(rows[1].contains("xxx...  "), "{text}");
    assert!(
        rows[2].starts_with("<missing>") && rows[2].contains("0 B"),
        "{text}"
    );
    assert!(rows[3].contains("buildkit"), "{text}");
    let whole = world
        .imgfs(&["history", "--no-trunc", "--human=false", &reference])
        .ok();
    assert!(
        whole.contains("x \\u{1b}[2J done") && whole.contains("2021-01-03T03:04:05.123456789Z"),
        "{whole}"
    );
    assert!(
        whole.contains(&format!(" {} ", image.layers[0].blob.len())),
        "{whole}"
    );
    let ids = world.imgfs(&["history", "-q", &reference]).ok();
    let id = Digest::sha256(&image.blobs[0]).hex();
    assert_eq!(ids, format!("{}\n<missing>\n<missing>\n", &id[..12]));
    let by_template = |template: &str| {
        world
            .imgfs(&["history", "--format", template, &reference])
            .ok()
    };
    assert_eq!(
        by_template("{{.CreatedBy}}|{{.Comment}}").lines().last(),
        Some("ADD rootfs.tar / # base|buildkit")
    );
    assert_eq!(by_template("table {{.Size}}").lines().nth(2), Some("0 B"));
    // Once the layers are known, their files' sizes are.
    world.imgfs(&["ls", &reference]).ok();
    let json = schema::check(
        "history",
        &world.imgfs(&["history", "--json", &reference]).ok(),
    );
    assert_eq!(
        (&json[0]["unpacked"], &json[2]["unpacked"]),
        (&7000.into(), &50_000.into())
    );
}

#[test]
fn a_history_that_makes_no_sense_claims_no_sizes() {
    let world = World::new();
    let layers = || vec![gzip(&[file("a", "a")]), gzip(&[file("b", "b")])];
    let short = with_history(layers(), &json!([{"created_by": "only one"}]));
    let reference = world.put(&short);
    let outcome = world.imgfs(&["history", "--json", &reference]);
    let json = schema::check("history", &outcome.ok_saying(&["sizes are not known"]));
    assert_eq!(json[0]["size"], Value::Null);
    assert_eq!(json.as_array().unwrap().len(), 1);
    world.put(&with_history(layers(), &Value::Null));
    let json = schema::check(
        "history",
        &world.imgfs(&["history", "--json", &reference]).ok(),
    );
    assert_eq!(json.as_array().unwrap().len(), 2, "a row for each layer");
    assert_eq!(json[0]["layer"], 1);
}

#[test]
fn layers_say_what_is_known_of_them() {
    let world = World::new();
    let image = two_layers();
    let reference = world.put(&image);
    let layers = || {
        schema::check(
            "layers",
            &world.imgfs(&["layers", "--json", &reference]).ok(),
        )
    };
    let json = layers();
    assert_eq!(world.registry.log().len(), 2, "no layer is fetched");
    assert_eq!(
        (&json[0]["index"], &json[0]["entries"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        json[1]["diff_id"],
        Digest::sha256(&image.layers[1].tar).to_string()
    );
    assert_eq!(json[0]["created_by"], "ADD rootfs.tar / # base");
    world.imgfs(&["cat", &reference, "/more"]).ok();
    let json = layers();
    assert_eq!(json[0]["index"], Value::Null);
    let top = &json[1];
    assert_eq!(
        (&top["index"], &top["trust"]),
        (&"cache".into(), &"proven".into())
    );
    assert_eq!(
        (&top["entries"], &top["unpacked"]),
        (&1.into(), &7000.into())
    );
    let text = world.imgfs(&["layers", &reference]).ok();
    let rows: Vec<&str> = text.lines().collect();
    assert!(
        rows[1].contains("none") && rows[1].contains("ADD rootfs.tar"),
        "{text}"
    );
    assert!(
        rows[2].contains("cache  proven") && rows[2].contains("7.0 kB"),
        "{text}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told once")]
fn inspect_tells_both_digests_of_layers_and_the_platforms() {
    let world = World::new();
    let here = two_layers();
    world.put(&here);
    let other = image("linux/s390x", vec![gzip(&[file("o", "o")])]);
    let proof = image("unknown/unknown", vec![gzip(&[file("p", "p")])]);
    let platform = imgfs_core::source::host_platform().to_string();
    let index = image_index(&[
        (&platform, &here),
        ("linux/s390x", &other),
        ("unknown/unknown", &proof),
    ]);
    for blob in &other.blobs {
        world.registry.put_blob(blob.clone());
    }
    world.registry.put_image("r", "other", &other);
    world.registry.put_image("r", "proof", &proof);
    world
        .registry
        .put_manifest("r", "list", OCI_INDEX, index.clone());
    let reference = world.registry.reference("r:list");
    let json = schema::check(
        "inspect",
        &world.imgfs(&["inspect", "--json", &reference]).ok(),
    );
    let log = world.registry.log();
    assert_eq!(log.len(), 3, "list, manifest and config: {log:#?}");
    let offered: Vec<_> = json["platforms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["platform"])
        .collect();
    assert_eq!(offered, [platform.as_str(), "linux/s390x"]);
    assert_eq!(
        json["platforms"][1]["digest"],
        Digest::sha256(&other.manifest).to_string()
    );
    for (layer, expected) in json["layers"].as_array().unwrap().iter().zip(&here.layers) {
        assert_eq!(layer["digest"], Digest::sha256(&expected.blob).to_string());
        assert_eq!(layer["diff_id"], Digest::sha256(&expected.tar).to_string());
    }
    let text = world.imgfs(&["inspect", &reference]).ok();
    for words in [
        "offered     ",
        "linux/s390x",
        "environment [\"A=b\"]",
        "created     2024-05-06T07:08:09.5Z",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let digest = Digest::sha256(&here.layers[1].tar).to_string();
    assert!(text.contains(&digest), "{text}");
    let by_template = |template: &str| world.imgfs(&["inspect", "-f", template, &reference]).ok();
    let id = Digest::sha256(&here.blobs[0]);
    assert_eq!(
        by_template("{{.Id}} {{index .Config.Env 0}}"),
        format!("{id} A=b\n")
    );
    assert_eq!(
        by_template("{{index .RootFS.Layers 1}}"),
        format!("{digest}\n")
    );
    let pinned = format!(
        "[{}@{}]\n",
        world.registry.reference("r"),
        Digest::sha256(&index)
    );
    assert_eq!(by_template("{{.RepoDigests}}"), pinned);
    assert_eq!(by_template("{{.RepoTags}}"), format!("[{reference}]\n"));
    // By its digest it is the same image, and the cache knows what else it is called.
    let by_digest = format!(
        "{}@{}",
        world.registry.reference("r"),
        Digest::sha256(&index)
    );
    let tags = world.imgfs(&["inspect", "-f", "{{.RepoTags}}", &by_digest]);
    assert_eq!(tags.ok(), format!("[{reference}]\n"));
    let whole: Value = serde_json::from_str(&by_template("json")).unwrap();
    assert_eq!(whole["Os"], "linux");
    world
        .imgfs(&["inspect", "-f", "{{.Nothing", &reference])
        .fails(1, &["template"]);
    // The list with what its manifests say: no config is needed.
    world.registry.forget_requests();
    let fresh = world.path("fresh");
    let verbose = |arguments: &[&str]| {
        let mut command = world.command(world::IMGFS);
        process::run(
            command
                .env("IMGFS_CACHE_DIR", &fresh)
                .args(arguments)
                .arg(&reference),
        )
        .ok()
    };
    let json = schema::check(
        "manifest-inspect",
        &verbose(&["manifest", "inspect", "--json"]),
    );
    let log = world.registry.log();
    assert_eq!(log.len(), 4, "the list and three manifests: {log:#?}");
    assert_eq!(
        json[0]["config"],
        Digest::sha256(&here.blobs[0]).to_string()
    );
    assert_eq!(
        (&json[0]["layers"], &json[1]["layers"]),
        (&2.into(), &1.into())
    );
    assert_eq!(json[1]["layer_bytes"], other.layers[0].blob.len());
    let text = verbose(&["manifest", "inspect", "-v"]);
    assert!(
        text.starts_with("PLATFORM") && text.contains("unknown/unknown"),
        "{text}"
    );
    let single = world.registry.reference("r:t");
    let text = world.imgfs(&["manifest", "inspect", "-v", &single]).ok();
    assert!(
        text.contains(&platform),
        "a manifest's platform is the config's: {text}"
    );
    let raw = world.imgfs(&["manifest", "inspect", &reference]).ok_bytes();
    assert_eq!(raw.trim_ascii_end(), &index[..]);
}

#[test]
fn tags_are_sorted_as_versions() {
    let world = World::new();
    let image = host_image(vec![gzip(&[file("a", "a")])]);
    for tag in ["latest", "1.10", "1.9", "1.10-alpine", "2.0"] {
        world.registry.put_image("team/tool", tag, &image);
    }
    let name = world.registry.reference("team/tool");
    let tags = world.imgfs(&["tags", &name]).ok();
    assert_eq!(tags, "1.9\n1.10\n1.10-alpine\n2.0\nlatest\n");
    assert_eq!(world.registry.log().len(), 1);
    let some = world
        .imgfs(&["tags", &name, "--filter", "1.*", "-f", "l?test"])
        .ok();
    assert_eq!(some, "1.9\n1.10\n1.10-alpine\nlatest\n");
    let json = schema::check(
        "tags",
        &world
            .imgfs(&["tags", "--json", &name, "--filter", "2*"])
            .ok(),
    );
    assert_eq!(json, json!({"name": name, "tags": ["2.0"]}));
    world
        .imgfs(&["tags", &name, "--filter", "[x"])
        .fails(1, &["[x", "no pattern"]);
    world
        .imgfs(&["tags", "--offline", &name])
        .fails(1, &["--pull=never"]);
    let layout = world.path("layout");
    write_layout(&layout, &[("b10", &image), ("b9", &image)]);
    let layout = format!("oci:{}", layout.display());
    assert_eq!(world.imgfs(&["tags", &layout]).ok(), "b9\nb10\n");
    let archive = world.path("archive.tar");
    write_new_archive(&archive, &[("name:1", &image)]);
    let archive = format!("docker-archive:{}", archive.display());
    let tags = world.imgfs(&["tags", &archive]).ok();
    assert!(tags.contains("name:1"), "{tags}");
}
