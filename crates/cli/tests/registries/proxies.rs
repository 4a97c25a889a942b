//! HTTP and SOCKS proxies by environment variables.

use std::path::PathBuf;

use super::process::wait_for;
use super::world::{BOTH, Client, REFERENCE};
use super::{Front, World};

/// A proxy on `proxy.test` that lets one user in, and its log.
struct Proxy {
    log: PathBuf,
}

impl Proxy {
    /// tinyproxy on port 8888.
    fn http(world: &World) -> Self {
        let log = world.path("tinyproxy.log");
        let file = world.path("tinyproxy.conf");
        let configuration = format!(
            "Port 8888\nListen 192.0.2.15\nTimeout 60\nLogFile \"{}\"\nLogLevel Connect\nMaxClients 50\n\
             BasicAuth proxyuser proxypass9\nConnectPort 443\n",
            log.display()
        );
        std::fs::write(&file, configuration).unwrap();
        let mut tinyproxy = world.command("tinyproxy");
        tinyproxy.arg("-d").arg("-c").arg(&file);
        world.keep_serving(&mut tinyproxy, "192.0.2.15:8888");
        Self { log }
    }

    /// microsocks on port 1080. It alone knows the name `inner.test`.
    fn socks(world: &World) -> Self {
        let names = world.path("names-of-the-proxy");
        std::fs::write(&names, "192.0.2.10 inner.test registry.test\n").unwrap();
        let script = r#"mount --bind "$1" /etc/hosts; exec microsocks -i 192.0.2.15 -p 1080 -u proxyuser -P proxypass9 2> "$2""#;
        let log = world.path("microsocks.log");
        let mut microsocks = world.command("unshare");
        microsocks.args(["-m", "sh", "-euc", script, "sh"]);
        microsocks.arg(&names).arg(&log);
        world.keep_serving(&mut microsocks, "192.0.2.15:1080");
        Self { log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for this in its log from `mark` on; the length of the log then.
    fn said_since(&self, mark: usize, words: &str) -> usize {
        wait_for(&format!("{words} in a proxy's log"), || {
            self.said()[mark..].contains(words)
        });
        self.said().len()
    }
}

#[test]
fn an_http_proxy_is_used_where_the_environment_says() {
    let Some(world) = World::mounting(&["tinyproxy"]) else {
        return;
    };
    world.trust("registry.test");
    let _front = Front::start(&world, "registry.test", "");
    let proxy = Proxy::http(&world);
    let url = "http://proxyuser:proxypass9@proxy.test:8888";
    let connect = "CONNECT registry.test:443";
    let mut mark = 0;
    for client in BOTH {
        let reads = |environment: &[(&str, &str)]| {
            client.reads(&world, REFERENCE, &[], environment).ok();
        };
        reads(&[("HTTPS_PROXY", url)]);
        mark = proxy.said_since(mark, connect);
        reads(&[("https_proxy", url)]);
        mark = proxy.said_since(mark, connect);
        for exception in ["registry.test", ".test", "192.0.2.1,registry.test"] {
            reads(&[("HTTPS_PROXY", url), ("NO_PROXY", exception)]);
        }
        // For http, which this registry does not speak.
        reads(&[("HTTP_PROXY", url)]);
        assert_eq!(proxy.said().len(), mark, "{}", &proxy.said()[mark..]);
        let wrong = "http://proxyuser:proxypass8@proxy.test:8888";
        let refused = client.reads(&world, REFERENCE, &[], &[("HTTPS_PROXY", wrong)]);
        assert_eq!(refused.code, Some(1));
        assert!(!refused.stderr.contains("proxypass"), "{}", refused.stderr);
        if client == Client::Imgfs {
            refused.fails(
                1,
                &["registry.test", "the proxy", "HTTPS_PROXY", "NO_PROXY"],
            );
        }
        mark = proxy.said().len();
    }
    let environment = [("ALL_PROXY", url), ("IMGFS_LOG", "trace")];
    let talkative = Client::Imgfs.reads(&world, REFERENCE, &["-vv"], &environment);
    mark = proxy.said_since(mark, connect);
    assert!(talkative.stderr.contains("TRACE"), "the log is on");
    for secret in ["proxypass9", "cHJveHl1c2VyOnByb3h5cGFzczk"] {
        assert!(!talkative.stderr.contains(secret), "{}", talkative.stderr);
    }
    talkative.ok();
    let mount = world.mount(REFERENCE, &[("HTTPS_PROXY", url)]);
    proxy.said_since(mark, connect);
    mount.reads_noise();
    mount.end();
    // Without TLS the proxy sees the requests themselves.
    let plain = "registry.test:5080/team/app:t";
    world.registry("192.0.2.10:5080", "", "");
    let mark = proxy.said().len();
    let environment = [("HTTP_PROXY", url)];
    let outcome = Client::Imgfs.reads(&world, plain, &["--plain-http"], &environment);
    outcome.ok();
    proxy.said_since(mark, "http://registry.test:5080/v2/team/app/");
}

#[test]
fn a_proxy_that_is_down_is_named_without_its_password() {
    let Some(world) = World::new(&[]) else { return };
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let url = format!("{scheme}://proxyuser:proxypass9@proxy.test:7");
        let environment = [("HTTPS_PROXY", url.as_str()), ("IMGFS_LOG", "trace")];
        let refused = Client::Imgfs.reads(&world, REFERENCE, &["-vv"], &environment);
        assert!(!refused.stderr.contains("proxypass9"), "{}", refused.stderr);
        refused.fails(1, &["registry.test", "HTTPS_PROXY"]);
    }
}

#[test]
fn a_socks_proxy_is_used_and_asked_for_names() {
    let Some(world) = World::new(&["microsocks"]) else {
        return;
    };
    for host in ["registry.test", "inner.test"] {
        world.trust(host);
    }
    let _front = Front::start(&world, "registry.test", "");
    let proxy = Proxy::socks(&world);
    let mut mark = 0;
    let login = "proxyuser:proxypass9@proxy.test:1080";
    for (client, scheme) in [
        (Client::Imgfs, "socks5"),
        (Client::Imgfs, "socks5h"),
        (Client::Skopeo, "socks5"),
    ] {
        let url = format!("{scheme}://{login}");
        let reads = |reference: &str, variable: &str| {
            client.reads(&world, reference, &[], &[(variable, &url)])
        };
        reads(REFERENCE, "HTTPS_PROXY").ok();
        mark = proxy.said_since(mark, ":443");
        if scheme == "socks5h" {
            let inner = REFERENCE.replace("registry.test", "inner.test");
            // The certificate has not this name; that it is looked at shows that the name was
            // found.
            reads(&inner, "ALL_PROXY").fails(1, &["inner.test", "certificate"]);
            mark = proxy.said_since(mark, "inner.test:443");
        }
        let environment = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "registry.test")];
        client.reads(&world, REFERENCE, &[], &environment).ok();
        assert_eq!(proxy.said().len(), mark, "{}", &proxy.said()[mark..]);
    }
}
