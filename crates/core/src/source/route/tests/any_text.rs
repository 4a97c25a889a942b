//! Texts of every kind.

use proptest::prelude::*;

use super::*;
use crate::source::route::own::Own;
use crate::source::route::registries_conf::RegistriesConf;
use crate::source::route::{daemon_json, hosts_toml, rule};

#[test]
fn files_are_bounded() {
    let long = "#".repeat((1 << 20) + 1);
    let machine = Machine::new(&[(REGISTRIES, &long)]);
    machine.check_error("h.io/x", &["more than 1048576 bytes", "shorten it"]);
}

/// Texts that are nearly right, to get further than the TOML parser.
fn text() -> impl Strategy<Value = String> {
    let words = [
        "[registry.\"h.io\"]\n",
        "[[registry]]\n",
        "[[registry.mirror]]\n",
        "[[registry.\"h.io\".mirror]]\n",
        "location = ",
        "prefix = ",
        "proxy = ",
        "server = ",
        "ca = ",
        "client = ",
        "headers = ",
        "[host.\"h\"]\n",
        "dial_timeout = ",
        "\"h.io\"\n",
        "\"*.io\"\n",
        "\"\"\n",
        "[\"a\", \"b\"]\n",
        "{ a = \"b\" }\n",
        "true\n",
        "[header]\n",
        "x = \"y\"\n",
        "\"1.5h\"\n",
        "\"[::1]:5\"\n",
        "\"/\"\n",
        "\"h.io/..//@:\"\n",
        "\u{e9}",
        "{\"registry-mirrors\": [",
        "\"insecure-registries\": [",
        "\"::/0\", \"1.2.3.4/99\"]",
        "}",
    ];
    let lines = prop::collection::vec(prop::sample::select(words.to_vec()), 0..12);
    prop_oneof![lines.prop_map(|lines| lines.concat()), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_panics(text in text(), bytes in any::<Vec<u8>>()) {
        let path = Path::new("/a/b");
        for bytes in [text.into_bytes(), bytes] {
            let Ok(file) = TextFile::from_bytes(path, bytes) else {
                continue;
            };
            for (host, repository) in [("h.io", "a/b"), ("docker.io", "library/x"), ("[::1]:5", "x")] {
                let name = format!("{host}/{repository}");
                let mut own = Own::default();
                let mut registries = RegistriesConf::default();
                let _either = own.take(&file);
                let _either = registries.take(&file);
                for rule in own.rules.values().chain(registries.rules.values()) {
                    if rule::find([rule], &name).is_some() {
                        let _either = rule.endpoints(host, repository);
                    }
                }
                let _either = hosts_toml::endpoints(&file, host, repository);
                let _either = daemon_json::endpoints(&file, host, repository);
            }
        }
    }
}
