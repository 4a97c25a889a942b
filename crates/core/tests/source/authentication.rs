//! Tokens, passwords, and what is said when they are refused.

use super::*;

pub fn credentials(dir: &tempfile::TempDir, host: &str, password: &str) -> Options {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
    let file = dir.path().join("auth.json");
    let body = serde_json::json!({"auths": {host: {"auth": auth}}});
    std::fs::write(&file, body.to_string()).unwrap();
    Options {
        credentials: Credentials::new(vec![PathBuf::from("/absent"), file]),
        ..options()
    }
}

#[tokio::test]
async fn tokens_are_fetched_once_and_renewed_when_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.put_image("r", "latest", &small_image());
    registry.require_token(Some(("user", "hunter2")));
    let options = credentials(&dir, &registry.host(), "hunter2");
    let source = open(&registry.reference("r"), &options);
    source.resolve(None).await.unwrap();
    source.resolve(None).await.unwrap();
    assert_eq!(
        registry.log(),
        [
            "GET /v2/r/manifests/latest 401",
            "GET /token 200",
            "GET /v2/r/manifests/latest 200",
            "GET /v2/r/manifests/latest 200"
        ]
    );
    let queries: Vec<String> = registry
        .requests()
        .into_iter()
        .map(|seen| seen.query)
        .collect();
    assert_eq!(
        queries[1],
        "client_id=imgfs&service=test&scope=repository%3Ar%3Apull"
    );
    registry.revoke_tokens();
    registry.forget_requests();
    let descriptor = source.resolve(None).await.unwrap().descriptor;
    // Several askers with the refused token, and one renewal.
    registry.revoke_tokens();
    registry.forget_requests();
    let many = (0..6).map(|_| read_whole_manifest(source.as_ref(), &descriptor));
    futures_util::future::join_all(many).await;
    let renewals = registry
        .log()
        .iter()
        .filter(|line| line.contains("/token"))
        .count();
    assert_eq!(renewals, 1, "{:?}", registry.log());
}

async fn read_whole_manifest(source: &dyn BlobSource, descriptor: &Descriptor) {
    collect(source.open_manifest(descriptor).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn refusals_say_how_to_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.put_image("r", "latest", &small_image());
    let check = async |options: &Options, expected: &str| {
        let source = open(&registry.reference("r"), options);
        let got = match source.resolve(None).await {
            Ok(_) => "good".to_owned(),
            Err(err) => err.to_string(),
        };
        assert!(got.contains(expected), "{got}");
        assert!(!got.contains("hunter") && !got.contains("token-"), "{got}");
    };
    let right = credentials(&dir, &registry.host(), "hunter2");
    let other_dir = tempfile::tempdir().unwrap();
    let wrong = credentials(&other_dir, &registry.host(), "hunter3");
    for basic in [true, false] {
        if basic {
            registry.require_basic("user", "hunter2");
        } else {
            registry.require_token(Some(("user", "hunter2")));
        }
        check(&right, "good").await;
        check(&wrong, "auth.json are not accepted").await;
        check(&options(), "log in to 127.0.0.1:").await;
    }
    registry.require_token(None);
    check(&options(), "good").await;
    // Options of their own, as credentials are remembered.
    let broken = credentials(&other_dir, &registry.host(), "hunter3");
    std::fs::write(other_dir.path().join("auth.json"), "{hunter").unwrap();
    check(&broken, "auth.json are not valid JSON").await;
}
