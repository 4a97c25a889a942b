//! nginx in front of a registry: TLS, who may come in, and a log of who came.

use std::path::PathBuf;
use std::process::Child;

use super::process::{run, wait_for};
use super::world::{World, address_of};

/// An nginx that answers for one host on port 443.
pub struct Front<'a> {
    world: &'a World,
    name: &'static str,
    dir: PathBuf,
    /// nginx, or rather what runs it in the world's namespaces.
    process: Option<Child>,
}

/// A request as nginx logged it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub status: u16,
    /// `-` for none.
    pub authorization: String,
}

impl<'a> Front<'a> {
    /// Starts it in front of the registry that everybody may read; `directives` are added for its
    /// server.
    pub fn start(world: &'a World, name: &'static str, directives: &str) -> Self {
        let passing = "location / { proxy_pass http://127.0.0.1:5000; }";
        Self::start_with(world, name, &format!("{directives}\n{passing}"))
    }

    /// Starts it with these directives for its server, `location` among them.
    pub fn start_with(world: &'a World, name: &'static str, directives: &str) -> Self {
        let dir = world.path(name);
        std::fs::create_dir(&dir).unwrap();
        let at = dir.display();
        let address = address_of(name);
        let certificate = world.authority.path("server.crt");
        let key = world.authority.path("server.key");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {at}/{what};\n"))
            .concat();
        let configuration = format!(
            r"
daemon off;
user root;
worker_processes 1;
pid {at}/pid;
error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{
    {temporary}
    log_format told '$request_method|$request_uri|$status|$http_authorization';
    access_log {at}/access.log told;
    server {{
        listen {address}:443 ssl http2;
        server_name {name};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        client_max_body_size 0;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        {directives}
    }}
}}
"
        );
        std::fs::write(dir.join("nginx.conf"), configuration).unwrap();
        let mut front = Self {
            world,
            name,
            dir,
            process: None,
        };
        front.resume();
        front
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        self.process = Some(self.world.serve(&mut self.nginx(), &self.address()));
    }

    /// Ends it: its port refuses connections afterwards.
    pub fn stop(&mut self) {
        run(self.nginx().args(["-s", "stop"])).ok();
        if let Some(mut process) = self.process.take() {
            wait_for("the end of nginx", || process.try_wait().unwrap().is_some());
        }
    }

    fn nginx(&self) -> std::process::Command {
        let mut nginx = self.world.command("nginx");
        nginx.arg("-e").arg(self.dir.join("error.log"));
        nginx.arg("-c").arg(self.dir.join("nginx.conf"));
        nginx
    }

    fn address(&self) -> String {
        format!("{}:443", address_of(self.name))
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        let log = std::fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        let requests = log.lines().filter_map(|line| {
            let mut parts = line.split('|');
            Some(Request {
                method: parts.next()?.to_owned(),
                target: parts.next()?.to_owned(),
                status: parts.next()?.parse().unwrap(),
                authorization: parts.next()?.to_owned(),
            })
        });
        requests.collect()
    }

    /// How many requests like this there were so far.
    pub fn count(&self, is_so: impl Fn(&Request) -> bool) -> usize {
        self.requests()
            .iter()
            .filter(|request| is_so(request))
            .count()
    }

    /// Waits for a request like this: the log may be written after the answer has been read.
    pub fn saw(&self, what: &str, is_so: impl Fn(&Request) -> bool) {
        wait_for(&format!("{what} in {}'s log", self.name), || {
            self.count(&is_so) > 0
        });
    }

    /// Forgets all requests so far.
    pub fn forget(&self) {
        // nginx appends.
        std::fs::write(self.dir.join("access.log"), "").unwrap();
    }
}
