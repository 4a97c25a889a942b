//! `imgfs images`: what is listed, in which form, and what filters leave.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::listing::{dir, file};
use crate::support::image::{OCI_CONFIG, OCI_INDEX, descriptor, image_index};

/// An image made at a time, with labels.
pub fn made(created: &str, labels: &Value, layers: Vec<Layer>) -> Image {
    let mut image = host_image(layers);
    let mut config: Value = serde_json::from_slice(&image.blobs[0]).unwrap();
    config["created"] = json!(created);
    config["config"]["Labels"] = labels.clone();
    let config = Bytes::from(config.to_string());
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"] = json!(descriptor(OCI_CONFIG, &config));
    image.manifest = manifest.to_string().into();
    image.blobs[0] = config;
    image
}

/// A layer with one file of incompressible bytes.
pub fn layer(seed: u64, size: usize) -> Layer {
    gzip(&[dir("d"), file(&format!("d/{seed}"), noise(seed, size))])
}

pub fn id_of(image: &Image) -> String {
    imgfs_formats::oci::Digest::sha256(&image.blobs[0]).hex()
}

/// The cells of a table's rows.
fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table.lines();
    rows.map(|row| {
        row.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    })
    .collect()
}

/// A base with two images over it: `r/old:1`, `r/new:2` and `r/new:latest`.
fn shared_base() -> (World, Image, Image) {
    let world = World::new();
    let base = layer(1, 300_000);
    let old = made(
        "2020-01-02T03:04:05Z",
        &json!({"team": "a"}),
        vec![base.clone(), layer(2, 50_000)],
    );
    let new = made(
        "2024-01-02T03:04:05.123456789Z",
        &json!({"team": "b", "keep": ""}),
        vec![base, layer(3, 80_000)],
    );
    world.registry.put_image("r/old", "1", &old);
    world.registry.put_image("r/new", "2", &new);
    world.registry.put_image("r/new", "latest", &new);
    for name in ["r/old:1", "r/new:2", "r/new:latest"] {
        let reference = world.registry.reference(name);
        world.imgfs(&["pull", "-q", &reference]).ok();
    }
    (world, old, new)
}

#[test]
fn images_are_listed_as_docker_does() {
    let (world, old, new) = shared_base();
    let host = world.registry.host();
    let before = world.registry.requests().len();
    let rows = cells(&world.imgfs(&["images"]).ok());
    assert_eq!(
        rows[0],
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "CACHED"]
    );
    let short = |image: &Image| id_of(image)[..12].to_owned();
    let names: Vec<&[String]> = rows[1..].iter().map(|row| &row[..3]).collect();
    assert_eq!(
        names,
        [
            [format!("{host}/r/new"), "2".into(), short(&new)],
            [format!("{host}/r/new"), "latest".into(), short(&new)],
            [format!("{host}/r/old"), "1".into(), short(&old)],
        ]
    );
    assert!(rows[1][3].ends_with("ago"), "{rows:?}");
    assert!(rows[1][4].ends_with("kB"), "{rows:?}");
    assert_eq!(world.registry.requests().len(), before, "nobody is asked");

    let ids = world.imgfs(&["images", "-q", "--no-trunc"]).ok();
    let (id, other) = (id_of(&new), id_of(&old));
    assert_eq!(ids, format!("sha256:{id}\nsha256:{id}\nsha256:{other}\n"));
    let one = world
        .imgfs(&["images", "-q", &format!("{host}/r/old")])
        .ok();
    assert_eq!(one, format!("{}\n", short(&old)));
    let one = world
        .imgfs(&["images", "-q", &format!("{host}/r/new:2")])
        .ok();
    assert_eq!(one, format!("{}\n", short(&new)));
    assert_eq!(world.imgfs(&["images", "-q", "absent"]).ok(), "");
    // As a pattern, with or without a tag.
    let count = |pattern: &str| {
        let listed = world.imgfs(&["images", "-q", pattern]).ok();
        listed.lines().count()
    };
    assert_eq!(count(&format!("{host}/r/*")), 3);
    assert_eq!(count("*/r/n?w"), 2);
    assert_eq!(count("*/*/*:[12]"), 2);
    assert_eq!(count("*"), 0, "a star takes no slash");
    assert_eq!(count("["), 0);
}

/// Two images of one second are told apart.
#[test]
fn before_and_since_compare_all_of_a_time() {
    let world = World::new();
    let [first, second] = ["2024-01-02T03:04:05.1Z", "2024-01-02T03:04:05.2Z"]
        .map(|created| made(created, &json!({}), vec![layer(1, 1000)]));
    for (tag, image) in [("a", &first), ("b", &second)] {
        world.registry.put_image("r", tag, image);
        let reference = world.registry.reference(&format!("r:{tag}"));
        world.imgfs(&["ls", &reference]).ok();
    }
    let list = |filter: &str| {
        let listed = world.imgfs(&["images", "-q", "--no-trunc", "--filter", filter]);
        listed.ok().trim().to_owned()
    };
    let (first, second) = (
        format!("sha256:{}", id_of(&first)),
        format!("sha256:{}", id_of(&second)),
    );
    assert_eq!(list(&format!("before={second}")), first);
    assert_eq!(list(&format!("since={first}")), second);
    assert_eq!(list(&format!("since={second}")), "");
    let listed = world.imgfs(&["images", "-q", "--no-trunc"]).ok();
    assert_eq!(listed, format!("{second}\n{first}\n"), "the newest first");
}

#[test]
fn disk_space_is_split_into_shared_and_unique() {
    let (world, old, new) = shared_base();
    let listed = schema::check("images", &world.imgfs(&["images", "--json"]).ok());
    assert_eq!(listed.as_array().unwrap().len(), 2, "an image is one");
    assert_eq!(listed[0]["id"], format!("sha256:{}", id_of(&new)));
    assert_eq!(listed[0]["tags"].as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["labels"]["team"], "b");
    for (listed, image) in [(&listed[0], &new), (&listed[1], &old)] {
        let unpacked: usize = image.layers.iter().map(|layer| layer.tar.len()).sum();
        assert_eq!(listed["unpacked"], unpacked, "the layers' tars");
        let packed: usize = image.layers.iter().map(|layer| layer.blob.len()).sum();
        assert_eq!(listed["packed"], packed);
        // The bytes on the disk, in blocks, and an index of a few kB for each layer.
        let about = |field: &str, size: usize| {
            let used = usize::try_from(listed[field].as_u64().unwrap()).unwrap();
            assert!(
                (size..size + 60_000).contains(&used),
                "{field}: {used}, {size}"
            );
        };
        about("cached", unpacked);
        about("shared", image.layers[0].tar.len());
        about("unique", image.layers[1].tar.len());
    }
    // What is evicted is not here any more, and costs nothing.
    world.evict();
    let evicted = schema::check("images", &world.imgfs(&["images", "--json"]).ok());
    let cached = |listed: &Value| listed[0]["cached"].as_u64().unwrap();
    assert!(cached(&evicted) < 60_000, "{evicted}");
    assert_eq!(evicted[0]["unpacked"], listed[0]["unpacked"]);
    let sizes = cells(&world.imgfs(&["images", "--size"]).ok());
    assert_eq!(sizes[0][6..], ["SHARED SIZE", "UNIQUE SIZE"]);
}

#[test]
fn every_form_of_output() {
    let (world, old, _) = shared_base();
    let host = world.registry.host();
    let list = |format: &str| world.imgfs(&["images", "--format", format]).ok();
    assert_eq!(
        list("{{.Repository}}:{{.Tag}}"),
        format!("{host}/r/new:2\n{host}/r/new:latest\n{host}/r/old:1\n")
    );
    let table = list(r"table {{.ID}}\t{{upper .Tag}}\t{{.CreatedAt}}");
    assert!(table.starts_with("IMAGE ID "), "{table}");
    let rows = cells(&table);
    assert_eq!(rows[0], ["IMAGE ID", "TAG", "CREATED AT"]);
    assert_eq!(rows[2][1..], ["LATEST", "2024-01-02 03:04:05 +0000 UTC"]);
    let lines = list("json");
    let row: Value = serde_json::from_str(lines.lines().nth(2).unwrap()).unwrap();
    assert_eq!(row["Tag"], "1");
    assert_eq!(row["ID"], id_of(&old)[..12]);
    assert_eq!(
        list("{{.Labels.team}}{{if .Labels.keep}}!{{end}}"),
        "b\nb\na\n"
    );
    world
        .imgfs(&["images", "--format", "{{.Nope}}"])
        .fails(1, &["no field Nope: there are Repository, Tag"]);
    world
        .imgfs(&["images", "--format", "{{.ID"])
        .fails(2, &["}} is missing"]);
}

#[test]
fn filters_leave_what_is_asked_for() {
    let (world, old, new) = shared_base();
    // The tag moves on: what it meant stays, without a name.
    let newest = made("2025-01-01T00:00:00Z", &json!({}), vec![layer(4, 1000)]);
    world.registry.put_image("r/old", "1", &newest);
    let reference = world.registry.reference("r/old:1");
    world.imgfs(&["ls", &reference]).ok();
    let check = |filters: &[&str], expected: &[&Image]| {
        let mut arguments = vec!["images", "-q", "--no-trunc"];
        for filter in filters {
            arguments.extend(["--filter", filter]);
        }
        let expected: String = (expected.iter())
            .map(|image| format!("sha256:{}\n", id_of(image)))
            .collect();
        assert_eq!(world.imgfs(&arguments).ok(), expected, "{filters:?}");
    };
    check(&["dangling=true"], &[&old]);
    check(&["dangling=false"], &[&newest, &new, &new]);
    check(&["label=team"], &[&new, &new, &old]);
    check(&["label=team=a"], &[&old]);
    check(&["label!=team"], &[&newest]);
    check(&["label=team", "label=keep"], &[&new, &new]);
    check(&["reference=*/r/new"], &[&new, &new]);
    check(
        &["reference=*/r/*:2", "reference=*/*/old:1"],
        &[&newest, &new],
    );
    check(&["reference=*"], &[]);
    check(&["until=2021-01-01"], &[&old]);
    let two = world.registry.reference("r/new:2");
    check(&[&format!("before={two}")], &[&old]);
    check(&[&format!("since={}", &id_of(&new)[..12])], &[&newest]);
    let host = world.registry.host();
    let rows = cells(
        &world
            .imgfs(&["images", "--digests", "--filter", "dangling=true"])
            .ok(),
    );
    let digest = imgfs_formats::oci::Digest::sha256(&old.manifest).to_string();
    assert_eq!(
        rows[1][..3],
        [format!("{host}/r/old"), "<none>".into(), digest]
    );
    world
        .imgfs(&["images", "--filter", "before=nothing"])
        .fails(1, &["no image nothing"]);
    world
        .imgfs(&["images", "--filter", "color=red"])
        .fails(2, &["unknown filter", "dangling"]);
}

/// Images of a list are known each by itself; those of another platform show which it is.
#[test]
fn a_list_has_an_image_for_each_platform() {
    let world = World::new();
    let (here, there) = (
        host_image(vec![layer(1, 1000)]),
        image("plan9/mips", vec![layer(2, 1000)]),
    );
    for (tag, image) in [("h", &here), ("t", &there)] {
        world.registry.put_image("r", tag, image);
    }
    let host = imgfs_core::source::host_platform().to_string();
    let list = image_index(&[(&host, &here), ("plan9/mips", &there)]);
    let digest = world
        .registry
        .put_manifest("r", "list", OCI_INDEX, list)
        .digest;
    let reference = world.registry.reference("r:list");
    world.imgfs(&["ls", &reference]).ok();
    let table = world.imgfs(&["images"]).ok();
    assert!(!table.contains("PLATFORM"), "{table}");
    world
        .imgfs(&["ls", "--platform", "plan9/mips", &reference])
        .ok();
    let rows = cells(&world.imgfs(&["images", "--digests"]).ok());
    assert_eq!(rows[0][4], "PLATFORM");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(
        rows[1..]
            .iter()
            .all(|row| row[1] == "list" && row[2] == digest.to_string())
    );
    assert!(
        rows[1..].iter().any(|row| row[4] == "plan9/mips"),
        "{rows:?}"
    );
}

/// A cache from before images were recorded lists what its tags name.
#[test]
fn a_cache_without_records_lists_its_tags() {
    let world = World::new();
    let image = host_image(vec![layer(1, 1000)]);
    let reference = world.put(&image);
    world.imgfs(&["ls", &reference]).ok();
    std::fs::remove_dir_all(world.cache().join("images")).unwrap();
    let listed = schema::check("images", &world.imgfs(&["images", "--json"]).ok());
    assert_eq!(listed[0]["id"], format!("sha256:{}", id_of(&image)));
    assert_eq!(listed[0]["first_seen"], Value::Null);
    // Damaged ones count as none.
    std::fs::write(world.cache().join("refs/zz.json"), "{").unwrap();
    std::fs::create_dir_all(world.cache().join("images/sha256")).unwrap();
    std::fs::write(world.cache().join("images/sha256/00.json"), "nonsense").unwrap();
    let again = schema::check("images", &world.imgfs(&["images", "--json"]).ok());
    assert_eq!(again, listed);
}

/// A second use within the hour writes nothing.
#[test]
fn a_use_is_written_down_once_an_hour() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let image = host_image(vec![layer(1, 1000)]);
    let reference = world.put(&image);
    world.imgfs(&["ls", &reference]).ok();
    let digest = imgfs_formats::oci::Digest::sha256(&image.manifest).hex();
    let path = world.cache().join(format!("images/sha256/{digest}.json"));
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let first = inode();
    world.imgfs(&["ls", &reference]).ok();
    assert_eq!(inode(), first);
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let now = record["last_used"].as_u64().unwrap();
    record["last_used"] = json!(now - 3600);
    std::fs::write(&path, record.to_string()).unwrap();
    world.imgfs(&["ls", &reference]).ok();
    let record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(record["last_used"].as_u64().unwrap() >= now);
}
