//! What login and logout leave in files.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn key(text: &str) -> CredentialKey {
    let (host, repository) = text.split_once('/').unwrap_or((text, ""));
    CredentialKey {
        host: host.to_owned(),
        repository: repository.to_owned(),
    }
}

/// Does something to a file of this name and content; what is in it then, or the error.
fn after(
    name: &str,
    before: &str,
    change: impl FnOnce(&Credentials) -> Result<(), CredentialsError>,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, before).unwrap();
    match change(&Credentials::default().only(file.clone())) {
        Ok(()) => {
            let text = std::fs::read_to_string(&file).unwrap();
            text.split_whitespace().collect()
        }
        Err(err) => err.to_string().replace(dir.path().to_str().unwrap(), ""),
    }
}

#[test]
fn login_changes_one_entry() {
    let check = |name: &str, before: &str, login: &str, expected: &str| {
        let got = after(name, before, |credentials| {
            let stored = credentials.store(&key(login), "u", &Secret::new("p"));
            stored.map(|_| ())
        });
        // "dTpw" is u:p in base64.
        assert_eq!(got, expected, "{login} into {name} with {before}");
    };
    check(
        "config.json",
        "",
        "h:1",
        r#"{"auths":{"h:1":{"auth":"dTpw"}}}"#,
    );
    check(
        "auth.json",
        "{}",
        "docker.io",
        r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#,
    );
    let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
    check("config.json", "{\"auths\":null}", "docker.io", hub);
    check(
        "config.json",
        r#"{"auths":{"docker.io":{"auth":"b2xk"}}}"#,
        "docker.io",
        hub,
    );
    check(
        "auth.json",
        "",
        "h/a/b",
        r#"{"auths":{"h/a/b":{"auth":"dTpw"}}}"#,
    );
    check(
        "config.json",
        "",
        "h/a/b",
        "/config.json keeps one login for each registry, none for h/a/b: name another file of credentials, or log in to h",
    );
    // Order, unknown fields and numbers stay.
    check(
        "config.json",
        r#"{"z":1.50,"auths":{"y":{"auth":"eQ"},"h":{"email":"e","auth":"b2xk","identitytoken":"i"},"a":{}},"HttpHeaders":{"X":"1"},"big":18446744073709551615}"#,
        "h",
        r#"{"z":1.5,"auths":{"y":{"auth":"eQ"},"h":{"email":"e","auth":"dTpw"},"a":{}},"HttpHeaders":{"X":"1"},"big":18446744073709551615}"#,
    );
    check(
        "auth.json",
        r#"{"auths":[]}"#,
        "h",
        "\"auths\" in /auth.json is not a JSON object: correct the file",
    );
    check(
        "auth.json",
        "{",
        "h",
        "the credentials in /auth.json are not valid JSON (line 1, column 1): correct the file or log in again",
    );
}

#[test]
fn logout_removes_one_entry() {
    let check = |name: &str, before: &str, logout: &str, expected: &str| {
        let mut found = None;
        let got = after(name, before, |credentials| {
            found = credentials.erase(&key(logout))?;
            Ok(())
        });
        let got = format!("{} {got}", found.is_some());
        assert_eq!(got, expected, "{logout} out of {name} with {before}");
    };
    let two = r#"{"auths":{"h":{"auth":"dTpw"},"h/a":{"auth":"dTpw"}},"x":1}"#;
    check(
        "auth.json",
        two,
        "h",
        r#"true {"auths":{"h/a":{"auth":"dTpw"}},"x":1}"#,
    );
    check(
        "auth.json",
        two,
        "h/a",
        r#"true {"auths":{"h":{"auth":"dTpw"}},"x":1}"#,
    );
    check("auth.json", two, "other", &format!("false {two}"));
    let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"docker.io":{},"https://index.docker.io/v1/access-token":{}}}"#;
    let desktop = r#"{"auths":{"https://index.docker.io/v1/access-token":{}}}"#;
    check("config.json", hub, "docker.io", &format!("true {desktop}"));
    check(
        ".dockercfg",
        r#"{"https://h/v1/":{"auth":"dTpw"},"g":{}}"#,
        "h",
        r#"true {"g":{}}"#,
    );
    check(
        "config.json",
        r#"{"auths":{"h":{}}}"#,
        "h",
        r#"false {"auths":{}}"#,
    );
}

#[test]
fn logout_from_all_removes_every_entry() {
    let before = r#"{"auths":{"h":{"auth":"dTpw"},"h/a":{"identitytoken":"i"},"g":{}},"x":1}"#;
    let mut erased = Vec::new();
    let got = after("auth.json", before, |credentials| {
        erased = credentials.erase_all()?;
        Ok(())
    });
    assert_eq!(got, r#"{"auths":{},"x":1}"#);
    let names: Vec<_> = erased.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["h", "h/a"]);
}

#[test]
fn the_file_that_has_an_entry_gets_the_login() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let files = || {
        Credentials::new(vec![
            path("run/auth.json"),
            path("docker/config.json"),
            path(".dockercfg"),
        ])
    };
    let check = |login: &str, expected: &str| {
        let origin = files().store(&key(login), "u", &Secret::new("p"));
        let Ok(Origin::File(file)) = origin else {
            panic!("{login}: {origin:?}");
        };
        assert_eq!(file, path(expected), "{login}");
    };
    std::fs::write(path(".dockercfg"), r#"{"h":{"auth":"dTpw"}}"#).unwrap();
    check("h", "docker/config.json");
    check("h/a", "run/auth.json");
    check("g", "docker/config.json");
    std::fs::write(path("run/auth.json"), r#"{"auths":{"g":{"auth":"dTpw"}}}"#).unwrap();
    check("g", "run/auth.json");
    let logout = |expected: Option<&str>| {
        let origin = files().erase(&key("g")).unwrap();
        assert_eq!(origin, expected.map(|file| Origin::File(path(file))));
    };
    logout(Some("run/auth.json"));
    logout(Some("docker/config.json"));
    logout(None);
    let mode = |name: &str| path(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("docker"), mode("docker/config.json")), (0o700, 0o600));
}

#[test]
fn a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("dir")).unwrap();
    std::fs::write(path("dir/real"), "{}").unwrap();
    std::fs::set_permissions(path("dir/real"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("dir/link", path("auth.json")).unwrap();
    std::os::unix::fs::symlink("real", path("dir/link")).unwrap();
    let login = || {
        let credentials = Credentials::default().only(path("auth.json"));
        credentials.store(&key("h"), "u", &Secret::new("p"))
    };
    login().unwrap();
    assert!(path("auth.json").is_symlink() && path("dir/link").is_symlink());
    let real = path("dir/real");
    assert!(std::fs::read_to_string(&real).unwrap().contains("dTpw"));
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing is left beside it.
    assert_eq!(std::fs::read_dir(path("dir")).unwrap().count(), 2);
    std::fs::remove_file(&real).unwrap();
    std::os::unix::fs::symlink("auth.json", path("loop")).unwrap();
    login().unwrap();
    assert!(real.is_file(), "a dangling link is filled");
    std::fs::remove_file(&real).unwrap();
    std::os::unix::fs::symlink("link", &real).unwrap();
    let err = login().unwrap_err().to_string();
    assert!(err.contains("symbolic link"), "{err}");
}

#[test]
fn of_several_logins_at_one_moment_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/auth.json");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let credentials = Credentials::default().only(file.clone());
            scope.spawn(move || {
                for round in 0..5 {
                    let key = key(&format!("h{n}-{round}"));
                    credentials.store(&key, "u", &Secret::new("p")).unwrap();
                }
            });
        }
    });
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches("dTpw").count(), 40, "{text}");
}
