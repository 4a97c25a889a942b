//! hosts.toml of containerd.

use super::*;

#[test]
fn hosts_toml_keeps_the_order_of_its_tables() {
    let machine = Machine::new(&[(
        HUB_HOSTS,
        r#"
        server = "https://docker.io.example"
        ca = "own.pem"

        [host."https://zeta.example"]
          capabilities = ["pull", "Resolve"]
        [host."http://alpha.example:5000/some/path/"]
          capabilities = ["pull"]
          dial_timeout = "1m30s"
          [host."http://alpha.example:5000/some/path/".header]
            x-one = "1"
            x-two = ["2", "3"]
        [host."https://middle.example/api/v2"]
          skip_verify = true
          ca = ["a.pem", "/b.pem"]
          client = [["c.cert", "c.key"], ["d.cert", "d.key"]]
        [host."beta.example/whole"]
          override_path = true
          client = "both.pem"
          unknown_key = 1
        [host."http://tls.example:5000"]
          skip_verify = false
        [host."https://push.example"]
          capabilities = ["push"]
        "#,
    )]);
    let dir = "/etc/containerd/certs.d/docker.io";
    let by = |number: u32| format!("<- {dir}/hosts.toml, host {number} of 6");
    machine.check(
        "docker.io/library/x",
        &[
            format!("https://zeta.example/v2/library/x ns=docker.io as=zeta.example/library/x {}", by(1)),
            format!("http://alpha.example:5000/some/path/v2/library/x ns=docker.io tags=false digests=true x-one:1 x-two:2 x-two:3 within=90s as=alpha.example:5000/library/x {}", by(2)),
            format!("https://middle.example/api/v2/library/x ns=docker.io unverified ca={dir}/a.pem ca=/b.pem identity={dir}/c.cert,{dir}/c.key as=middle.example/library/x {}", by(3)),
            format!("https://beta.example/whole/library/x ns=docker.io identity={dir}/both.pem,{dir}/both.pem as=beta.example/library/x {}", by(4)),
            format!("https://tls.example:5000/v2/library/x ns=docker.io or-http as=tls.example:5000/library/x {}", by(5)),
            format!("https://docker.io.example/v2/library/x ns=docker.io ca={dir}/own.pem as=docker.io.example/library/x <- {dir}/hosts.toml, server"),
        ]
        .each_ref()
        .map(String::as_str),
    );
    let notes = machine.route("docker.io/library/x").unwrap().notes;
    assert!(
        notes[0].contains("https://push.example) is for pushing only"),
        "{notes:?}"
    );
}

#[test]
fn hosts_toml_without_server_ends_with_the_registry() {
    let machine = Machine::new(&[
        (
            HUB_HOSTS,
            "capabilities = [\"pull\"]\n[host.\"https://registry-1.docker.io\"]\n",
        ),
        (
            "etc/containerd/certs.d/h.io_5000_/hosts.toml",
            "skip_verify = true",
        ),
        ("etc/containerd/certs.d/h.io:5000/hosts.toml", "not [ toml"),
        (
            "etc/containerd/certs.d/_default/hosts.toml",
            "server = \"https://all.example\"",
        ),
        ("etc/containerd/certs.d/empty.io/hosts.toml", " \n"),
    ]);
    let dir = "/etc/containerd/certs.d";
    machine.check(
        "docker.io/library/x",
        &[
            &format!("https://registry-1.docker.io/v2/library/x as=docker.io/library/x <- {dir}/docker.io/hosts.toml, host 1 of 1"),
            &format!("https://registry-1.docker.io/v2/library/x as=docker.io/library/x <- {dir}/docker.io/hosts.toml: no server, so the registry itself"),
        ],
    );
    machine.check(
        "h.io:5000/x",
        &[&format!("https://h.io:5000/v2/x unverified as=h.io:5000/x <- {dir}/h.io_5000_/hosts.toml: no server, so the registry itself")],
    );
    machine.check(
        "other.io/x",
        &[&format!("https://all.example/v2/x ns=other.io as=all.example/x <- {dir}/_default/hosts.toml, server")],
    );
    machine.check(
        "empty.io/x",
        &["https://empty.io/v2/x as=empty.io/x <- the reference"],
    );
}

#[test]
fn bad_hosts_toml_is_named_with_its_line() {
    let check = |text: &str, words: &[&str]| {
        let machine = Machine::new(&[(HUB_HOSTS, text)]);
        machine.check_error("docker.io/x", &["docker.io/hosts.toml", "correct the file"]);
        machine.check_error("docker.io/x", words);
        let err = machine.route("docker.io/x").unwrap_err().to_string();
        assert!(!err.contains("hunter2"), "{err}");
    };
    check("server = \"a\"\n[host", &["line 2"]);
    check(
        "\n[host.\"https://a\"]\ncapabilities = [\"pul\"]",
        &["line 3", "\"pul\" is none of"],
    );
    check("[host.\"ftp://a\"]", &["line 1", "\"ftp\" is neither"]);
    check(
        "[host.\"https://u:hunter2@a\"]",
        &["line 1", "credentials belong"],
    );
    check("ca = 5", &["line 1", "a string or a list of strings"]);
    check("client = [[\"a\", \"b\", \"c\"]]", &["line 1"]);
    check("header = \"hunter2\"", &["line 1", "expected a table"]);
    check(
        "[header]\n\"a b\" = \"hunter2\"",
        &["line 2", "\"a b\" is no name"],
    );
    check(
        "[header]\na = \"hunter2\\n\"",
        &["line 2", "control characters"],
    );
    check(
        "dial_timeout = \"soon\"",
        &["line 1", "\"soon\" is no time"],
    );
    let machine = Machine::new(&[(
        HUB_HOSTS,
        "server = \"https://a\"\ncapabilities = [\"push\"]\n",
    )]);
    machine.check_error("docker.io/x", &["no host for docker.io/x", "\"pull\""]);
}
