//! All files together: which decides, and what holds beside it.

use Outcome::{Decides, NoEntry, Outranked};

use super::*;

#[test]
fn without_files_the_reference_says_it_all() {
    let machine = Machine::new(&[]);
    machine.check(
        "docker.io/library/x",
        &["https://registry-1.docker.io/v2/library/x as=docker.io/library/x <- the reference"],
    );
    machine.check(
        "[::1]:5000/x",
        &["https://[::1]:5000/v2/x or-http unverified as=[::1]:5000/x <- the reference"],
    );
    let route = machine.route("h.io/x").unwrap();
    assert!(
        route.files.is_empty() && route.notes.is_empty(),
        "{route:?}"
    );
    // The default of the library reads nothing at all.
    assert_eq!(
        Options::default().configuration.own,
        [""; 0].map(PathBuf::from)
    );
}

#[test]
fn the_first_file_with_an_entry_decides() {
    let own = (USER, "[registry.\"docker.io\"]\nplain-http = true\n");
    let hosts = (HUB_HOSTS, "server = \"https://hosts.example\"\n");
    let registries = (
        REGISTRIES,
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"registries.example\"\n",
    );
    let daemon = (
        "etc/docker/daemon.json",
        r#"{"registry-mirrors": ["https://daemon.example"]}"#,
    );
    let check = |files: &[(&str, &str)], expected: (&str, usize), outcomes: &[Outcome]| {
        let machine = Machine::new(files)
            .with(|options| options.configuration.docker_daemon = Some(DockerDaemon::Usual));
        let route = machine.route("docker.io/a/x").unwrap();
        let found = (route.endpoints[0].authority.as_str(), route.endpoints.len());
        assert_eq!(found, expected);
        let found: Vec<_> = route.files.iter().map(|file| file.outcome).collect();
        assert_eq!(found, outcomes, "{:?}", route.files);
    };
    check(
        &[own, hosts, registries, daemon],
        ("registry-1.docker.io", 1),
        &[Decides, Outranked, Outranked, Outranked],
    );
    check(
        &[(SYSTEM, ""), hosts, registries, daemon],
        ("hosts.example", 1),
        &[NoEntry, Decides, Outranked, Outranked],
    );
    check(
        &[registries, daemon],
        ("registries.example", 1),
        &[Decides, Outranked],
    );
    check(
        &[
            (REGISTRIES, "[[registry]]\nlocation = \"other.io\"\n"),
            daemon,
        ],
        ("daemon.example", 2),
        &[NoEntry, Decides],
    );
}

#[test]
fn blocked_holds_unless_imgfs_itself_is_told_otherwise() {
    let blocked = (
        REGISTRIES,
        "[[registry]]\nlocation = \"docker.io/a\"\nblocked = true\n",
    );
    let hosts = (HUB_HOSTS, "server = \"https://hosts.example\"\n");
    let machine = Machine::new(&[blocked, hosts]);
    machine.check_error(
        "docker.io/a/x",
        &["docker.io/a/x is blocked by", REGISTRIES],
    );
    assert_eq!(
        machine.route("docker.io/b/x").unwrap().endpoints[0].authority,
        "hosts.example"
    );
    let own = (USER, "[registry.\"docker.io\"]\n");
    let machine = Machine::new(&[blocked, hosts, own]);
    assert_eq!(machine.route("docker.io/a/x").unwrap().endpoints.len(), 1);
    // Nor does a file that nobody needs have to be right.
    let machine = Machine::new(&[(REGISTRIES, "broken ["), own]);
    assert!(machine.route("docker.io/a/x").is_ok());
    machine.check_error("h.io/x", &["line 1"]);
}

#[test]
fn dockers_daemon_counts_only_if_asked() {
    let daemon = (
        "etc/docker/daemon.json",
        r#"{"registry-mirrors": ["https://m.example/", "http://10.1.2.3:5000"], "insecure-registries": ["10.0.0.0/8", "h.io:5000"], "debug": true}"#,
    );
    let machine = Machine::new(&[daemon]);
    let plain = "https://h.io:5000/v2/x as=h.io:5000/x <- the reference";
    machine.check("h.io:5000/x", &[plain]);
    let usual =
        |options: &mut Options| options.configuration.docker_daemon = Some(DockerDaemon::Usual);
    let machine = machine.with(usual);
    let file = "/etc/docker/daemon.json";
    machine.check(
        "h.io:5000/x",
        &[&format!("https://h.io:5000/v2/x or-http unverified as=h.io:5000/x <- {file}, insecure-registries")],
    );
    machine.check(
        "docker.io/library/x",
        &[
            &format!("https://m.example/v2/library/x as=m.example/library/x <- {file}, mirror 1 of 2"),
            &format!("http://10.1.2.3:5000/v2/library/x as=10.1.2.3:5000/library/x <- {file}, mirror 2 of 2"),
            &format!("https://registry-1.docker.io/v2/library/x as=docker.io/library/x <- {file}: after the mirrors, the registry itself"),
        ],
    );
    machine.check("h.io/x", &["https://h.io/v2/x as=h.io/x <- the reference"]);
    // By imgfs's own configuration, which the flag overrides.
    let other = (
        "home/u/.config/imgfs/d.json",
        r#"{"insecure-registries": ["h.io"]}"#,
    );
    let setting = (USER, "docker-daemon-config = \"d.json\"");
    let machine = Machine::new(&[daemon, other, setting]);
    assert_eq!(
        machine.route("h.io/x").unwrap().endpoints[0].scheme,
        Scheme::HttpsOrHttp
    );
    let machine = machine.with(usual);
    assert_eq!(
        machine.route("h.io/x").unwrap().endpoints[0].scheme,
        Scheme::Https
    );
    let machine = Machine::new(&[daemon, (USER, "docker-daemon-config = true")]);
    assert_eq!(machine.route("docker.io/a/x").unwrap().endpoints.len(), 3);
    // None there.
    let machine = Machine::new(&[]).with(usual);
    assert!(machine.route("h.io/x").unwrap().notes[0].contains("there is none"));
    let machine = Machine::new(&[setting]);
    machine.check_error("h.io/x", &["cannot read", "/d.json"]);
    for (text, words) in [
        (
            "{\n\"registry-mirrors\": 5}",
            &["line 2", "lists of strings"][..],
        ),
        ("{", &["line 1", "not valid JSON"]),
        (
            "{\n\"registry-mirrors\":\n[\"ftp://a\"]}",
            &["line 3", "neither https nor http"],
        ),
    ] {
        let machine = Machine::new(&[("etc/docker/daemon.json", text)]).with(usual);
        machine.check_error("docker.io/x", words);
    }
}

#[test]
fn certificates_are_found_by_host() {
    let machine = Machine::new(&[
        ("etc/docker/certs.d/docker.io/ca.crt", ""),
        ("etc/docker/certs.d/h.io:5000/b.crt", ""),
        ("etc/docker/certs.d/h.io:5000/a.crt", ""),
        ("etc/docker/certs.d/h.io:5000/client.cert", ""),
        ("etc/docker/certs.d/h.io:5000/client.key", ""),
        ("etc/docker/certs.d/h.io:5000/other.cert", ""),
        ("etc/docker/certs.d/both.io/docker.crt", ""),
        ("etc/containers/certs.d/both.io/podman.crt", ""),
        ("home/u/.config/containers/certs.d/mine.io/client.cert", ""),
        ("etc/containerd/certs.d/contained.io/ca.crt", ""),
        ("etc/containers/certs.d/mirror.io/ca.crt", ""),
        (
            USER,
            "[registry.\"own.io\"]\n[[registry.\"own.io\".mirror]]\nlocation = \"mirror.io\"\n[[registry.\"own.io\".mirror]]\nlocation = \"mirror.io\"\nca = \"own.pem\"\n[[registry.\"own.io\".mirror]]\nlocation = \"mirror.io\"\nplain-http = true\n",
        ),
        ("certs/x.crt", ""),
    ]);
    machine.check(
        "docker.io/a/x",
        &["https://registry-1.docker.io/v2/a/x ca=/etc/docker/certs.d/docker.io/ca.crt as=docker.io/a/x <- the reference"],
    );
    let dir = "/etc/docker/certs.d/h.io:5000";
    machine.check(
        "h.io:5000/x",
        &[&format!("https://h.io:5000/v2/x ca={dir}/a.crt ca={dir}/b.crt identity={dir}/client.cert,{dir}/client.key as=h.io:5000/x <- the reference")],
    );
    let notes = machine.route("h.io:5000/x").unwrap().notes;
    assert!(notes[0].contains("other.cert: only the first"), "{notes:?}");
    machine.check("h.io/x", &["https://h.io/v2/x as=h.io/x <- the reference"]);
    machine.check(
        "both.io/x",
        &["https://both.io/v2/x ca=/etc/containers/certs.d/both.io/podman.crt as=both.io/x <- the reference"],
    );
    let both = "/home/u/.config/containers/certs.d/mine.io/client.cert";
    machine.check(
        "mine.io/x",
        &[&format!(
            "https://mine.io/v2/x identity={both},{both} as=mine.io/x <- the reference"
        )],
    );
    machine.check(
        "contained.io/x",
        &["https://contained.io/v2/x ca=/etc/containerd/certs.d/contained.io/ca.crt as=contained.io/x <- the reference"],
    );
    let by = |number: u32| format!("as=mirror.io/x <- /{USER}, mirror {number} of 3 for own.io");
    machine.check(
        "own.io/x",
        &[
            &format!(
                "https://mirror.io/v2/x ca=/etc/containers/certs.d/mirror.io/ca.crt {}",
                by(1)
            ),
            &format!(
                "https://mirror.io/v2/x ca=/home/u/.config/imgfs/own.pem {}",
                by(2)
            ),
            &format!("http://mirror.io/v2/x {}", by(3)),
            &format!("https://own.io/v2/x as=own.io/x <- /{USER}, registry own.io"),
        ],
    );
    // The flag is for the reference's own registry.
    let dir = machine.root.path().join("certs");
    let machine = machine.with(|options| options.configuration.certificate_dir = Some(dir));
    machine.check(
        "docker.io/a/x",
        &["https://registry-1.docker.io/v2/a/x ca=/certs/x.crt as=docker.io/a/x <- the reference"],
    );
    let endpoints = machine.route("own.io/x").unwrap().endpoints;
    let shown: Vec<_> = endpoints
        .iter()
        .map(|one| one.tls.authorities.len())
        .collect();
    assert_eq!(shown, [1, 1, 0, 1]);
    assert!(line(&endpoints[3]).contains("certs/x.crt"));
}

#[test]
fn flags_are_for_the_references_own_registry() {
    let files = [(
        USER,
        "[[registry.\"h.io\".mirror]]\nlocation = \"m.io\"\n[registry.\"moved.io\"]\nlocation = \"new.io\"\n",
    )];
    let machine = Machine::new(&files).with(|options| options.plain_http = true);
    machine.check(
        "h.io/x",
        &[
            &format!("https://m.io/v2/x as=m.io/x <- /{USER}, mirror 1 of 1 for h.io"),
            &format!("http://h.io/v2/x as=h.io/x <- /{USER}, registry h.io"),
        ],
    );
    let route = machine.route("moved.io/x").unwrap();
    assert_eq!(route.endpoints[0].scheme, Scheme::Https);
    assert!(
        route.notes[0].contains("hold for moved.io only"),
        "{:?}",
        route.notes
    );
    let machine = Machine::new(&files).with(|options| options.insecure = true);
    let endpoints = machine.route("h.io/x").unwrap().endpoints;
    let unverified: Vec<_> = endpoints.iter().map(|one| one.tls.unverified).collect();
    assert_eq!(unverified, [false, true]);
}
