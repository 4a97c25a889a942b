//! Other programs' registries and archives.

use super::contract::contract;
use super::*;
use crate::support::docker_registry::DockerRegistry;

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
    let registry = DockerRegistry::start(docker_registry, dir.path(), "");
    let address = &registry.address;
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
    let registry = DockerRegistry::start(docker_registry, dir.path(), &tls);
    let address = &registry.address;
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
