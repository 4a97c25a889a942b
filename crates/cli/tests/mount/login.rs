//! Logging in and out, and where passwords must not be.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use crate::process::{Outcome, run, run_with_input, wait_for};
use crate::support::registry::encode;

use super::*;

/// A world whose registry wants a password.
fn world() -> (World, String) {
    let world = World::new();
    let reference = world.put(&sample());
    world.registry.require_basic("user", "hunter2");
    (world, reference)
}

/// Runs imgfs with a password on stdin.
fn with_password(world: &World, arguments: &[&str], password: &str) -> Outcome {
    run_with_input(
        world.command(IMGFS).args(arguments),
        &format!("{password}\n"),
    )
}

fn login(world: &World, password: &str) -> Outcome {
    let host = world.registry.host();
    let arguments = ["login", "-u", "user", "--password-stdin", &host];
    with_password(world, &arguments, password)
}

fn content(world: &World, file: &str) -> String {
    let text = std::fs::read_to_string(world.path(file)).unwrap_or_default();
    text.split_whitespace().collect()
}

fn write_config(world: &World, content: &str) {
    std::fs::create_dir_all(world.path(".docker")).unwrap();
    std::fs::write(world.path(".docker/config.json"), content).unwrap();
}

#[test]
fn login_keeps_what_the_registry_accepts_and_logout_forgets_it() {
    let (world, reference) = world();
    let host = world.registry.host();
    write_config(
        &world,
        r#"{"HttpHeaders":{"X":"1"},"auths":{},"psFormat":"t"}"#,
    );
    world.imgfs(&["ls", &reference]).fails(1, &["imgfs login"]);
    let before = content(&world, ".docker/config.json");
    login(&world, "hunter3").fails(1, &["not logged in", "does not accept this user name"]);
    assert_eq!(content(&world, ".docker/config.json"), before);
    let said = login(&world, "hunter2");
    said.fails(0, &[&format!("logged in to {host} as user"), "config.json"]);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    let auth = encode("user", "hunter2");
    assert_eq!(
        content(&world, ".docker/config.json"),
        format!(
            r#"{{"HttpHeaders":{{"X":"1"}},"auths":{{"{host}":{{"auth":"{auth}"}}}},"psFormat":"t"}}"#
        )
    );
    let mode = world.path(".docker/config.json").metadata().unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        world.imgfs(&["cat", &reference, "/etc/release"]).ok(),
        "top\n"
    );
    let logout = world.imgfs(&["logout", &host]);
    logout.ok_saying(&[&format!("logged out of {host}"), "config.json"]);
    assert_eq!(content(&world, ".docker/config.json"), before);
    let again = world.imgfs(&["logout", &host]);
    again.ok_saying(&["there was no login"]);
    world.imgfs(&["ls", &reference]).fails(1, &["imgfs login"]);
}

#[test]
fn the_file_can_be_named() {
    let (world, reference) = world();
    let host = world.registry.host();
    let file = world.path("new/dir/auth.json").display().to_string();
    let arguments = [
        "login",
        "--username",
        "user",
        "--password-stdin",
        "--authfile",
    ];
    let arguments = [&arguments[..], &[&file, &host]].concat();
    with_password(&world, &arguments, "hunter2").ok();
    assert!(!world.path(".docker").exists());
    let ls = |variable: &str| {
        run(world
            .command(IMGFS)
            .args(["ls", &reference])
            .env(variable, &file))
    };
    ls("OTHER").fails(1, &["imgfs login"]);
    ls("REGISTRY_AUTH_FILE").ok();
    let namespace = format!("{host}/team");
    let arguments = ["login", "-u", "user", "--password-stdin", &namespace];
    with_password(&world, &arguments, "hunter2").ok();
    let auth = encode("user", "hunter2");
    assert_eq!(
        content(&world, "containers/auth.json"),
        format!(r#"{{"auths":{{"{namespace}":{{"auth":"{auth}"}}}}}}"#)
    );
    world.imgfs(&["logout", "--all"]).ok_saying(&[&namespace]);
    assert_eq!(content(&world, "containers/auth.json"), r#"{"auths":{}}"#);
    let all = world.imgfs(&["logout", "--all", "--authfile", &file]);
    all.ok_saying(&[&host]);
    world
        .imgfs(&["logout", "--all"])
        .ok_saying(&["there were no logins"]);
}

#[test]
fn a_helper_keeps_and_forgets() {
    let (world, reference) = world();
    let host = world.registry.host();
    let helper = world.path("bin/docker-credential-test");
    std::fs::create_dir(world.path("bin")).unwrap();
    let script = "#!/bin/sh\ncd \"$HOME\"\ncase $1 in\nstore) cat > kept;;\nerase) rm kept;;\n\
        get) cat kept 2> /dev/null || { echo credentials not found in native keychain; exit 1; };;\nesac\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    write_config(&world, r#"{"credsStore":"test"}"#);
    let path = format!(
        "{}:{}",
        world.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let mut login = world.command(IMGFS);
    login.args(["login", "-u", "user", "--password-stdin", &host]);
    let said = run_with_input(login.env("PATH", &path), "hunter2");
    said.ok_saying(&["kept by docker-credential-test"]);
    assert_eq!(
        content(&world, "kept"),
        format!(r#"{{"ServerURL":"{host}","Username":"user","Secret":"hunter2"}}"#)
    );
    let config = content(&world, ".docker/config.json");
    assert!(!config.contains(&encode("user", "hunter2")), "{config}");
    let imgfs = |arguments: &[&str]| run(world.command(IMGFS).args(arguments).env("PATH", &path));
    imgfs(&["ls", &reference]).ok();
    imgfs(&["logout", &host]).ok_saying(&["docker-credential-test"]);
    assert!(!world.path("kept").exists());
    imgfs(&["ls", &reference]).fails(1, &["imgfs login"]);
    // Not on the PATH.
    world.imgfs(&["ls", &reference]).fails(
        1,
        &[
            "docker-credential-test",
            "config.json",
            "is not on the PATH",
        ],
    );
}

#[test]
fn a_password_can_come_with_every_command() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry.require_token(Some(("user", "hunter2")));
    let user = ["--username", "user", "--password-stdin"];
    let with = |command: &[&str], password: &str| {
        with_password(&world, &[command, &user, &[&reference]].concat(), password)
    };
    with(&["ls"], "hunter2").ok();
    with(&["inspect"], "hunter3").fails(1, &["from the command line are not accepted"]);
    with(&["manifest", "inspect"], "").fails(1, &["the password is empty"]);
    let dir = world.mountpoint();
    let arguments = ["mount", &reference, dir.to_str().unwrap()];
    with_password(&world, &[&arguments[..], &user].concat(), "hunter3")
        .fails(1, &["from the command line are not accepted"]);
    let outcome = with_password(&world, &[&arguments[..], &user].concat(), "hunter2");
    outcome.ok();
    let mount = world.adopt(dir);
    world.registry.revoke_tokens();
    world.evict();
    // Renewed with the password that went through the pipe.
    assert!(mount.read("noise") == noise(1, 3_000_000));
    mount.end(&world);
    let files = ["ls", "--username", "user", "oci:nowhere"];
    world.imgfs(&files).fails(1, &["is in no registry"]);
    world
        .imgfs(&["ls", "--password-stdin", &reference])
        .fails(2, &["--username"]);
    world
        .imgfs(&["login", "-u", "user"])
        .fails(1, &["--password-stdin"]);
}

/// Runs imgfs on a terminal of its own, where `user` is typed if asked for, and the password once
/// echo is off. What the terminal showed.
fn on_terminal(world: &World, arguments: &[&str], types_user: bool) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let mut options = std::fs::File::options();
    let theirs = options.read(true).write(true).open(name).unwrap();
    let mut command = world.command("setsid");
    command
        .args(["--ctty", "--wait", IMGFS])
        .args(arguments)
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut ours = std::fs::File::from(ours);
    if types_user {
        ours.write_all(b"user\n").unwrap();
    }
    wait_for("the end of echo", || {
        let modes = tcgetattr(&theirs).unwrap().local_modes;
        !modes.contains(LocalModes::ECHO)
    });
    drop(theirs);
    ours.write_all(b"hunter2\n").unwrap();
    let mut status = None;
    wait_for("the end of imgfs", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let mut seen = Vec::new();
    // It ends with an error when nobody has the terminal open any more.
    let _hung_up = ours.read_to_end(&mut seen);
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(status.unwrap().success(), "{seen}");
    assert!(!seen.contains("hunter2"), "{seen}");
    seen
}

#[test]
fn a_terminal_is_asked_without_echo() {
    if !has(&["setsid"]) {
        return;
    }
    let (world, _) = world();
    let seen = on_terminal(&world, &["login", &world.registry.host()], true);
    for words in ["User name on", "Password of user on", "logged in to"] {
        assert!(seen.contains(words), "{seen}");
    }
}

#[test]
fn a_password_typed_for_a_mount_reaches_who_serves_it() {
    let Some(world) = World::mounting() else {
        return;
    };
    if !has(&["setsid"]) {
        return;
    }
    let reference = world.put(&sample());
    world.registry.require_basic("user", "hunter2");
    let dir = world.mountpoint();
    let arguments = ["mount", "--username", "user", &reference];
    let arguments = [&arguments[..], &[dir.to_str().unwrap()]].concat();
    let seen = on_terminal(&world, &arguments, false);
    assert_eq!(seen.matches("Password of").count(), 1, "{seen}");
    let mount = world.adopt(dir);
    assert_eq!(mount.text("etc/release"), "top\n");
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{}/{file}", mount.pid)).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains("hunter2"));
    }
    mount.end(&world);
}

#[test]
fn a_registry_that_asks_for_nothing_proves_nothing() {
    let world = World::new();
    login(&world, "hunter2").ok_saying(&["lets everybody in", "logged in to"]);
}

#[test]
fn skopeo_and_imgfs_read_each_others_logins() {
    if !has(&["skopeo"]) {
        return;
    }
    let (world, reference) = world();
    let host = world.registry.host();
    let inspect = || {
        let image = format!("docker://{reference}");
        let mut skopeo = world.command("skopeo");
        run(skopeo.args(["inspect", "--tls-verify=false", "--raw", &image]))
    };
    assert_ne!(inspect().code, Some(0), "a password is needed");
    login(&world, "hunter2").ok();
    inspect().ok();
    world.imgfs(&["logout", &host]).ok();
    assert_ne!(inspect().code, Some(0));
    let mut skopeo = world.command("skopeo");
    skopeo.args([
        "login",
        "--tls-verify=false",
        "-u",
        "user",
        "--password-stdin",
        &host,
    ]);
    run_with_input(&mut skopeo, "hunter2").ok();
    world.imgfs(&["ls", &reference]).ok();
    // Their file has the entry, so that is where a login and a logout go.
    login(&world, "hunter2").ok_saying(&["containers/auth.json"]);
    inspect().ok();
    world
        .imgfs(&["logout", &host])
        .ok_saying(&["containers/auth.json"]);
    assert_ne!(inspect().code, Some(0));
}

/// Everything that is said, logged, cached or can be seen of a process, with the most talkative
/// log.
#[test]
fn secrets_are_nowhere() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let host = world.registry.host();
    let auth = encode("user", "hunter2");
    world
        .registry
        .token_server(|server| server.identity = Some("identity3".to_owned()));
    let mut scanned = 0;
    let mut scan = |what: &str, bytes: &[u8]| {
        scanned += bytes.len();
        let text = String::from_utf8_lossy(bytes);
        for secret in ["hunter2", &auth, "identity3", "token-"] {
            assert!(!text.contains(secret), "{secret} in {what}: {text}");
        }
    };
    for kind in ["basic", "token", "identity"] {
        match kind {
            "basic" => world.registry.require_basic("user", "hunter2"),
            _ => world.registry.require_token(Some(("user", "hunter2"))),
        }
        let talkative = |arguments: &[&str], input: &str| {
            let mut command = world.command(IMGFS);
            command
                .args(["-vv"])
                .args(arguments)
                .env("IMGFS_LOG", "trace");
            let outcome = run_with_input(&mut command, input);
            outcome.fails(0, &[]);
            outcome
        };
        let dir = world.mountpoint();
        let dir_name = dir.to_str().unwrap();
        let outcomes = if kind == "identity" {
            let config = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"identity3"}}}}}}"#);
            write_config(&world, &config);
            vec![
                talkative(&["ls", &reference], ""),
                talkative(&["mount", &reference, dir_name], ""),
            ]
        } else {
            let user = ["--username", "user", "--password-stdin"];
            let login = [&["login"], &user[..], &[&host]].concat();
            let mount = [&["mount"], &user[..], &[&reference, dir_name]].concat();
            vec![
                talkative(&login, "hunter2\n"),
                talkative(&["ls", &reference], ""),
                talkative(&mount, "hunter2\n"),
            ]
        };
        let mount = world.adopt(dir);
        world.registry.revoke_tokens();
        world.evict();
        assert_eq!(mount.text("etc/release"), "top\n");
        for outcome in &outcomes {
            assert!(
                outcome.stderr.contains("TRACE") && outcome.stderr.contains("/v2/"),
                "the log is on: {}",
                outcome.stderr
            );
            scan(&outcome.line, outcome.stderr.as_bytes());
            scan(&outcome.line, &outcome.stdout);
        }
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", mount.pid);
            scan(&path, &std::fs::read(&path).unwrap());
        }
        let status = run(world
            .command(IMGFS)
            .args(["status", "--json"])
            .arg(&mount.dir));
        scan("status", &status.ok_bytes());
        let mut pending = vec![world.path("imgfs"), world.path("cache")];
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                pending.extend(entries.map(|entry| entry.unwrap().path()));
            } else if path.is_file() {
                scan(path.to_str().unwrap(), &std::fs::read(&path).unwrap());
            }
        }
        mount.end(&world);
    }
    assert!(scanned > 100_000, "{scanned} bytes looked at");
}

/// Each image read the password anew, and the second found none.
#[test]
fn one_password_is_for_all_images_of_its_registry_and_no_other() {
    let (world, reference) = world();
    world.registry.put_image("other", "t", &sample());
    let other = world.registry.reference("other:t");
    let pull = ["pull", "--username", "user", "--password-stdin"];
    let arguments = [&pull[..], &[&reference, &other]].concat();
    with_password(&world, &arguments, "hunter2").fails(0, &["pulled", "other:t"]);
    let elsewhere = crate::support::registry::Registry::start();
    let foreign = elsewhere.reference("r:t");
    let arguments = [&pull[..], &[&reference, &foreign]].concat();
    with_password(&world, &arguments, "hunter2").fails(1, &["is not sent to", &elsewhere.host()]);
    let sent = elsewhere.requests();
    assert!(sent.is_empty(), "{sent:?}");
}
