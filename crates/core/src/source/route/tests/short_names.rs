//! Names without a host.

use super::*;

#[test]
fn short_names_become_full_ones() {
    let machine = Machine::new(&[
        (
            REGISTRIES,
            "unqualified-search-registries = [\"one.io\", \"docker.io\", \"[::1]:5000\"]\n\
             [aliases]\n\"tool\" = \"h.io/team/tool\"\n\"bad\" = \"h.io/bad:1\"\n\"short\" = \"bad\"\n",
        ),
        (
            "etc/containers/registries.conf.d/shortnames.conf",
            "[aliases]\n\"ubi\" = \"red.io/ubi\"\n\"tool\" = \"\"\n\"a/b\" = \"h.io/ab\"\n\"chosen\" = \"h.io/x\"\n",
        ),
        (
            "cache/short-name-aliases.conf",
            "[aliases]\n\"chosen\" = \"mine.io/x\"\n",
        ),
        (USER, "[aliases]\nubi = \"own.io/ubi\"\n"),
    ]);
    let search = "(unqualified-search-registries in /etc/containers/registries.conf)";
    let names = "(alias in /etc/containers/registries.conf.d/shortnames.conf)";
    machine.check_candidates(
        "ubi",
        "own.io/ubi:latest (alias in /home/u/.config/imgfs/config.toml)",
    );
    machine.check_candidates("a/b:1", &format!("h.io/ab:1 {names}"));
    machine.check_candidates(
        "chosen",
        "mine.io/x:latest (alias in /cache/short-name-aliases.conf)",
    );
    machine.check_candidates(
        "tool:2",
        &format!("one.io/tool:2 docker.io/library/tool:2 [::1]:5000/tool:2 {search}"),
    );
    machine.check_candidates("h.io/x", "h.io/x:latest");
    machine.check_candidates("docker://x", "docker.io/library/x:latest");
    machine.check_candidates("oci:ubi", "oci:ubi");
    machine.check_candidates(
        "bad",
        "/etc/containers/registries.conf makes \"h.io/bad:1\" of \"bad\": an alias is a full name without tag and digest: correct it there, or write the image's full name",
    );
    let err = candidates("short", &machine.options.configuration).unwrap_err();
    assert!(err.to_string().contains("correct it there"), "{err}");
    assert!(candidates("Upper", &machine.options.configuration).is_err());
    Machine::new(&[]).check_candidates("x", "docker.io/library/x:latest");
}

#[test]
fn guessing_can_be_forbidden() {
    let two = "unqualified-search-registries = [\"one.io\", \"two.io\"]\n";
    let enforcing = format!("{two}short-name-mode = \"enforcing\"\n");
    let machine = Machine::new(&[(REGISTRIES, &enforcing)]);
    machine.check_candidates(
        "x",
        "\"x\" may mean one.io/x:latest or two.io/x:latest: write the one that is meant in full \
         (short-name-mode is \"enforcing\" in /etc/containers/registries.conf)",
    );
    let own = "unqualified-search-registries = [\"own.io\"]\n";
    let machine = Machine::new(&[(REGISTRIES, &enforcing), (USER, own)]);
    let search = "(unqualified-search-registries in /home/u/.config/imgfs/config.toml)";
    machine.check_candidates("x", &format!("own.io/x:latest {search}"));
    let both = format!("{two}short-name-mode = \"disabled\"\n[aliases]\nx = \"\"\n");
    let machine = Machine::new(&[(REGISTRIES, &enforcing), (USER, &both)]);
    machine.check_candidates("x", &format!("one.io/x:latest two.io/x:latest {search}"));
    let none = (USER, "unqualified-search-registries = []\n");
    Machine::new(&[(REGISTRIES, two), none]).check_candidates("x", "docker.io/library/x:latest");
}
