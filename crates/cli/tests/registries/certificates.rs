//! Whose certificates are believed, and which one is shown.

use super::world::{BOTH, Client, REFERENCE};
use super::{Front, World};

/// Options under which a client does not check certificates.
fn unchecked(client: Client) -> &'static [&'static str] {
    match client {
        Client::Imgfs => &["--insecure"],
        Client::Skopeo => &["--src-tls-verify=false"],
    }
}

/// What a client is told to look for certificates in `dir`.
fn in_directory(client: Client, dir: &str) -> [&str; 2] {
    match client {
        Client::Imgfs => ["--cert-dir", dir],
        Client::Skopeo => ["--src-cert-dir", dir],
    }
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let Some(world) = World::new(&[]) else { return };
    let front = Front::start(&world, "registry.test", "");
    let refused = |reference: &str| {
        let imgfs = Client::Imgfs.reads(&world, reference, &[], &[]);
        imgfs.fails(1, &["registry.test", "certificate", "--insecure"]);
        assert_eq!(imgfs.stderr.lines().count(), 1, "{}", imgfs.stderr);
        let skopeo = Client::Skopeo.reads(&world, reference, &[], &[]);
        skopeo.fails(1, &["x509"]);
    };
    refused(REFERENCE);
    assert_eq!(front.requests(), [], "nobody goes on regardless");
    let authority = std::fs::read(world.authority.path("ca.crt")).unwrap();
    let dir = world.path("trusted");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("ca.crt"), &authority).unwrap();
    let dir = dir.display().to_string();
    for client in BOTH {
        let reads = |options: &[&str], environment: &[(&str, &str)]| {
            client.reads(&world, REFERENCE, options, environment).ok();
        };
        reads(unchecked(client), &[]);
        reads(&in_directory(client, &dir), &[]);
        reads(&[], &[("SSL_CERT_FILE", &world.authority.path("ca.crt"))]);
    }
    world.trust("registry.test");
    for client in BOTH {
        client.reads(&world, REFERENCE, &[], &[]).ok();
    }
    // For that host, and no other at the same address.
    let elsewhere = REFERENCE.replace("registry.test", "mirror.test");
    world.write("/etc/hosts", "192.0.2.10 registry.test mirror.test\n");
    let other = Client::Imgfs.reads(&world, &elsewhere, &[], &[]);
    other.fails(1, &["mirror.test", "certificate", "--insecure"]);
    let other = Client::Skopeo.reads(&world, &elsewhere, &[], &[]);
    other.fails(1, &["x509"]);
}

#[test]
fn hosts_toml_names_an_authority_and_a_client_certificate() {
    let Some(world) = World::new(&[]) else { return };
    let wanted = format!(
        "ssl_verify_client on; ssl_client_certificate {};",
        world.authority.path("ca.crt")
    );
    let _front = Front::start(&world, "registry.test", &wanted);
    let file = world.path(".config/containerd/certs.d/registry.test/hosts.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let reads = |lines: &str| {
        std::fs::write(&file, format!("server = 'https://registry.test'\n{lines}")).unwrap();
        Client::Imgfs.reads(&world, REFERENCE, &[], &[])
    };
    let path = |name: &str| world.authority.path(name);
    let authority = format!("ca = '{}'\n", path("ca.crt"));
    let client = format!(
        "client = [['{}', '{}']]\n",
        path("client.cert"),
        path("client.key")
    );
    reads("").fails(1, &["certificate"]);
    reads(&authority).fails(1, &["registry.test", "show it a client certificate"]);
    reads(&client).fails(1, &["certificate", "--insecure"]);
    reads(&(authority + &client)).ok();
}

#[test]
fn a_client_certificate_is_shown_where_it_is_wanted() {
    let Some(world) = World::new(&[]) else { return };
    let wanted = format!(
        "ssl_verify_client on; ssl_client_certificate {};",
        world.authority.path("ca.crt")
    );
    let front = Front::start(&world, "registry.test", &wanted);
    let known = |name: &str, of: &str| {
        let content = std::fs::read(world.authority.path(of)).unwrap();
        let path = format!("/etc/containers/certs.d/registry.test/{name}");
        world.write(&path, content);
    };
    known("ca.crt", "ca.crt");
    let refused = Client::Imgfs.reads(&world, REFERENCE, &[], &[]);
    let hint = "show it a client certificate";
    refused.fails(1, &["registry.test", "No required SSL certificate", hint]);
    let refused = Client::Skopeo.reads(&world, REFERENCE, &[], &[]);
    assert_ne!(refused.code, Some(0));
    assert_eq!(front.count(|request| request.status < 400), 0);
    known("client.cert", "client.cert");
    known("client.key", "client.key");
    for client in BOTH {
        client.reads(&world, REFERENCE, &[], &[]).ok();
    }
    // An encrypted or broken key is named.
    known("client.key", "ca.crt");
    let refused = Client::Imgfs.reads(&world, REFERENCE, &[], &[]);
    refused.fails(1, &["client.cert", "client.key"]);
    // A directory that is named has it all.
    let dir = world.path("named");
    std::fs::create_dir(&dir).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(world.authority.path(name), dir.join(name)).unwrap();
    }
    for client in BOTH {
        let options = in_directory(client, dir.to_str().unwrap());
        client.reads(&world, REFERENCE, &options, &[]).ok();
    }
}

#[test]
fn docker_registry_itself_wants_a_client_certificate() {
    let Some(world) = World::new(&[]) else { return };
    let path = |name: &str| world.authority.path(name);
    let tls = format!(
        "tls: {{certificate: '{}', key: '{}', clientcas: ['{}']}}",
        path("server.crt"),
        path("server.key"),
        path("ca.crt")
    );
    world.registry("192.0.2.10:443", &tls, "");
    let dir = world.path("named");
    std::fs::create_dir(&dir).unwrap();
    let add = |name: &str| std::fs::copy(path(name), dir.join(name)).unwrap();
    let reads = |client| {
        let options = in_directory(client, dir.to_str().unwrap());
        client.reads(&world, REFERENCE, &options, &[])
    };
    add("ca.crt");
    // Go's server says no more than that the certificate is bad.
    reads(Client::Imgfs).fails(1, &["registry.test", "client certificate", "--cert-dir"]);
    reads(Client::Skopeo).fails(1, &["tls: bad certificate"]);
    add("client.cert");
    add("client.key");
    for client in BOTH {
        reads(client).ok();
    }
}
