//! A certificate authority that nobody knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::run;
use super::world::HOSTS;

/// Without the extensions of Debian's file, which make every certificate one of an authority.
const CONFIGURATION: &str = "[req]\ndistinguished_name = dn\n[dn]\n";

/// The files in a directory: `ca.crt`; `server.crt` and `server.key` for all hosts; `client.cert`
/// and `client.key`.
pub struct Authority {
    pub dir: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("openssl.cnf"), CONFIGURATION).unwrap();
        let authority = Self {
            dir: dir.to_owned(),
        };
        let names = HOSTS
            .iter()
            .map(|(name, address)| format!("DNS:{name},IP:{address}"));
        let names = names.collect::<Vec<_>>().join(",");
        authority.issue("ca", "crt", &["basicConstraints=critical,CA:TRUE"]);
        let of_server = format!("subjectAltName={names}");
        authority.issue("server", "crt", &["basicConstraints=CA:FALSE", &of_server]);
        let of_client = "extendedKeyUsage=clientAuth";
        authority.issue("client", "cert", &["basicConstraints=CA:FALSE", of_client]);
        authority
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Makes `name.key` and `name.extension`, signed by the authority unless it is the authority's
    /// own.
    fn issue(&self, name: &str, extension: &str, extensions: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&self.dir).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-config",
            "openssl.cnf",
            "-subj",
            &format!("/CN={name} of imgfs's tests"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.{extension}"),
        ]);
        if name != "ca" {
            openssl.args(["-CA", "ca.crt", "-CAkey", "ca.key"]);
        }
        for extension in extensions {
            openssl.args(["-addext", extension]);
        }
        run(&mut openssl).ok();
    }
}
