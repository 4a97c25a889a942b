//! Other programs' registries and archives.

use super::contract::contract;
use super::*;

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn run(program: &Path, arguments: &[&str]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {words}",
        program.display()
    );
}

/// Starts Debian's docker-registry; its address.
async fn start_docker_registry(program: &Path, dir: &Path, tls: &str) -> (Running, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = dir.join("config.yml");
    let storage = dir.join("storage");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'{tls}}}\n",
            storage.display()
        ),
    )
    .unwrap();
    let child = std::process::Command::new(program)
        .arg("serve")
        .arg(&config)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(&address).await.is_ok() {
            return (running, address);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("docker-registry does not listen on {address}");
}

#[tokio::test]
async fn docker_registry_and_skopeo_agree_with_the_contract() {
    let test = "docker_registry_and_skopeo_agree_with_the_contract";
    let Some(programs) = support::programs::find(test, &["docker-registry", "skopeo"]) else {
        return;
    };
    let [docker_registry, skopeo] = programs.as_slice() else {
        unreachable!("two were asked for");
    };
    let dir = tempfile::tempdir().unwrap();
    let image = small_image();
    let layout = dir.path().join("layout");
    write_layout(&layout, &[("t", &image)]);
    let (_running, address) = start_docker_registry(docker_registry, dir.path(), "").await;
    let from = format!("oci:{}:t", layout.display());
    let to = format!("docker://{address}/some/name:t");
    let policy = ["--insecure-policy", "copy", "-q"];
    run(
        skopeo,
        &[
            &policy[..],
            &["--preserve-digests", "--dest-tls-verify=false", &from, &to],
        ]
        .concat(),
    );
    let source = open(&to, &options());
    contract("docker-registry", source.as_ref(), &image).await;
    let missing = open(&format!("{address}/some/name:absent"), &options());
    let err = missing.resolve(None).await.unwrap_err().to_string();
    assert!(err.contains("MANIFEST_UNKNOWN"), "{err}");
    // skopeo writes archives of the old form.
    let file = dir.path().join("image.tar");
    let archive = format!("docker-archive:{}:busybox:1", file.display());
    run(skopeo, &[&policy[..], &[&from, &archive]].concat());
    for reference in [&archive, &format!("docker-archive:{}", file.display())] {
        let source = open(reference, &options());
        contract("skopeo's archive", source.as_ref(), &image).await;
    }
}

#[tokio::test]
async fn tls_is_tried_first_and_its_failures_say_what_to_do() {
    let test = "tls_is_tried_first_and_its_failures_say_what_to_do";
    let Some(programs) = support::programs::find(test, &["docker-registry", "openssl"]) else {
        return;
    };
    let [docker_registry, openssl] = programs.as_slice() else {
        unreachable!("two were asked for");
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("cert.pem"));
    let subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"];
    let files = ["-keyout", key.as_str(), "-out", certificate.as_str()];
    let request = ["req", "-x509", "-newkey", "rsa:2048"];
    run(openssl, &[&request[..], &files[..], &subject[..]].concat());
    let tls = format!(", tls: {{certificate: '{certificate}', key: '{key}'}}");
    let (_running, address) = start_docker_registry(docker_registry, dir.path(), &tls).await;
    // The registry is reached, by TLS, on this machine without a check of its certificate.
    let source = open(&format!("{address}/r:absent"), &options());
    let err = source.resolve(None).await.unwrap_err();
    assert!(matches!(err, SourceError::NotFound { .. }), "{err}");
    assert_eq!(source.traffic().requests, 1, "https is the first guess");
    // Told to speak http, it is refused by the server.
    let plain = Options {
        plain_http: true,
        ..options()
    };
    let source = open(&format!("{address}/r:absent"), &plain);
    let err = source.resolve(None).await.unwrap_err().to_string();
    assert!(err.contains("HTTP request to an HTTPS server"), "{err}");
}
