//! The lookup through files and helpers.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory with files of credentials and helpers.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.path().join(name), content).unwrap();
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn credentials(&self, files: &[&str]) -> Credentials {
        Credentials::new(files.iter().map(|name| self.0.path().join(name)).collect())
            .with_helper_dirs(vec![PathBuf::from("relative"), self.0.path().to_owned()])
    }

    fn find(&self, credentials: &Credentials, host: &str) -> String {
        let text = match credentials.find(host, "r") {
            Ok(Some(found)) => {
                let origin = &found.origin;
                match &found.credential {
                    Credential::Password { username, password } => {
                        format!("{username}:{} {origin}", password.expose())
                    }
                    Credential::IdentityToken(token) => format!("id {} {origin}", token.expose()),
                    Credential::RegistryToken(token) => format!("reg {} {origin}", token.expose()),
                }
            }
            Ok(None) => "none".to_owned(),
            Err(err) => err.to_string(),
        };
        self.short(&text)
    }

    fn short(&self, text: &str) -> String {
        text.replace(self.0.path().to_str().unwrap(), "")
    }
}

/// Says which server it was asked for.
const ECHO: &str =
    r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1\",\"Secret\":\"$server\"}""#;
const NOTHING: &str = "echo credentials not found in native keychain; exit 1";

#[test]
fn files_and_helpers_in_order() {
    let home = Home::new();
    home.helper("echo", ECHO);
    home.helper("none", NOTHING);
    home.helper("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
    home.helper(
        "blank",
        r#"echo '{"ServerURL":"","Username":"","Secret":""}'"#,
    );
    home.write(
        "auth.json",
        r#"{"auths":{"a.io":{"username":"first","password":"1"},"b.io":{}}}"#,
    );
    home.write(
        "config.json",
        r#"{"credHelpers":{"e.io":"echo","docker.io":"echo","t.io":"token","n.io":"none"},"credsStore":"blank",
        "auths":{"a.io":{"username":"second","password":"2"},"b.io":{"username":"u","password":"p"},
        "n.io":{"registrytoken":"r"},"e.io":{"username":"u","password":"p"}}}"#,
    );
    let files = home.credentials(&["absent", "auth.json", "config.json"]);
    let check = |host: &str, expected: &str, described: &str| {
        assert_eq!(home.find(&files, host), expected, "{host}");
        assert_eq!(home.short(&files.describe(host, "r")), described, "{host}");
    };
    let store = "what docker-credential-blank has, named in /config.json";
    check(
        "a.io",
        "first:1 in /auth.json",
        "the user name and password of the entry \"a.io\" in /auth.json",
    );
    check(
        "b.io",
        "u:p in /config.json",
        &format!("{store}, else the user name and password of the entry \"b.io\" in /config.json"),
    );
    check(
        "e.io",
        "get:e.io of docker-credential-echo (named in /config.json)",
        &format!(
            "what docker-credential-echo has, named in /config.json, else {store}, else the user name and password of the entry \"e.io\" in /config.json"
        ),
    );
    check(
        "docker.io",
        "get:https://index.docker.io/v1/ of docker-credential-echo (named in /config.json)",
        &format!("what docker-credential-echo has, named in /config.json, else {store}, else none"),
    );
    check(
        "t.io",
        "id t of docker-credential-token (named in /config.json)",
        &format!(
            "what docker-credential-token has, named in /config.json, else {store}, else none"
        ),
    );
    check(
        "n.io",
        "reg r in /config.json",
        &format!(
            "what docker-credential-none has, named in /config.json, else {store}, else the registry token of the entry \"n.io\" in /config.json"
        ),
    );
    check("x.io", "none", &format!("{store}, else none"));
    let given = Credential::Password {
        username: "me".to_owned(),
        password: Secret::new("mine"),
    };
    let files = files.clone().with_given("a.io", given);
    assert_eq!(home.find(&files, "a.io"), "me:mine from the command line");
    assert_eq!(files.describe("a.io", "r"), "given on the command line");
    assert_eq!(home.find(&files, "b.io"), "u:p in /config.json");
    assert!(!format!("{files:?}").contains("mine"));
}

#[test]
fn helpers_that_fail_are_named_and_not_quoted() {
    let home = Home::new();
    home.write(
        "config.json",
        r#"{"credsStore":"bad","auths":{"h":{"username":"u","password":"p"}}}"#,
    );
    let check = |limit: Duration, script: Option<&str>, expected: &str| {
        match script {
            Some(script) => home.helper("bad", script),
            None => std::fs::remove_file(home.0.path().join("docker-credential-bad")).unwrap(),
        }
        let files = home.credentials(&["config.json"]).with_helper_limit(limit);
        let begun = std::time::Instant::now();
        let got = home.find(&files, "h");
        let whole = format!(
            "the credential helper docker-credential-bad, which /config.json names, {expected}"
        );
        assert!(got.starts_with(&whole), "{script:?}: {got}");
        assert!(!got.contains("hunter2"), "{got}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{script:?}");
    };
    let ends = |script: &str, expected: &str| {
        check(Duration::from_secs(20), Some(script), expected);
    };
    let hangs = |script: &str| {
        check(
            Duration::from_millis(200),
            Some(script),
            "did not end within 200ms and was stopped: run `echo h |",
        );
    };
    ends(
        "echo hunter2; exit 3",
        "failed for h (exit status: 3): run `echo h | docker-credential-bad get`",
    );
    ends("kill -9 $$", "failed for h (signal: 9");
    ends("echo hunter2", "gave no answer of the expected form: run");
    ends(
        "echo '{\"Secret\":[\"hunter2\"]}'",
        "gave no answer of the expected form: run",
    );
    ends("head -c 100000 /dev/zero", "wrote more than 65536 bytes");
    ends("yes hunter2", "wrote more than 65536 bytes");
    hangs("sleep 60");
    hangs("exec >&-; sleep 60");
    hangs("sleep 60 & exit 0");
    check(
        Duration::from_secs(20),
        None,
        "is not on the PATH: install it, or take it out of that file",
    );
    home.write("config.json", r#"{"credsStore":"../bad"}"#);
    let got = home.find(&home.credentials(&["config.json"]), "h");
    assert!(got.contains("is no name of a program"), "{got}");
}

#[test]
fn a_helper_that_hangs_is_ended_with_all_it_started() {
    let home = Home::new();
    home.write("config.json", r#"{"credsStore":"slow"}"#);
    let pids = home.0.path().join("pids");
    home.helper(
        "slow",
        &format!("sleep 60 & echo $! $$ > {}; wait", pids.display()),
    );
    // A machine that is slow to start a shell gets more time.
    for limit in [1, 4, 16].map(Duration::from_secs) {
        let files = home.credentials(&["config.json"]).with_helper_limit(limit);
        assert!(files.find("h", "r").is_err());
        if pids.exists() {
            break;
        }
    }
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2);
    for pid in pids.split_whitespace() {
        let has_ended = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(" Z ")
        };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !has_ended() {
            assert!(std::time::Instant::now() < end, "{pid} still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn login_and_logout_go_through_the_helper() {
    let home = Home::new();
    let kept = home.0.path().join("kept");
    let script = format!(
        r#"case $1 in
        store) cat > {0};;
        erase) [ "$(cat)" = https://index.docker.io/v1/ ] && rm {0};;
        get) cat {0} 2>/dev/null || {{ {NOTHING}; }};;
        esac"#,
        kept.display()
    );
    home.helper("keep", &script);
    home.write("config.json", r#"{"x":1,"credsStore":"keep"}"#);
    let files = home.credentials(&["config.json"]);
    let hub = CredentialKey {
        host: "docker.io".to_owned(),
        repository: String::new(),
    };
    let content = || {
        let text = std::fs::read_to_string(home.0.path().join("config.json")).unwrap();
        text.split_whitespace().collect::<String>()
    };
    let origin = files.store(&hub, "u", &Secret::new("hunter2")).unwrap();
    assert_eq!(
        home.short(&origin.to_string()),
        "of docker-credential-keep (named in /config.json)"
    );
    assert_eq!(
        std::fs::read_to_string(&kept).unwrap(),
        r#"{"ServerURL":"https://index.docker.io/v1/","Username":"u","Secret":"hunter2"}"#
    );
    assert_eq!(
        content(),
        r#"{"x":1,"credsStore":"keep","auths":{"https://index.docker.io/v1/":{}}}"#
    );
    assert!(home.find(&files, "docker.io").starts_with("u:hunter2 of"));
    assert_eq!(files.erase(&hub).unwrap(), Some(origin));
    assert!(!kept.exists());
    assert_eq!(content(), r#"{"x":1,"credsStore":"keep","auths":{}}"#);
    assert_eq!(files.erase(&hub).unwrap(), None);
    // A helper that refuses leaves the file as it was.
    home.helper("keep", "exit 1");
    let before = content();
    let err = files.store(&hub, "u", &Secret::new("hunter2")).unwrap_err();
    assert!(err.to_string().contains("docker-credential-keep"), "{err}");
    assert!(!err.to_string().contains("hunter2"), "{err}");
    assert_eq!(content(), before);
}
