//! The token server, and a registry that believes it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::process::run;
use super::{Front, World};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/registries/token_server.py"
);
/// What it takes instead of user and password.
pub const REFRESH_TOKEN: &str = "refresh-4711";

/// A token server for the user `user` with the password `hunter2`.
pub struct TokenServer<'a> {
    world: &'a World,
    _front: Front<'a>,
    settings: RefCell<Value>,
    file: PathBuf,
}

impl<'a> TokenServer<'a> {
    /// Starts it, and on `127.0.0.1:5001` a registry that takes its tokens and calls it by this
    /// host name.
    pub fn start(world: &'a World, host: &str) -> Self {
        let path = |name: &str| world.path(name).display().to_string();
        let (key, certificate) = (path("tokens.key"), path("tokens.crt"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ]);
        openssl.args(["-subj", "/CN=tokens", "-keyout", &key, "-out", &certificate]);
        run(&mut openssl).ok();
        let settings = json!({
            "listen": "127.0.0.1:6000", "log": path("tokens.log"),
            "user": "user", "password": "hunter2", "refresh_token": REFRESH_TOKEN,
            "service": "the registry", "issuer": "the token server", "key": key, "certificate": certificate,
            "life": 300, "said": 300, "get": true,
            "blobs": "https://blobs.test/signed", "signing_key": "key", "url_life": 300,
        });
        let file = world.path("tokens.json");
        std::fs::write(&file, settings.to_string()).unwrap();
        let mut server = world.command("python3");
        world.keep_serving(server.arg(SCRIPT).arg(&file), "127.0.0.1:6000");
        let believes = format!(
            "auth: {{token: {{realm: 'https://{host}/token', service: the registry, \
             issuer: the token server, rootcertbundle: '{certificate}'}}}}\n"
        );
        world.registry("127.0.0.1:5001", "", &believes);
        let passing = "location / { proxy_pass http://127.0.0.1:6000; }";
        Self {
            world,
            _front: Front::start_with(world, "tokens.test", passing),
            settings: RefCell::new(settings),
            file,
        }
    }

    /// Changes a setting.
    pub fn set(&self, name: &str, value: impl Into<Value>) {
        self.settings.borrow_mut()[name] = value.into();
        // Beside first: it may be reading.
        let beside = self.world.path("tokens.json.new");
        std::fs::write(&beside, self.settings.borrow().to_string()).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    /// How many lines of its log say this, such as `GET basic granted`.
    pub fn count(&self, line: &str) -> usize {
        let log = std::fs::read_to_string(self.world.path("tokens.log")).unwrap_or_default();
        log.lines().filter(|seen| *seen == line).count()
    }

    /// Forgets its log.
    pub fn forget(&self) {
        std::fs::write(self.world.path("tokens.log"), "").unwrap();
    }
}
