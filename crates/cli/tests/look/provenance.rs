//! `imgfs whence`: which layer brought a path, and how little that fetches.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use super::inspect::with_history;
use super::*;
use crate::listing::{dir, file, hard_link, opaque, symlink, whiteout};

/// Four layers, each with a step of the build.
fn built() -> Image {
    let layers = vec![
        gzip(&[
            dir("usr"),
            dir("usr/bin"),
            symlink("bin", "usr/bin"),
            file("usr/bin/tool", noise(1, 200_000)),
            file("usr/bin/gone", "g"),
            dir("etc"),
            file("etc/conf", "one"),
            dir("data"),
            file("data/old", "o"),
        ]),
        gzip(&[file("etc/conf", "two!"), file("padding", noise(2, 100_000))]),
        gzip(&[
            dir("usr"),
            dir("usr/bin"),
            whiteout("usr/bin/gone"),
            dir("data"),
            opaque("data"),
        ]),
        gzip(&[
            file("etc/conf", "two!").mode(0o600),
            hard_link("etc/link", "etc/conf").mode(0o600),
        ]),
    ];
    let step = |command: &str| json!({"created": "2024-01-02T03:04:05Z", "created_by": command});
    let steps = json!([
        step("ADD base"),
        {"created_by": "ENV x", "empty_layer": true},
        step("RUN two"),
        step("RUN rm /usr/bin/gone"),
        step("COPY conf"),
    ]);
    with_history(layers, &steps)
}

#[test]
fn names_are_exact_and_times_whole() {
    let world = World::new();
    let name: &[u8] = b"d/back\\x\xe9";
    let reference = world.put(&host_image(vec![
        gzip(&[
            dir("d"),
            file("", "x").named(name).mtime(1_234_567_890, 123_456_789),
            file("d/line\nb\\", "x"),
        ]),
        gzip(&[dir("d").mode(0o700), opaque("d")]),
    ]));
    let whence = |path: &[u8]| {
        let path = OsStr::from_bytes(path);
        let arguments = [
            "whence".as_ref(),
            "--all".as_ref(),
            OsStr::new(&reference),
            path,
        ];
        let json = [&arguments[..], &[OsStr::new("--json")]].concat();
        let text = world.imgfs(&arguments).ok();
        (schema::check("whence", &world.imgfs(&json).ok()), text)
    };
    let (json, text) = whence(&[b"/", name].concat());
    assert_eq!(json["path"], "/d/back\\x\u{fffd}");
    assert_eq!(json["path_base64"], "L2QvYmFja1x46Q==");
    assert_eq!(json["layers"][0]["at"], "/d");
    let below = &json["layers"][1];
    assert_eq!(
        (&below["mtime"], &below["mtime_nanoseconds"]),
        (&1_234_567_890.into(), &123_456_789.into())
    );
    assert!(text.starts_with("/d/back\\\\x\\xe9\n"), "{text}");
    let (json, text) = whence(b"/d/line\nb\\");
    assert_eq!(json["path"], "/d/line\nb\\");
    assert_eq!(json["path_base64"], Value::Null);
    assert!(text.starts_with("/d/line\\nb\\\\\n"), "{text}");
}

#[test]
fn files_that_are_stored_again_are_no_change() {
    let world = World::new();
    let reference = world.put(&host_image(vec![
        gzip(&[
            file("same", noise(1, 9000)),
            file("other", noise(2, 9000)),
            file("empty", ""),
        ]),
        gzip(&[
            file("same", noise(1, 9000)),
            file("other", noise(3, 9000)),
            file("empty", ""),
        ]),
    ]));
    let top = |path: &str| {
        let json = ["whence", "--all", "--json", &reference, path];
        let json = schema::check("whence", &world.imgfs(&json).ok());
        (
            json["layers"][0]["what"].clone(),
            json["layers"][0]["changed"].clone(),
        )
    };
    assert_eq!(top("/same"), ("repeated".into(), Value::Null));
    assert_eq!(top("/empty"), ("repeated".into(), Value::Null));
    assert_eq!(top("/other"), ("changed".into(), json!(["content"])));
    let text = world.imgfs(&["whence", "--all", &reference, "/same"]).ok();
    assert!(text.contains("the same again"), "{text}");
}

/// Bytes of these layers, from the top.
fn top_bytes(image: &Image, layers: usize) -> u64 {
    let blobs = image.layers.iter().rev().take(layers);
    let documents = image.manifest.len() + image.blobs[0].len();
    blobs.map(|layer| layer.blob.len() as u64).sum::<u64>() + documents as u64
}

#[test]
fn whence_opens_only_what_the_answer_takes() {
    let world = World::new();
    let image = built();
    let reference = world.put(&image);
    let whence = |arguments: &[&str]| {
        let outcome = world.imgfs(&[&["whence", "--json", &reference], arguments].concat());
        schema::check("whence", &outcome.ok())
    };
    let short = |value: &Value| -> Vec<(u64, String, String)> {
        let rows = value["layers"].as_array().unwrap().iter();
        rows.map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            (
                row["layer"].as_u64().unwrap(),
                text("what"),
                text("created_by"),
            )
        })
        .collect()
    };
    let row = |layer, what: &str, command: &str| (layer, what.to_owned(), command.to_owned());
    let answer = whence(&["/etc/conf"]);
    assert_eq!(
        world.registry.bytes(),
        top_bytes(&image, 1),
        "the top layer decides"
    );
    assert_eq!(short(&answer), [row(3, "set", "COPY conf")]);
    assert_eq!(
        (&answer["complete"], &answer["not_looked_at"]),
        (&false.into(), &3.into())
    );
    assert_eq!(
        (&answer["layers"][0]["mode"], &answer["layers"][0]["size"]),
        (&"0600".into(), &4.into())
    );
    let outcome = world.imgfs(&["whence", &reference, "/etc/conf"]);
    let text = outcome.ok_saying(&["lowest 3 layers were not looked at", "--all"]);
    assert!(text.starts_with("/etc/conf\nLAYER"), "{text}");
    assert!(
        text.contains("added or replaced") && text.contains("COPY conf"),
        "{text}"
    );
    let answer = whence(&["/usr/bin/gone"]);
    assert_eq!(world.registry.bytes(), top_bytes(&image, 2));
    assert_eq!(short(&answer), [row(2, "removed", "RUN rm /usr/bin/gone")]);
    let answer = whence(&["--all", "etc/../etc/conf"]);
    assert_eq!(world.registry.bytes(), top_bytes(&image, 4));
    let chain = [
        row(3, "changed", "COPY conf"),
        row(1, "changed", "RUN two"),
        row(0, "added", "ADD base"),
    ];
    assert_eq!(short(&answer), chain);
    assert_eq!(
        answer["layers"][0]["changed"],
        json!(["mode"]),
        "the bytes are the same"
    );
    // Everything is in the cache now, so it costs nothing.
    assert_eq!(short(&whence(&["/etc/conf"])), chain);
    let gone = [
        row(2, "removed", "RUN rm /usr/bin/gone"),
        row(0, "added", "ADD base"),
    ];
    let answer = whence(&["/bin/gone"]);
    assert_eq!(short(&answer), gone);
    assert_eq!(
        answer["path"], "/usr/bin/gone",
        "links above it are followed"
    );
    let answer = whence(&["/data/old"]);
    assert_eq!(
        (&answer["layers"][0]["how"], &answer["layers"][0]["at"]),
        (&"opaque".into(), &"/data".into())
    );
    let answer = whence(&["/etc/link"]);
    assert_eq!(
        (&answer["layers"][0]["what"], &answer["layers"][0]["target"]),
        (&"hard link".into(), &"etc/conf".into())
    );
    assert_eq!(
        short(&whence(&["/bin"])),
        [row(0, "added", "ADD base")],
        "a link itself"
    );
    world
        .imgfs(&["whence", &reference, "/absent"])
        .fails(1, &["/absent", "no layer", &reference]);
    let text = world.imgfs(&["whence", &reference, "/data/old"]).ok();
    assert!(text.contains("removed: /data begins anew"), "{text}");
}
