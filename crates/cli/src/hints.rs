//! What a person can do about a failure, in the words of this program: its commands, flags and
//! variables.

use imgfs_core::hint::Hint;

/// The hint as it stands in an error, a status or the log.
pub(super) fn words(hint: &Hint) -> String {
    match hint {
        Hint::AskRegistry { offline: true } => "try again without --offline or --pull=never",
        Hint::AskRegistry { offline: false } => "try again without --pull=never",
        Hint::Pull => "`imgfs pull` brings it there",
        Hint::PullAndCheck => "`imgfs pull` the image, then check again",
        Hint::ListImages => "`imgfs images` lists what is there",
        Hint::Prune => "`imgfs prune` removes it",
        Hint::RaiseLimit => "raise --cache-limit",
        Hint::ListTags { host } => return format!("`imgfs tags {host}/NAME` lists its tags"),
        Hint::CheckName => {
            "check the name (`imgfs tags NAME` lists the tags), or whether it needs a login"
        }
        Hint::LogIn { host, again: false } => return format!("log in with `imgfs login {host}`"),
        Hint::LogIn { host, again: true } => {
            return format!("log in again with `imgfs login {host}`");
        }
        Hint::CredentialsFile { host } => {
            return format!("name another file with --authfile, or log in to {host}");
        }
        Hint::CredentialsPlace => "set HOME, or name a file with --authfile",
        Hint::ClientCertificate => {
            "show it a client certificate that it accepts, with --cert-dir or in certs.d"
        }
        Hint::ClientCertificateMaybe => {
            "if it wants a client certificate, show it one with --cert-dir or in certs.d"
        }
        Hint::TrustAuthority => {
            "add the CA to the system's certificates, or use --insecure if you trust the network"
        }
        Hint::PlainHttp => {
            "the server does not speak TLS, use --plain-http if that is intended"
        }
        Hint::PlainHttpMaybe => {
            "the server hung up on TLS, use --plain-http if it does not speak it"
        }
        Hint::ConnectionSettings => "--plain-http, --insecure and --cert-dir",
        Hint::ShowConfiguration => "`imgfs registry explain` shows the files",
        Hint::OwnConfiguration => {
            "write an entry for it into imgfs's own configuration (see `imgfs registry explain --help`)"
        }
        Hint::IndexRepository => "name a repository of one with --index-repo",
        Hint::AcceptTrust { trust, or_key } => {
            let or = if *or_key {
                ", or name the key that signed it with --index-key"
            } else {
                ""
            };
            return format!("use it with --require={trust}{or}");
        }
        Hint::BuildIndex => "make it with `imgfs index build`",
        Hint::Unmount { dir } => return format!("run `imgfs unmount {}` first", dir.display()),
        Hint::RuntimeDir => "remove it or set XDG_RUNTIME_DIR",
        Hint::RecreateList { name } => {
            return format!("remove it with `imgfs manifest rm {name}` and create the list again");
        }
        Hint::ListsPlace => "choose another place with XDG_DATA_HOME",
        Hint::MembersOfList { reference } => {
            return format!(
                "name one of its images by digest (`imgfs manifest inspect -t {reference}` shows them)"
            );
        }
        // One that this program does not know yet has words for any program.
        other => return other.plain(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users know these sentences, and look for them.
    #[test]
    fn hints_name_flags_and_commands() {
        let check = |hint: Hint, expected: &str| assert_eq!(words(&hint), expected, "{hint:?}");
        let host = || "h".to_owned();
        check(
            Hint::AskRegistry { offline: true },
            "try again without --offline or --pull=never",
        );
        check(
            Hint::AskRegistry { offline: false },
            "try again without --pull=never",
        );
        check(
            Hint::LogIn {
                host: host(),
                again: true,
            },
            "log in again with `imgfs login h`",
        );
        check(
            Hint::LogIn {
                host: host(),
                again: false,
            },
            "log in with `imgfs login h`",
        );
        check(
            Hint::ListTags { host: host() },
            "`imgfs tags h/NAME` lists its tags",
        );
        check(
            Hint::CredentialsFile { host: host() },
            "name another file with --authfile, or log in to h",
        );
        check(
            Hint::AcceptTrust {
                trust: "claimed",
                or_key: true,
            },
            "use it with --require=claimed, or name the key that signed it with --index-key",
        );
        check(
            Hint::AcceptTrust {
                trust: "claimed",
                or_key: false,
            },
            "use it with --require=claimed",
        );
        check(
            Hint::Unmount { dir: "/m".into() },
            "run `imgfs unmount /m` first",
        );
        check(Hint::RaiseLimit, "raise --cache-limit");
        check(Hint::Words("check the network"), "check the network");
    }
}
