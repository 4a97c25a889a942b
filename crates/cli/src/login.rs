//! `imgfs login` and `imgfs logout`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::globals::{Globals, RegistryOptions, runtime};
use super::output;
use super::password::{ask_username, read_password};
use imgfs_core::source::{
    Credential, CredentialKey, Credentials, Login, Options, Origin, check_login,
};
use imgfs_formats::oci::{DEFAULT_REGISTRY, Location, Reference};

/// Check a user name and password with a registry and keep them, where docker, podman and skopeo
/// find them too.
#[derive(Args)]
#[command(after_help = "\
They are kept in the file named by --authfile or REGISTRY_AUTH_FILE, else in the one that has a \
login for the registry already, else in Docker's (~/.docker/config.json). Where that file names a \
credential helper, the helper keeps them. A namespace such as quay.io/team goes into containers' \
auth.json. The password is asked for on the terminal or read from stdin; it is never an argument, \
which others could see.

Examples:
  imgfs login                                          Docker Hub, asking for name and password
  imgfs login -u me ghcr.io                            asking for the password only
  pass show quay | imgfs login -u me --password-stdin quay.io
  imgfs login --authfile ./auth.json -u me registry.example:5000/team")]
pub(super) struct LoginArgs {
    /// Host, with :PORT if needed
    #[arg(default_value = DEFAULT_REGISTRY)]
    registry: String,
    /// The user name
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from stdin, one line
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The file to keep them in
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    reach: RegistryOptions,
}

/// Forget the user name and password for a registry.
#[derive(Args)]
#[command(after_help = "\
Examples:
  imgfs logout ghcr.io
  imgfs logout --authfile ./auth.json registry.example:5000/team
  imgfs logout --all                         every registry, in every file that is looked into")]
pub(super) struct LogoutArgs {
    /// Host, with :PORT if needed
    #[arg(default_value = DEFAULT_REGISTRY, conflicts_with = "all")]
    registry: String,
    /// The file to remove them from
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Forget all registries
    #[arg(long)]
    all: bool,
}

pub(super) fn login(globals: &Globals, args: &LoginArgs) -> anyhow::Result<()> {
    let key = parse_registry(&args.registry)?;
    let host = &key.host;
    let username = match &args.username {
        Some(name) => name.clone(),
        None => ask_username(host)?,
    };
    let password = read_password(args.password_stdin, &username, host)?;
    let given = Credential::Password {
        username: username.clone(),
        password: password.clone(),
    };
    let options = Options {
        credentials: Credentials::default().with_given(host, given),
        ..args.reach.options()?
    };
    let outcome = runtime()?.block_on(check_login(host, &options));
    let outcome = outcome.with_context(|| format!("not logged in to {key}"))?;
    if outcome == Login::NotAsked {
        tracing::warn!(
            "{host} lets everybody in without asking: whether name and password are right is not known"
        );
    }
    let origin = files(args.authfile.as_ref()).store(&key, &username, &password)?;
    if !globals.quiet {
        output::message(&format!(
            "logged in to {key} as {username}, kept {}",
            place(&origin)
        ));
    }
    Ok(())
}

pub(super) fn logout(globals: &Globals, args: &LogoutArgs) -> anyhow::Result<()> {
    let files = files(args.authfile.as_ref());
    let say = |text: &str| {
        if !globals.quiet {
            output::message(text);
        }
    };
    if args.all {
        let erased = files.erase_all()?;
        for (name, origin) in &erased {
            say(&format!(
                "logged out of {name}, which was kept {}",
                place(origin)
            ));
        }
        if erased.is_empty() {
            say("there were no logins");
        }
        return Ok(());
    }
    let key = parse_registry(&args.registry)?;
    let Some(origin) = files.erase(&key)? else {
        say(&format!("there was no login for {key}"));
        return Ok(());
    };
    say(&format!(
        "logged out of {key}, which was kept {}",
        place(&origin)
    ));
    // Another entry may hold too: it is what will be used from now on.
    match files.find(&key.host, &key.repository) {
        Ok(None) => {}
        Ok(Some(left)) if key.repository.is_empty() => say(&format!(
            "the credentials {} are used from now on: run it again to remove those too",
            left.origin
        )),
        Ok(Some(left)) => say(&format!(
            "the credentials {} hold for {key} from now on",
            left.origin
        )),
        Err(err) => tracing::warn!("whether there are other credentials is not known: {err}"),
    }
    Ok(())
}

fn files(authfile: Option<&PathBuf>) -> Credentials {
    let usual = Credentials::from_env(|name| std::env::var_os(name));
    match authfile {
        Some(file) => usual.only(file.clone()),
        None => usual,
    }
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::Helper { helper, .. } => format!("by {helper}"),
        Origin::File(_) | Origin::CommandLine => origin.to_string(),
    }
}

/// A host and perhaps a namespace, written as in references or as a URL.
fn parse_registry(text: &str) -> anyhow::Result<CredentialKey> {
    let stripped = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let name = match stripped {
        // Docker's own name of Docker Hub is a URL, and a URL's path is no namespace.
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => text.trim_end_matches('/'),
    };
    let (host, repository) = name.split_once('/').unwrap_or((name, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    };
    // What a host and a namespace may look like is what a reference may.
    let below = if repository.is_empty() {
        "x"
    } else {
        repository
    };
    let reference = format!("docker://{host}/{below}").parse::<Reference>();
    let is_registry = reference.is_ok_and(|reference| match reference.location() {
        Location::Registry {
            host: found,
            repository,
            ..
        } => found == host && repository.ends_with(below),
        Location::OciLayout { .. } | Location::DockerArchive { .. } => false,
    });
    if !is_registry {
        bail!("{text:?} is no registry: write a host such as ghcr.io or localhost:5000");
    }
    Ok(CredentialKey {
        host: host.to_owned(),
        repository: repository.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts_and_namespaces() {
        let check = |text: &str, expected: &str| {
            let got = match parse_registry(text) {
                Ok(key) => key.to_string(),
                Err(err) => format!("{err:#}"),
            };
            assert!(got.starts_with(expected), "{text}: {got}");
        };
        check("docker.io", "docker.io");
        check("index.docker.io", "docker.io");
        check("https://index.docker.io/v1/", "docker.io");
        check("docker.io/team", "docker.io/team");
        check("ghcr.io/", "ghcr.io");
        check("https://ghcr.io/v2/", "ghcr.io");
        check("h:5000/a/b", "h:5000/a/b");
        check("localhost", "localhost");
        check("[::1]:5000", "[::1]:5000");
        check("golang", "\"golang\" is no registry");
        check("h:5000/a:tag", "\"h:5000/a:tag\" is no registry");
        check("h:5000/A", "\"h:5000/A\" is no registry");
        check("", "\"\" is no registry");
        check("oci:dir", "\"oci:dir\" is no registry");
    }
}
