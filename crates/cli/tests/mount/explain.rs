//! `imgfs registry explain`: what the user's files come to, without a request.

use serde_json::Value;

use super::*;

/// A world whose user has this as imgfs's own configuration, and its path.
fn configured(text: &str) -> (World, String) {
    let world = World::new();
    let file = world.path(".config/imgfs/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    (world, file.display().to_string())
}

/// The endpoints in the JSON for the only image.
fn endpoints(world: &World, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["registry", "explain", "--json"], arguments].concat();
    let json: Value = serde_json::from_str(&world.imgfs(&arguments).ok()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1, "{json}");
    json[0]["endpoints"].as_array().unwrap().clone()
}

#[test]
fn a_table_says_who_is_asked_how_and_why() {
    let text = "[[registry.\"h.example\".mirror]]\nproxy = \"https://proxy.example:5000/p\"\ntags = false\n\
                headers = { X-Token = \"hunter2\" }\n\
                [[registry.\"h.example\".mirror]]\nlocation = \"mirror.example/h\"\nplain-http = true\n\
                credentials = \"none\"\n";
    let (world, file) = configured(text);
    let table = world.imgfs(&["registry", "explain", "h.example/a/b"]).ok();
    for words in [
        "reference   h.example/a/b:latest",
        &format!("file        {file}: decides"),
        "1  https://proxy.example:5000/p/v2/a/b?ns=h.example  digests only  system's CAs  proxy.example:5000/a/b: none  ",
        &format!("{file}, mirror 1 of 2 for h.example; sent with X-Token"),
        "2  http://mirror.example/v2/h/a/b                    all           none: http    never sent",
        "3  https://h.example/v2/a/b                          all           system's CAs  h.example/a/b",
    ] {
        assert!(table.contains(words), "{table}\nlacks {words}");
    }
    assert!(!table.contains("hunter2"), "{table}");
    let found = endpoints(&world, &["--insecure", "h.example/a/b"]);
    let verified: Vec<_> = found
        .iter()
        .map(|one| one["tls"]["verified"].as_bool())
        .collect();
    assert_eq!(verified, [Some(true), Some(false), Some(false)]);
    assert_eq!(found[0]["headers"], serde_json::json!(["X-Token"]));
    assert_eq!(found[0]["namespace"], "h.example");
    assert_eq!(found[2]["tls"]["use_tls"], "preferred");
    assert_eq!(world.registry.log(), [""; 0], "nothing is sent");
}

#[test]
fn short_names_name_their_file() {
    let (world, file) = configured(
        "unqualified-search-registries = [\"one.example\", \"two.example\"]\n[aliases]\nx = \"h.example/team/x\"\n",
    );
    let explain = |name: &str| world.imgfs(&["registry", "explain", name]).ok();
    let alias = explain("x:1");
    assert!(alias.contains("h.example/team/x:1\n"), "{alias}");
    assert!(
        alias.contains(&format!("short name  alias in {file}")),
        "{alias}"
    );
    let searched = explain("imgfs-has-no-alias");
    for words in [
        "one.example/imgfs-has-no-alias:latest  (tried as number 1)",
        "(tried as number 2)",
    ] {
        assert!(searched.contains(words), "{searched}\nlacks {words}");
    }
    assert!(explain("oci:x").contains("on disk"));
}

#[test]
fn what_is_wrong_or_forbidden_is_said() {
    let check = |text: &str, words: &[&str]| {
        let (world, file) = configured(text);
        let outcome = world.imgfs(&["registry", "explain", "h.example/x"]);
        outcome.fails(1, words);
        outcome.fails(1, &[&file]);
    };
    check(
        "[registry.\"h.example\"]\nblocked = true\n",
        &["h.example/x is blocked by", "\"h.example\""],
    );
    check(
        "[registry.\"h.example\"]\n\nblock = true\n",
        &["line 3", "`block`", "`blocked`"],
    );
    check("[registry", &["line 1"]);
    let world = World::new();
    let daemon = world.path("absent.json");
    let flag = format!("--docker-daemon-config={}", daemon.display());
    world
        .imgfs(&["registry", "explain", &flag, "h.example/x"])
        .fails(1, &["cannot read", "absent.json"]);
}

#[test]
fn flags_name_certificates_and_dockers_daemon() {
    let world = World::new();
    let certificates = world.path("certs");
    std::fs::create_dir(&certificates).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        std::fs::write(certificates.join(name), "").unwrap();
    }
    let dir = certificates.display().to_string();
    let found = endpoints(&world, &["--cert-dir", &dir, "h.example/x"]);
    assert_eq!(
        found[0]["tls"]["authorities"],
        serde_json::json!([format!("{dir}/ca.crt")])
    );
    assert_eq!(found[0]["tls"]["key"], format!("{dir}/client.key"));
    let daemon = world.path("daemon.json");
    std::fs::write(
        &daemon,
        r#"{"registry-mirrors": ["http://mirror.example"]}"#,
    )
    .unwrap();
    let flag = format!("--docker-daemon-config={}", daemon.display());
    let found = endpoints(&world, &[&flag, "docker.io/library/x"]);
    let urls: Vec<_> = found
        .iter()
        .map(|one| one["url"].as_str().unwrap())
        .collect();
    let expected = [
        "http://mirror.example/v2/library/x",
        "https://registry-1.docker.io/v2/library/x",
    ];
    assert_eq!(urls, expected);
}
