//! Tokens: every form of asking for one, renewals while a mount reads, URLs that expire.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use imgfs_core::source::{Credential, Credentials, Options, Secret};

use super::image::descriptor;
use super::process::{Outcome, run_with_input};
use super::token_server::{REFRESH_TOKEN, TokenServer};
use super::world::{BOTH, Client, Mount, REFERENCE, address_of, noise};
use super::{Front, World};

/// The password of `user`.
const PASSWORD: &str = r#"{"auth":"dXNlcjpodW50ZXIy"}"#;

/// nginx in front of the registry that wants tokens.
const WITH_TOKENS: &str = "location / { proxy_pass http://127.0.0.1:5001; }";

/// The authority is known for the registry: then it is for where the registry sends its clients as
/// well.
fn trusting() -> Option<World> {
    let world = World::mounting(&["python3"])?;
    world.trust("registry.test");
    Some(world)
}

/// Writes a file of credentials with this entry for the registry; the environment that names it.
fn logged_in(world: &World, entry: &str) -> Vec<(&'static str, String)> {
    let file = world.path("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"registry.test":{entry}}}}}"#)).unwrap();
    vec![("REGISTRY_AUTH_FILE", file.display().to_string())]
}

fn reads(world: &World, client: Client, environment: &[(&'static str, String)]) -> Outcome {
    client.reads(world, REFERENCE, &[], &borrowed(environment))
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    let pairs = environment.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

/// Reads the noise in pieces for as long as this takes.
pub fn reads_slowly(mount: &Mount, time: Duration) {
    let expected = noise();
    let file = mount.open("noise");
    let pieces = 48;
    let begin = Instant::now();
    // From the end on, as nothing is read ahead then: each part is asked for when its time has
    // come.
    let parts: Vec<_> = expected
        .chunks(expected.len() / pieces)
        .enumerate()
        .collect();
    for (number, (position, piece)) in (1..).zip(parts.into_iter().rev()) {
        let mut bytes = vec![0; piece.len()];
        let offset = position * (expected.len() / pieces);
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        assert!(bytes == piece, "other bytes at {offset}");
        let due = time * number / u32::try_from(pieces).unwrap();
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
}

#[test]
fn tokens_are_had_by_password_and_by_identity_token() {
    let Some(world) = trusting() else { return };
    let tokens = TokenServer::start(&world, "tokens.test");
    let front = Front::start_with(&world, "registry.test", WITH_TOKENS);
    let identity = format!(r#"{{"auth":"PHRva2VuPjo=","identitytoken":"{REFRESH_TOKEN}"}}"#);
    for client in BOTH {
        let succeeds = |entry: &str, line: &str| {
            tokens.forget();
            reads(&world, client, &logged_in(&world, entry)).ok();
            assert!(tokens.count(line) > 0, "{client:?}: {line}");
            front.saw("a token", |request| {
                request.status == 200 && request.authorization.starts_with("Bearer ey")
            });
        };
        succeeds(PASSWORD, "GET basic granted");
        succeeds(&identity, "POST refresh_token granted");
        for entry in [
            r#"{"auth":"dXNlcjpodW50ZXIz"}"#,
            r#"{"auth":"PHRva2VuPjo=","identitytoken":"old"}"#,
            "{}",
        ] {
            let refused = reads(&world, client, &logged_in(&world, entry));
            assert_eq!(refused.code, Some(1), "{entry}");
            if client == Client::Imgfs {
                refused.fails(1, &["registry.test", "imgfs login"]);
            }
        }
    }
    let basics = front.count(|request| request.authorization.starts_with("Basic"));
    assert_eq!(basics, 0, "the password is for the token server alone");
    // A server that knows only the POST form.
    tokens.set("get", false);
    tokens.forget();
    reads(&world, Client::Imgfs, &logged_in(&world, PASSWORD)).ok();
    assert_eq!(tokens.count("POST password granted"), 1);
    let wrong = logged_in(&world, r#"{"auth":"dXNlcjpodW50ZXIz"}"#);
    reads(&world, Client::Imgfs, &wrong).fails(1, &["registry.test"]);
}

#[test]
fn logins_are_checked_by_the_token_server() {
    let Some(world) = trusting() else { return };
    let _tokens = TokenServer::start(&world, "tokens.test");
    let _front = Front::start_with(&world, "registry.test", WITH_TOKENS);
    for writer in BOTH {
        let environment = logged_in(&world, "{}");
        let login = |password: &str| {
            let mut command = match writer {
                Client::Imgfs => world.imgfs(),
                Client::Skopeo => world.command("skopeo"),
            };
            command.envs(borrowed(&environment));
            command.args(["login", "-u", "user", "--password-stdin", "registry.test"]);
            run_with_input(&mut command, password)
        };
        assert_eq!(login("hunter3").code, Some(1), "{writer:?}");
        login("hunter2").ok();
        for reader in BOTH {
            reads(&world, reader, &environment).ok();
        }
    }
}

#[test]
fn a_mount_outlives_its_tokens() {
    let Some(world) = trusting() else { return };
    let tokens = TokenServer::start(&world, "tokens.test");
    let front = Front::start_with(&world, "registry.test", WITH_TOKENS);
    // Clients believe that tokens live for a minute at least, so each end is a surprise: 401, and a
    // new one.
    tokens.set("life", 2);
    tokens.set("said", 2);
    let mount = world.mount(REFERENCE, &borrowed(&logged_in(&world, PASSWORD)));
    tokens.forget();
    front.forget();
    reads_slowly(&mount, Duration::from_secs(6));
    mount.end();
    let renewals = tokens.count("GET basic granted");
    assert!((2..=5).contains(&renewals), "{renewals} renewals");
    let surprises = front.count(|request| request.status == 401);
    assert!(surprises >= 2, "{surprises} refused");
}

/// The library, told to believe in short lives, renews before the registry refuses.
#[test]
fn tokens_of_a_short_life_are_renewed_ahead() {
    let Some(world) = trusting() else { return };
    // Names are the mount namespace's, which the test is not in.
    let tokens = TokenServer::start(&world, address_of("tokens.test"));
    let front = Front::start_with(&world, "registry.test", WITH_TOKENS);
    // The registry counts in whole seconds.
    tokens.set("life", 4);
    tokens.set("said", 3);
    let certificates = world.path("certificates");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::copy(world.authority.path("ca.crt"), certificates.join("ca.crt")).unwrap();
    let host = address_of("registry.test");
    let password = Credential::Password {
        username: "user".to_owned(),
        password: Secret::new("hunter2".to_owned()),
    };
    let mut options = Options {
        credentials: Credentials::default().with_given(host, password),
        ..Options::default()
    };
    options.timeouts.token_floor = Duration::from_secs(1);
    options.configuration.certificate_dir = Some(certificates);
    let reference = format!("{host}/team/app:t").parse().unwrap();
    let layer = &world.image.layers[1];
    let blob = descriptor(layer.media_type, &layer.blob);
    world.within(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let source = imgfs_core::source::open(&reference, &options).unwrap();
            for number in 0..14 {
                let begin = number * 4096;
                let mut stream = source.open(&blob, begin..begin + 4096).await.unwrap();
                let mut bytes = Vec::new();
                while let Some(piece) = stream.next().await {
                    bytes.extend_from_slice(&piece.unwrap());
                }
                let begin = usize::try_from(begin).unwrap();
                assert!(bytes == layer.blob[begin..begin + 4096]);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    });
    let got = tokens.count("GET basic granted");
    assert!((3..=5).contains(&got), "{got} tokens in 7 s");
    let refused = front.count(|request| request.status == 401);
    assert_eq!(refused, 1, "the first request finds out what is wanted");
}

/// As object stores do it: the registry leads to a URL with a signature, which is good for two
/// seconds.
#[test]
fn a_mount_outlives_the_urls_that_the_registry_leads_to() {
    let Some(world) = trusting() else { return };
    let tokens = TokenServer::start(&world, "tokens.test");
    let front = Front::start_with(
        &world,
        "registry.test",
        "location / { proxy_pass http://127.0.0.1:5001; }
         location ~ ^/v2/.+/blobs/ { auth_request /v2/; proxy_pass http://127.0.0.1:6000; }",
    );
    let blobs = Front::start_with(
        &world,
        "blobs.test",
        "location /signed/ {
             secure_link $arg_md5,$arg_until;
             secure_link_md5 '$secure_link_expires$uri key';
             if ($secure_link != 1) { return 403; }
             if ($http_authorization) { return 400; }
             proxy_pass http://127.0.0.1:5000/;
         }",
    );
    for client in BOTH {
        reads(&world, client, &logged_in(&world, PASSWORD)).ok();
    }
    tokens.set("url_life", 2);
    let mount = world.mount(REFERENCE, &borrowed(&logged_in(&world, PASSWORD)));
    front.forget();
    blobs.forget();
    tokens.forget();
    reads_slowly(&mount, Duration::from_secs(9));
    mount.end();
    let led = tokens.count("GET blob redirected") + tokens.count("GET bearer redirected");
    let expired = blobs.count(|request| request.status == 403);
    let read = blobs.count(|request| request.status == 206);
    assert!(
        expired >= 2 && led >= 2 && led < read,
        "{led} {expired} {read}"
    );
    let leaked = blobs.count(|request| request.authorization != "-");
    assert_eq!(leaked, 0, "credentials are for the registry alone");
}
