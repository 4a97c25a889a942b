//! Credentials on their way from files and helpers to the registry: forms of tokens, renewal,
//! rotation.

use std::os::unix::fs::PermissionsExt;

use imgfs_core::source::{Credential, Credentials, Login, Secret, check_login};

use super::authentication::credentials;
use super::*;
use crate::support::registry::encode;

/// A registry with an image, which wants a token.
fn registry() -> Registry {
    let registry = Registry::start();
    registry.put_image("r", "latest", &small_image());
    registry.require_token(Some(("user", "hunter2")));
    registry
}

/// Options with this entry for the registry.
fn with_entry(dir: &tempfile::TempDir, registry: &Registry, entry: &serde_json::Value) -> Options {
    let file = dir.path().join("config.json");
    let body = serde_json::json!({"auths": {registry.host(): entry}});
    std::fs::write(&file, body.to_string()).unwrap();
    Options {
        credentials: Credentials::new(vec![file]),
        ..options()
    }
}

/// Resolves; the requests it took, or the error.
async fn resolve(registry: &Registry, options: &Options) -> String {
    registry.forget_requests();
    let source = open(&registry.reference("r"), options);
    match source.resolve(None).await {
        Ok(_) => {
            let log = registry.log().join(", ");
            log.replace("/v2/r/manifests/latest", "r")
        }
        Err(err) => err.to_string(),
    }
}

fn fields(body: &str) -> Vec<String> {
    body.split('&').map(str::to_owned).collect()
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    registry.token_server(|server| server.identity = Some("hunter3+/=".to_owned()));
    let entry = serde_json::json!({"auth": encode("user", ""), "identitytoken": "hunter3+/="});
    let options = with_entry(&dir, &registry, &entry);
    let expected = "GET r 401, POST /token 200, GET r 200";
    assert_eq!(resolve(&registry, &options).await, expected);
    let post = &registry.requests()[1];
    assert_eq!((post.query.as_str(), &post.authorization), ("", &None));
    assert_eq!(
        fields(&post.body),
        [
            "grant_type=refresh_token",
            "refresh_token=hunter3%2B%2F%3D",
            "client_id=imgfs",
            "service=test",
            "scope=repository%3Ar%3Apull"
        ]
    );
    let wrong = serde_json::json!({"identitytoken": "hunter4"});
    let refusal = resolve(&registry, &with_entry(&dir, &registry, &wrong)).await;
    assert!(
        refusal.contains("config.json are not accepted"),
        "{refusal}"
    );
    assert!(!refusal.contains("hunter"), "{refusal}");
}

#[tokio::test]
async fn a_password_is_posted_where_get_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    for status in [400, 404, 405] {
        let registry = registry();
        registry.token_server(|server| server.get_refused_with = Some(status));
        let options = credentials(&dir, &registry.host(), "hunter2");
        let expected = format!("GET r 401, GET /token {status}, POST /token 200, GET r 200");
        assert_eq!(resolve(&registry, &options).await, expected);
        assert_eq!(
            fields(&registry.requests()[2].body)[..3],
            ["grant_type=password", "username=user", "password=hunter2"]
        );
        // The next token is asked for in the form that was taken.
        registry.revoke_tokens();
        let expected = "GET r 401, POST /token 200, GET r 200";
        assert_eq!(resolve(&registry, &options).await, expected);
        let wrong = credentials(&dir, &registry.host(), "hunter3");
        let refusal = resolve(&registry, &wrong).await;
        assert!(refusal.contains("are not accepted"), "{refusal}");
        // Nobody's password is no reason to post.
        let nobody = resolve(&registry, &super::options()).await;
        assert!(!nobody.contains("POST"), "{nobody}");
    }
}

#[tokio::test]
async fn a_token_form_follows_no_redirect() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, thief) = (registry(), Registry::start());
    registry.token_server(|server| server.identity = Some("hunter3".to_owned()));
    let target = format!("http://{}/token", thief.host());
    registry.fault_always(On::Token, Fault::Redirect(target));
    for entry in [
        serde_json::json!({"identitytoken": "hunter3"}),
        serde_json::json!({"auth": encode("user", "hunter2")}),
    ] {
        let options = with_entry(&dir, &registry, &entry);
        let said = resolve(&registry, &options).await;
        assert!(said.contains("unexpected status 307"), "{said}");
        assert_eq!(thief.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    // Have the registry make one that it accepts.
    let first = credentials(&dir, &registry.host(), "hunter2");
    resolve(&registry, &first).await;
    let entry = serde_json::json!({"registrytoken": "token-1"});
    let options = with_entry(&dir, &registry, &entry);
    assert_eq!(resolve(&registry, &options).await, "GET r 401, GET r 200");
    registry.revoke_tokens();
    let refusal = resolve(&registry, &options).await;
    assert!(
        refusal.contains("config.json are not accepted"),
        "{refusal}"
    );
    assert!(!refusal.contains("token-"), "{refusal}");
}

#[tokio::test]
async fn one_token_serves_all_sources_of_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    registry.put_image("other", "latest", &small_image());
    let options = credentials(&dir, &registry.host(), "hunter2");
    let expected = "GET r 401, GET /token 200, GET r 200";
    assert_eq!(resolve(&registry, &options).await, expected);
    assert_eq!(resolve(&registry, &options.clone()).await, "GET r 200");
    registry.forget_requests();
    // Another repository, and other credentials, have tokens of their own.
    let other = open(&registry.reference("other"), &options);
    other.resolve(None).await.unwrap();
    assert_eq!(registry.token_requests().0, 1);
    let given = Credential::Password {
        username: "user".to_owned(),
        password: Secret::new("hunter2"),
    };
    let mut as_other = options.clone();
    as_other.credentials = as_other.credentials.with_given(&registry.host(), given);
    assert_eq!(resolve(&registry, &as_other).await, expected);
}

#[tokio::test]
async fn rotated_credentials_are_looked_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    let options = credentials(&dir, &registry.host(), "hunter2");
    let check = async |expected: &str| {
        let got = resolve(&registry, &options).await;
        assert!(got.contains(expected), "{got}");
        assert!(!got.contains("hunter"), "{got}");
    };
    check("GET r 200").await;
    registry.require_token(Some(("user", "hunter3")));
    registry.revoke_tokens();
    check("auth.json are not accepted").await;
    // Somebody logs in while the process runs.
    credentials(&dir, &registry.host(), "hunter3");
    check("GET r 401, GET /token 401, GET /token 200, GET r 200").await;
    registry.require_basic("user", "hunter3");
    check("GET r 401, GET r 200").await;
    registry.require_basic("user", "hunter4");
    check("auth.json are not accepted").await;
    credentials(&dir, &registry.host(), "hunter4");
    check("GET r 401, GET r 200").await;
    // Some registries say 403 to a password that is not right any more.
    registry.fault(On::Manifest, Fault::Status(403));
    check("auth.json are not accepted").await;
    credentials(&dir, &registry.host(), "hunter5");
    registry.fault(On::Manifest, Fault::Status(403));
    check("are not accepted").await;
    let sent = registry.requests();
    let sent: Vec<_> = sent.iter().map(|seen| seen.authorization.clone()).collect();
    let basic = |password: &str| Some(format!("Basic {}", encode("user", password)));
    assert_eq!(sent, [basic("hunter4"), basic("hunter5")]);
}

#[tokio::test]
async fn a_403_with_a_token_is_final_unless_somebody_logged_in() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    let options = credentials(&dir, &registry.host(), "hunter2");
    resolve(&registry, &options).await;
    registry.fault_always(On::Manifest, Fault::Status(403));
    let refusal = resolve(&registry, &options).await;
    assert!(refusal.contains("or do not reach that far"), "{refusal}");
    assert_eq!(registry.log(), ["GET /v2/r/manifests/latest 403"]);
    registry.clear_faults();
    registry.fault(On::Manifest, Fault::Status(403));
    registry.require_token(Some(("user", "hunter3")));
    credentials(&dir, &registry.host(), "hunter3");
    let expected = "GET r 403, GET /token 200, GET r 200";
    assert_eq!(resolve(&registry, &options).await, expected);
}

#[tokio::test]
async fn a_helper_runs_once_and_again_when_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    let path = |name: &str| dir.path().join(name);
    let helper = path("docker-credential-test");
    let script = format!(
        "#!/bin/sh\ncat >> {0}/asked; echo >> {0}/asked; cat {0}/answer\n",
        dir.path().display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = serde_json::json!({"credHelpers": {registry.host(): "test"}});
    std::fs::write(path("config.json"), config.to_string()).unwrap();
    let answer = |password: &str| {
        let answer = serde_json::json!({"Username": "user", "Secret": password});
        std::fs::write(path("answer"), answer.to_string()).unwrap();
    };
    let options = Options {
        credentials: Credentials::new(vec![path("config.json")])
            .with_helper_dirs(vec![dir.path().to_owned()]),
        ..options()
    };
    let asked = || std::fs::read_to_string(path("asked")).unwrap();
    answer("hunter2");
    let expected = "GET r 401, GET /token 200, GET r 200";
    assert_eq!(resolve(&registry, &options).await, expected);
    registry.revoke_tokens();
    assert_eq!(resolve(&registry, &options).await, expected);
    assert_eq!(asked(), format!("{}\n", registry.host()));
    registry.require_token(Some(("user", "hunter3")));
    registry.revoke_tokens();
    answer("hunter3");
    let expected = "GET r 401, GET /token 401, GET /token 200, GET r 200";
    assert_eq!(resolve(&registry, &options).await, expected);
    assert_eq!(asked().lines().count(), 2);
    // What is wrong with a helper is said, without what it says.
    answer("hunter4");
    std::fs::write(path("answer"), "hunter4").unwrap();
    registry.require_token(Some(("user", "hunter4")));
    registry.revoke_tokens();
    let said = resolve(&registry, &options).await;
    assert!(said.contains("docker-credential-test, which"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
}

#[tokio::test]
async fn given_credentials_hold_for_their_host_only() {
    let (one, other) = (registry(), registry());
    let given = Credential::Password {
        username: "user".to_owned(),
        password: Secret::new("hunter2"),
    };
    let options = Options {
        credentials: Credentials::default().with_given(&one.host(), given),
        ..options()
    };
    assert!(resolve(&one, &options).await.contains("GET r 200"));
    let said = resolve(&other, &options).await;
    assert!(said.contains("log in to"), "{said}");
    let sent = other.requests();
    assert!(sent.iter().all(|seen| seen.authorization.is_none()));
}

/// Tokens that live for fifty milliseconds, as far as the client believes, while sixteen readers
/// read for as long as it takes to renew them thirty times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_under_concurrent_reads() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    // The registry accepts them for longer, as a test machine may stand still for longer than that.
    registry.token_server(|server| {
        server.life = Duration::from_millis(900);
        server.delay = Duration::from_millis(3);
    });
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = registry.put_blob(content.clone());
    let mut options = credentials(&dir, &registry.host(), "hunter2");
    options.timeouts.token_floor = Duration::from_millis(50);
    let content = Arc::new(content);
    let readers: Vec<_> = (0..16_u64)
        .map(|reader| {
            let source = open(&registry.reference("r"), &options);
            let (blob, content) = (blob.clone(), Arc::clone(&content));
            let tokens = registry.token_counter();
            tokio::spawn(async move {
                let mut reads = 0;
                while tokens() < 30 {
                    let first = (reader * 7919 + reads * 10_007) % 790_000;
                    let range = first..first + 4096;
                    let found = read(source.as_ref(), &blob, range.clone()).await.unwrap();
                    assert!(found[..] == content[positions(&range)], "{range:?}");
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    let (requests, most) = registry.token_requests();
    assert!(requests >= 30 && most == 1, "{requests}, {most} at once");
    assert!(reads > 100, "{reads}");
    let refused = registry.log();
    let refused = refused.iter().filter(|line| line.ends_with(" 401")).count();
    // Each source's first request finds out how to be let in; what a slow machine lets expire comes
    // on top.
    assert!(refused < 16 + requests, "{refused} of {reads}");
}

#[tokio::test]
async fn tokens_revoked_in_the_middle_are_renewed_once_per_request() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry();
    let blob = registry.put_blob("0123456789".repeat(100));
    let source = open(
        &registry.reference("r"),
        &credentials(&dir, &registry.host(), "hunter2"),
    );
    for _ in 0..5 {
        let found = read(source.as_ref(), &blob, 10..20).await.unwrap();
        assert_eq!(found, "0123456789");
        registry.revoke_tokens();
    }
    assert_eq!(registry.token_requests().0, 5);
    // Where every token is refused, one renewal is all there is.
    registry.token_server(|server| server.life = Duration::ZERO);
    registry.forget_requests();
    let err = read(source.as_ref(), &blob, 10..20).await.unwrap_err();
    assert!(matches!(err, SourceError::Denied { .. }), "{err}");
    assert_eq!(registry.token_requests().0, 1, "{:?}", registry.log());
}

#[tokio::test]
async fn a_login_is_checked() {
    let registry = Registry::start();
    let check = async |password: &str| {
        let given = Credential::Password {
            username: "user".to_owned(),
            password: Secret::new(password),
        };
        let options = Options {
            credentials: Credentials::default().with_given(&registry.host(), given),
            ..options()
        };
        registry.forget_requests();
        check_login(&registry.host(), &options).await
    };
    assert_eq!(check("hunter2").await.unwrap(), Login::NotAsked);
    for basic in [true, false] {
        if basic {
            registry.require_basic("user", "hunter2");
        } else {
            registry.require_token(Some(("user", "hunter2")));
        }
        assert_eq!(check("hunter2").await.unwrap(), Login::Accepted);
        let err = check("hunter3").await.unwrap_err().to_string();
        assert!(err.contains("does not accept this user name"), "{err}");
        assert!(!err.contains("hunter"), "{err}");
    }
    // No scope: whether the credential is right is all that is asked.
    assert_eq!(registry.requests()[1].query, "client_id=imgfs&service=test");
    registry.fault(On::Any, Fault::Status(404));
    registry.require_basic("user", "hunter2");
    let err = check("hunter2").await.unwrap_err().to_string();
    assert!(err.contains("has no login"), "{err}");
}
