//! registries.conf of podman and its relatives.

use super::*;

#[test]
fn registries_conf_replaces_prefixes() {
    let machine = Machine::new(&[(
        REGISTRIES,
        r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example/bar"
        insecure = true
        future-key = "is ignored"

        [[registry.mirror]]
        location = "mirror-0.example/for-foo"
        [[registry.mirror]]
        location = "mirror-1.example:5000/mirrors/foo/"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "localhost:5000"
        pull-from-mirror = "tag-only"

        [[registry]]
        location = "registry.com"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "mirror.registry.com"

        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        [[registry]]
        prefix = "*.deep.wild.example"
        location = "docker.io"

        [[registry]]
        location = "blocked.io/library"
        blocked = true
        "#,
    )]);
    let file = format!("/{REGISTRIES}");
    machine.check(
        "example.com/foo/image",
        &[
            &format!("https://mirror-0.example/v2/for-foo/image as=mirror-0.example/for-foo/image <- {file}, mirror 1 of 3 for example.com/foo"),
            &format!("https://mirror-1.example:5000/v2/mirrors/foo/image or-http tags=false digests=true unverified as=mirror-1.example:5000/mirrors/foo/image <- {file}, mirror 2 of 3 for example.com/foo"),
            &format!("https://localhost:5000/v2/image or-http tag-only unverified as=localhost:5000/image <- {file}, mirror 3 of 3 for example.com/foo"),
            &format!("https://internal.example/v2/bar/image or-http unverified as=internal.example/bar/image <- {file}, location of example.com/foo"),
        ],
    );
    machine.check(
        "example.com/food",
        &["https://example.com/v2/food as=example.com/food <- the reference"],
    );
    machine.check(
        "registry.com/image",
        &[
            &format!("https://mirror.registry.com/v2/image tags=false digests=true as=mirror.registry.com/image <- {file}, mirror 1 of 1 for registry.com"),
            &format!("https://registry.com/v2/image as=registry.com/image <- {file}, registry registry.com"),
        ],
    );
    machine.check(
        "a.wild.example:5000/x",
        &[&format!("https://a.wild.example:5000/v2/x or-http unverified as=a.wild.example:5000/x <- {file}, registry *.wild.example")],
    );
    // A name of one part on Docker Hub is below library/.
    machine.check(
        "a.deep.wild.example/x",
        &[&format!("https://registry-1.docker.io/v2/library/x as=docker.io/library/x <- {file}, location of *.deep.wild.example")],
    );
    machine.check_error(
        "blocked.io/library/x",
        &[
            "blocked.io/library/x is blocked by",
            REGISTRIES,
            "write an entry for it into imgfs's own configuration",
        ],
    );
    machine.check_error(
        "example.com/foo",
        &["localhost:5000", "correct the location"],
    );
}

#[test]
fn bad_registries_conf_is_named_with_its_line() {
    let check = |text: &str, words: &[&str]| {
        let machine = Machine::new(&[(REGISTRIES, text)]);
        machine.check_error("h.io/x", &[REGISTRIES, "correct the file"]);
        machine.check_error("h.io/x", words);
    };
    check(
        "[[registry]]\nlocation = 5",
        &["line 2", "expected a string"],
    );
    check(
        "\n[[registry]]\nblocked = true",
        &["line 2", "a prefix, a location or both"],
    );
    check(
        "[[registry]]\nprefix = \"a.io\"",
        &["line 1", "\"a.io\" needs a location"],
    );
    check(
        "[[registry]]\nlocation = \"https://a.io\"",
        &["line 2", "as in \"a.io\""],
    );
    check(
        "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"x\"",
        &["line 5", "\"x\" is none of"],
    );
    check(
        "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"",
        &["line 6", "cannot be beside"],
    );
    check(
        "short-name-mode = \"strict\"",
        &["line 1", "\"strict\" is none of"],
    );
    check("a = 1\na = 2", &["line 2", "duplicate key"]);
}

#[test]
fn registries_conf_has_drop_ins_and_a_users_file() {
    let insecure =
        |location: &str| format!("[[registry]]\nlocation = \"{location}\"\ninsecure = true\n");
    let blocked =
        |location: &str| format!("[[registry]]\nlocation = \"{location}\"\nblocked = true\n");
    let (system, user) = (insecure("h.io"), insecure("user.io"));
    let (first, second) = (blocked("h.io"), "[[registry]]\nlocation = \"h.io\"\n");
    let home = "home/u/.config/containers/registries.conf";
    let mut files = vec![
        (REGISTRIES, system.as_str()),
        ("etc/containers/registries.conf.d/10-b.conf", first.as_str()),
        ("etc/containers/registries.conf.d/20-a.conf", second),
        ("etc/containers/registries.conf.d/30.txt", "not toml"),
        (
            "home/u/.config/containers/registries.conf.d/x.conf",
            user.as_str(),
        ),
    ];
    let machine = Machine::new(&files);
    machine.check(
        "h.io/x",
        &["https://h.io/v2/x as=h.io/x <- /etc/containers/registries.conf.d/20-a.conf, registry h.io"],
    );
    let of_user = "https://user.io/v2/x or-http unverified as=user.io/x <- /home/u/.config/containers/registries.conf.d/x.conf, registry user.io";
    machine.check("user.io/x", &[of_user]);
    // With a file of the user's own, the system's do not count.
    files.push((home, ""));
    let mut machine = Machine::new(&files);
    machine.check("h.io/x", &["https://h.io/v2/x as=h.io/x <- the reference"]);
    machine.check("user.io/x", &[of_user]);
    // A file named by the environment takes the place of the other two, not of the drop-ins.
    machine.read_environment(&[("CONTAINERS_REGISTRIES_CONF", "absent")]);
    machine.check_error("h.io/x", &["cannot read", "/absent"]);
    machine.read_environment(&[("CONTAINERS_REGISTRIES_CONF", home)]);
    machine.check(
        "h.io/x",
        &["https://h.io/v2/x as=h.io/x <- /etc/containers/registries.conf.d/20-a.conf, registry h.io"],
    );
}

#[test]
fn registries_conf_of_the_first_version() {
    let machine = Machine::new(&[(
        REGISTRIES,
        "[registries.search]\nregistries = ['one.io', 'two.io']\n\
         [registries.insecure]\nregistries = ['three.io']\n[registries.block]\nregistries = ['bad.io']\n",
    )]);
    machine.check(
        "three.io/x",
        &["https://three.io/v2/x or-http unverified as=three.io/x <- /etc/containers/registries.conf, registry three.io"],
    );
    machine.check_error("bad.io/x", &["blocked"]);
    machine.check_candidates(
        "x",
        "one.io/x:latest two.io/x:latest (unqualified-search-registries in /etc/containers/registries.conf)",
    );
}

#[test]
fn entries_for_one_version_are_told_to_have_no_effect() {
    let machine = Machine::new(&[(
        REGISTRIES,
        "[[registry]]\nlocation = \"h.io/x:1\"\nblocked = true\n",
    )]);
    let notes = machine.route("h.io/x").unwrap().notes;
    assert!(
        notes[0].contains("\"h.io/x:1\" is for one tag or digest"),
        "{notes:?}"
    );
    assert!(machine.route("h.io/y").unwrap().notes.is_empty());
}

/// "Never ask the source" is written as a blocked registry with mirrors.
#[test]
fn blocked_registries_leave_their_mirrors() {
    let machine = Machine::new(&[(
        REGISTRIES,
        r#"
        [[registry]]
        location = "source.io"
        blocked = true
        [[registry.mirror]]
        location = "docker.io/mirror"
        [[registry.mirror]]
        location = "bad.io"
        [[registry]]
        location = "docker.io/mirror"
        insecure = true
        [[registry]]
        location = "bad.io"
        blocked = true
        [[registry]]
        prefix = "lost.io"
        location = "bad.io"
        "#,
    )]);
    machine.check(
        "source.io/x",
        &["https://registry-1.docker.io/v2/mirror/x as=docker.io/mirror/x <- /etc/containers/registries.conf, mirror 1 of 2 for source.io"],
    );
    let notes = machine.route("source.io/x").unwrap().notes;
    assert!(notes[0].ends_with("blocks bad.io/x"), "{notes:?}");
    machine.check_error("lost.io/x", &["lost.io/x is blocked", "\"bad.io\""]);
    machine.check_error("bad.io/x", &["bad.io/x is blocked"]);
}
