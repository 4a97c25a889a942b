//! One registries.conf for both clients: mirrors, blocked names, aliases; and who is told which
//! secrets.

use super::Front;
use super::world::{BOTH, Client, REFERENCE, World};

/// The login of the registry, `user:hunter2`, and none of the mirrors.
const LOGIN: &str = r#"{"auths":{"registry.test":{"auth":"dXNlcjpodW50ZXIy"}}}"#;

/// What tells nobody's password: no header, and skopeo's empty user with an empty password.
const NOBODY: [&str; 2] = ["-", "Basic Og=="];

/// A file for both clients; the variable that names it.
fn configured(world: &World, lines: &str) -> [(&'static str, String); 2] {
    let file = world.path("registries.conf");
    std::fs::write(&file, lines).unwrap();
    let logins = world.path("auth.json");
    std::fs::write(&logins, LOGIN).unwrap();
    for host in ["registry.test", "mirror.test", "second.test"] {
        world.trust(host);
    }
    let name = |path: std::path::PathBuf| path.display().to_string();
    [
        ("CONTAINERS_REGISTRIES_CONF", name(file)),
        ("REGISTRY_AUTH_FILE", name(logins)),
    ]
}

fn reads(
    world: &World,
    client: Client,
    reference: &str,
    environment: &[(&'static str, String)],
) -> super::process::Outcome {
    let pairs: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    client.reads(world, reference, &[], &pairs)
}

const TWO_MIRRORS: &str = r#"
unqualified-search-registries = ["registry.test"]
[aliases]
"app" = "registry.test/team/app"
[[registry]]
prefix = "registry.test"
location = "registry.test"
[[registry.mirror]]
location = "mirror.test"
[[registry.mirror]]
location = "second.test"
[[registry]]
prefix = "registry.test/secret"
location = "registry.test/secret"
blocked = true
"#;

#[test]
fn both_clients_take_it_from_the_mirror_and_tell_it_nothing() {
    let Some(world) = World::new(&[]) else { return };
    let environment = configured(&world, TWO_MIRRORS);
    let mut first = Front::start(&world, "mirror.test", "");
    let second = Front::start(&world, "second.test", "");
    // The origin is down.
    for client in BOTH {
        first.forget();
        reads(&world, client, REFERENCE, &environment).ok();
        first.saw("a blob", |request| {
            request.status < 300 && request.target.starts_with("/v2/team/app/blobs/")
        });
        assert_eq!(second.requests(), [], "{client:?} asks in order");
        let leaked = first.count(|request| !NOBODY.contains(&&*request.authorization));
        assert_eq!(leaked, 0, "{client:?} told the mirror a secret");
    }
    reads(&world, Client::Imgfs, "app:t", &environment).ok();
    for client in BOTH {
        first.forget();
        let blocked = reads(&world, client, "registry.test/secret/app:t", &environment);
        assert_eq!(blocked.code, Some(1), "{client:?}");
        assert!(blocked.stderr.contains("blocked"), "{}", blocked.stderr);
        assert_eq!(first.requests(), [], "{client:?} asks nobody");
    }
    first.stop();
    for client in BOTH {
        second.forget();
        reads(&world, client, REFERENCE, &environment).ok();
        second.saw("a blob", |request| {
            request.status < 300 && request.target.starts_with("/v2/team/app/blobs/")
        });
    }
}

/// A mirror that asks for a password gets none of the origin's; the origin, asked after it, does.
#[test]
fn a_mirror_that_asks_for_a_password_is_not_given_the_registrys() {
    let Some(world) = World::new(&["htpasswd"]) else {
        return;
    };
    let lines = "[[registry]]\nprefix = 'registry.test'\nlocation = 'registry.test'\n\
        [[registry.mirror]]\nlocation = 'mirror.test'\n";
    let environment = configured(&world, lines);
    let guard = super::login::guard(&world);
    let mirror = Front::start(&world, "mirror.test", &guard);
    let origin = Front::start(&world, "registry.test", &guard);
    for client in BOTH {
        for front in [&mirror, &origin] {
            front.forget();
        }
        reads(&world, client, REFERENCE, &environment).ok();
        mirror.saw("a question", |request| request.status == 401);
        origin.saw("an answer", |request| {
            request.status == 200 && request.authorization.starts_with("Basic ")
        });
        let leaked = mirror.count(|request| !NOBODY.contains(&&*request.authorization));
        assert_eq!(leaked, 0, "{client:?} told the mirror a secret");
    }
}

#[test]
fn a_mount_reads_on_from_the_next_mirror() {
    let Some(world) = World::mounting(&[]) else {
        return;
    };
    let environment = configured(&world, TWO_MIRRORS);
    let mut first = Front::start(&world, "mirror.test", "");
    let second = Front::start(&world, "second.test", "");
    let pairs = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mount = world.mount(REFERENCE, &pairs);
    first.forget();
    assert_eq!(second.requests(), []);
    let mut half = vec![0; 8 << 20];
    let file = mount.open("noise");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut half, 0).unwrap();
    assert!(half == super::world::noise()[..half.len()]);
    first.saw("a blob's bytes", |request| request.status == 206);
    first.stop();
    drop(file);
    mount.reads_noise();
    second.saw("a blob's bytes", |request| request.status == 206);
    mount.end();
}
