//! imgfs's own configuration.

use super::*;

#[test]
fn own_configuration_can_do_what_the_others_can() {
    let machine = Machine::new(&[(
        USER,
        r#"
        [registry."docker.io"]
        headers = { X-Team = "blue" }
        ca = "ca.pem"
        client-certificate = ["c.pem", "/k.pem"]

        [[registry."docker.io".mirror]]
        location = "mirror.example/hub"
        tags = false
        [[registry."docker.io".mirror]]
        proxy = "https://proxy.example:5000/path"
        credentials = "upstream"
        [[registry."docker.io".mirror]]
        proxy = "http://127.0.0.1:5000"
        credentials = "none"
        ca = ["a.pem", "b.pem"]
        client-certificate = "both.pem"
        headers = { A = "1", B = "2" }
        [[registry."docker.io".mirror]]
        location = "other.example"
        plain-http = true

        [registry."*.example.com"]
        location = "else.example/all"
        insecure = true

        [registry."h.io/private"]
        blocked = true

        [registry."only-digests.io"]
        blocked = true
        [[registry."only-digests.io".mirror]]
        location = "mirror.example"
        tags = false
        "#,
    )]);
    let (file, dir) = (format!("/{USER}"), "/home/u/.config/imgfs");
    machine.check(
        "docker.io/library/x",
        &[
            &format!("https://mirror.example/v2/hub/library/x tags=false digests=true as=mirror.example/hub/library/x <- {file}, mirror 1 of 4 for docker.io"),
            &format!("https://proxy.example:5000/path/v2/library/x ns=docker.io as=docker.io/library/x <- {file}, mirror 2 of 4 for docker.io"),
            &format!("http://127.0.0.1:5000/v2/library/x ns=docker.io unverified ca={dir}/a.pem ca={dir}/b.pem identity={dir}/both.pem,{dir}/both.pem A:1 B:2 anonymous <- {file}, mirror 3 of 4 for docker.io"),
            &format!("http://other.example/v2/library/x as=other.example/library/x <- {file}, mirror 4 of 4 for docker.io"),
            &format!("https://registry-1.docker.io/v2/library/x ca={dir}/ca.pem identity={dir}/c.pem,/k.pem X-Team:blue as=docker.io/library/x <- {file}, registry docker.io"),
        ],
    );
    machine.check(
        "a.example.com/x",
        &[&format!("https://else.example/v2/all/x or-http unverified as=else.example/all/x <- {file}, location of *.example.com")],
    );
    machine.check_error("h.io/private/x", &["blocked", USER]);
    machine.check("h.io/x", &["https://h.io/v2/x as=h.io/x <- the reference"]);
    let notes = |name: &str| machine.route(name).unwrap().notes;
    assert!(notes("only-digests.io/x")[0].contains("what a tag points to"));
    assert!(notes("docker.io/library/x").is_empty());
}

#[test]
fn the_users_own_file_wins_entry_by_entry() {
    let mut machine = Machine::new(&[
        (USER, "[registry.\"a.io\"]\nplain-http = true\n"),
        (
            SYSTEM,
            "[registry.\"a.io\"]\nblocked = true\n[registry.\"b.io\"]\ninsecure = true\n",
        ),
        ("else.toml", ""),
    ]);
    let system =
        "https://b.io/v2/x or-http unverified as=b.io/x <- /etc/imgfs/config.toml, registry b.io";
    machine.check(
        "a.io/x",
        &["http://a.io/v2/x as=a.io/x <- /home/u/.config/imgfs/config.toml, registry a.io"],
    );
    machine.check("b.io/x", &[system]);
    machine.read_environment(&[("IMGFS_CONFIG", "else.toml")]);
    machine.check_error("a.io/x", &["blocked", SYSTEM]);
    machine.read_environment(&[("IMGFS_CONFIG", "absent.toml")]);
    machine.check_error("a.io/x", &["cannot read", "/absent.toml"]);
    machine.read_environment(&[("XDG_CONFIG_HOME", "nowhere")]);
    machine.check("b.io/x", &[system]);
}

#[test]
fn bad_own_configuration_is_named_with_what_is_known() {
    let check = |text: &str, words: &[&str]| {
        let machine = Machine::new(&[(USER, text)]);
        machine.check_error("h.io/x", &[USER, "correct the file"]);
        machine.check_error("h.io/x", words);
        let err = machine.route("h.io/x").unwrap_err().to_string();
        assert!(!err.contains("hunter2"), "{err}");
    };
    check(
        "mirrors = 1",
        &[
            "line 1",
            "`mirrors`",
            "`docker-daemon-config`",
            "`registry`",
        ],
    );
    check(
        "[registry.\"a\"]\n\nplain_http = true",
        &["line 3", "`plain_http`", "`plain-http`"],
    );
    check(
        "[[registry.\"a\".mirror]]\nblocked = true",
        &["line 2", "`blocked`", "`proxy`"],
    );
    check(
        "[[registry.\"a\".mirror]]\ntags = true",
        &["line 1", "\"location\"", "\"proxy\""],
    );
    check(
        "[[registry.a.mirror]]\nlocation = \"a\"\nproxy = \"b\"",
        &["line 1", "either"],
    );
    check(
        "[[registry.a.mirror]]\nproxy = \"ftp://b\"",
        &["line 2", "neither https nor http"],
    );
    check("[registry.\"https://a\"]", &["line 1", "as in \"a\""]);
    check("[registry.\"a.io/b:c\"]", &["line 1", "leave them out"]);
    check(
        "[registry.a]\nclient-certificate = []",
        &["line 2", "one PEM file"],
    );
    check(
        "[registry.a]\nheaders = { A = 5 }",
        &["line 2", "expected a string"],
    );
    check(
        "[[registry.a.mirror]]\nlocation = \"a.io\"\ncredentials = \"mine\"",
        &["line 3", "`upstream`"],
    );
    check(
        "[registry.a]\nheaders = { Authorization = Bearer hunter2 }",
        &["line 2"],
    );
    check(
        "[registry.a]\nheaders = \"Authorization: hunter2\"",
        &["line 2", "expected a table"],
    );
    check(
        "[[registry.a.mirror]]\nlocation = \"a.io\"\ncredentials = \"u:hunter2\"",
        &["line 3", "expected one of `own`"],
    );
    check(
        "[registry.a.headers]\nA = \"hunter2\"\nA = \"hunter2\"",
        &["line 3", "duplicate key"],
    );
    check("[registry.a.headers]\nA = 'hunter2", &["line 2"]);
    check(
        "docker-daemon-config = 5",
        &["line 1", "true, false or a path"],
    );
    check("\n= x", &["line 2"]);
}
