//! Basic authentication by nginx: who logs in with one client is known to the other.

use std::process::Command;

use super::process::{run, run_with_input};
use super::world::{BOTH, Client, REFERENCE};
use super::{Front, World};

/// nginx's words for letting in `user` with the password `hunter2`.
pub fn guard(world: &World) -> String {
    let users = world.path("htpasswd");
    let mut htpasswd = Command::new("htpasswd");
    htpasswd.args(["-i", "-c"]).arg(&users).arg("user");
    run_with_input(&mut htpasswd, "hunter2").ok();
    format!(
        "auth_basic registry; auth_basic_user_file {};",
        users.display()
    )
}

/// A registry behind TLS for that user, whose authority is known.
fn guarded(world: &World) -> Front<'_> {
    world.trust("registry.test");
    Front::start(world, "registry.test", &guard(world))
}

fn login(world: &World, client: Client, file: &str, password: &str) -> super::process::Outcome {
    let mut command = match client {
        Client::Imgfs => world.imgfs(),
        Client::Skopeo => world.command("skopeo"),
    };
    command.args(["login", "-u", "user", "--password-stdin"]);
    command.args(["--authfile", file, "registry.test"]);
    run_with_input(&mut command, password)
}

#[test]
fn a_login_with_one_client_is_one_with_both() {
    let Some(world) = World::new(&["htpasswd"]) else {
        return;
    };
    let front = guarded(&world);
    for writer in BOTH {
        let file = world.path(&format!("{writer:?}.json"));
        let file = file.to_str().unwrap();
        let named = [("REGISTRY_AUTH_FILE", file)];
        let reads = |client: Client| client.reads(&world, REFERENCE, &[], &named);
        std::fs::write(file, r#"{"auths":{}}"#).unwrap();
        reads(Client::Imgfs).fails(1, &["registry.test refuses access", "imgfs login"]);
        assert_ne!(reads(Client::Skopeo).code, Some(0));
        let wrong = login(&world, writer, file, "hunter3");
        assert_ne!(wrong.code, Some(0), "{writer:?}");
        assert!(!wrong.stderr.contains("hunter3"), "{}", wrong.stderr);
        assert_ne!(reads(Client::Skopeo).code, Some(0));
        login(&world, writer, file, "hunter2").ok();
        for reader in BOTH {
            front.forget();
            reads(reader).ok();
            front.saw("the user", |request| {
                request.status == 200 && request.authorization.starts_with("Basic ")
            });
        }
        // Who logs out with the other client is out as well.
        let mut logout = match writer {
            Client::Imgfs => world.command("skopeo"),
            Client::Skopeo => world.imgfs(),
        };
        run(logout.args(["logout", "--authfile", file, "registry.test"])).ok();
        reads(Client::Imgfs).fails(1, &["imgfs login"]);
        assert_ne!(reads(Client::Skopeo).code, Some(0));
    }
}

#[test]
fn wrong_and_old_passwords_are_refused_with_what_to_do() {
    let Some(world) = World::new(&["htpasswd"]) else {
        return;
    };
    let _front = guarded(&world);
    let wrong = login(&world, Client::Imgfs, "/nowhere/auth.json", "hunter3");
    wrong.fails(1, &["registry.test does not accept this user name"]);
    // A password that was changed after the login.
    let file = world.path("auth.json");
    let auth = r#"{"auths":{"registry.test":{"auth":"dXNlcjpodW50ZXIz"}}}"#;
    std::fs::write(&file, auth).unwrap();
    let named = [("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    let refused = Client::Imgfs.reads(&world, REFERENCE, &[], &named);
    refused.fails(1, &["registry.test refuses access", "auth.json"]);
    for secret in ["hunter3", "dXNlcjpodW50ZXIz"] {
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
}

#[test]
fn a_mount_reads_through_tls_and_a_password() {
    let Some(world) = World::mounting(&["htpasswd"]) else {
        return;
    };
    let front = guarded(&world);
    let file = world.path("auth.json");
    login(&world, Client::Skopeo, file.to_str().unwrap(), "hunter2").ok();
    let mount = world.mount(REFERENCE, &[("REGISTRY_AUTH_FILE", file.to_str().unwrap())]);
    mount.reads_noise();
    front.saw("a blob's bytes", |request| {
        request.status == 206 && request.authorization.starts_with("Basic ")
    });
    mount.end();
}
