//! `imgfs registry`: what the configuration files come to for an image.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::globals::RegistryOptions;
use super::output;
use imgfs_core::source::route::{Consulted, Outcome, Route, candidates, route};
use imgfs_core::source::{Endpoint, Options, Scheme};
use imgfs_formats::oci::{Location, Reference};

/// Show how registries are reached.
#[derive(Subcommand)]
#[command(after_help = "Example:\n  imgfs registry explain golang")]
pub(super) enum RegistryCommand {
    Explain(ExplainArgs),
}

/// Show which hosts are asked for an image, in which order, how, and which file says so. Sends
/// nothing.
#[derive(Args)]
#[command(after_help = "\
The first of these that has an entry for the image's registry decides which hosts are asked:
  1. imgfs's own: $IMGFS_CONFIG, else ~/.config/imgfs/config.toml; and /etc/imgfs/config.toml.
     The user's entries replace the system's of the same name; the longest name that fits wins.
  2. containerd's certs.d/HOST/hosts.toml in ~/.config/containerd and /etc/containerd.
  3. podman's registries.conf with its drop-ins in ~/.config/containers and /etc/containers;
     $CONTAINERS_REGISTRIES_CONF takes the place of the main file.
  4. Docker's daemon.json, only with --docker-daemon-config or docker-daemon-config in 1.
  5. The reference: its own registry.
What registries.conf blocks stays blocked, unless 1 has an entry for it. --plain-http, --insecure \
and --cert-dir go before all files, but hold for the image's own registry only, never for mirrors.

Certificates in certs.d/HOST of ~/.config/containers, /etc/containers, /etc/docker and \
/etc/containerd (*.crt are authorities, *.cert with *.key is shown to servers) hold for every host \
that the deciding file gives none. A mirror is sent the credentials for its own name. Whatever it \
answers is checked against the image's digest; only what a tag points to has to be believed.

A name without a host is an alias (of 1, of podman), else searched in \
unqualified-search-registries (of 1, else 3), else on Docker Hub. docker://NAME is always on \
Docker Hub.

imgfs's own file, all keys optional:
  unqualified-search-registries = [\"docker.io\"]
  short-name-mode = \"permissive\"              # or enforcing (never guess), disabled
  docker-daemon-config = false                # or true, or a file
  [aliases]
  tools = \"registry.example/team/tools\"
  [registry.\"docker.io\"]                      # or host/path, or *.host
  location = \"registry.example/hub\"           # replaces the name above
  blocked = false                             # true: not asked itself, only its mirrors
  insecure = false
  plain-http = false
  ca = \"ca.pem\"                               # or a list; beside this file
  client-certificate = [\"cert.pem\", \"key.pem\"]
  headers = { X-Team = \"blue\" }
  [[registry.\"docker.io\".mirror]]             # asked before, in order
  location = \"mirror.example/hub\"             # replaces the name above, or instead:
  proxy = \"https://proxy.example/path\"        # keeps the name, and is told ns=docker.io
  tags = true                                 # false: asked by digest only
  credentials = \"own\"                         # or upstream, none
                                              # and insecure to headers as above

Examples:
  imgfs registry explain golang
  imgfs registry explain --json ghcr.io/owner/name | jq '.[0].endpoints[].url'
  imgfs registry explain --docker-daemon-config=./daemon.json golang")]
pub(super) struct ExplainArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: RegistryOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a text comes to: a list, as a short name may mean several images.
#[derive(Serialize)]
struct Explanation {
    reference: String,
    /// The file that made it of a short name.
    short_name: Option<String>,
    files: Vec<FileExplanation>,
    /// Asked in this order. None for images on disk.
    endpoints: Vec<EndpointExplanation>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct FileExplanation {
    path: String,
    outcome: &'static str,
}

#[derive(Serialize)]
struct EndpointExplanation {
    url: String,
    namespace: Option<String>,
    tags: bool,
    digests: bool,
    pinned: bool,
    tls: TlsExplanation,
    /// Their names; the values may be secrets.
    headers: Vec<String>,
    /// `null`: it is never sent any.
    credentials: Option<CredentialsExplanation>,
    connect_timeout_seconds: Option<f64>,
    why: String,
}

#[derive(Serialize)]
struct CredentialsExplanation {
    /// What they are looked up by.
    key: String,
    /// What is found, in which file; no secret.
    source: String,
}

#[derive(Serialize)]
struct TlsExplanation {
    /// `required`, `preferred` (http where it is not spoken) or `off`.
    use_tls: &'static str,
    verified: bool,
    authorities: Vec<String>,
    certificate: Option<String>,
    key: Option<String>,
}

pub(super) fn run(command: &RegistryCommand) -> anyhow::Result<()> {
    let RegistryCommand::Explain(args) = command;
    let options = args.options.options()?;
    let found = candidates(&args.image, &options.configuration)?;
    let mut explanations = Vec::new();
    for reference in &found.references {
        explanations.push(explain(reference, found.why.clone(), &options)?);
    }
    if args.json {
        return output::json(&explanations);
    }
    let several = explanations.len() > 1;
    for (number, explanation) in (1..).zip(&explanations) {
        if number > 1 {
            output::line("")?;
        }
        print(explanation, several.then_some(number))?;
    }
    Ok(())
}

fn explain(
    reference: &Reference,
    short_name: Option<String>,
    options: &Options,
) -> anyhow::Result<Explanation> {
    let route = match reference.location() {
        Location::Registry {
            host, repository, ..
        } => route(host, repository, options)?,
        Location::OciLayout { .. } | Location::DockerArchive { .. } => Route {
            endpoints: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
        },
    };
    Ok(Explanation {
        reference: reference.to_string(),
        short_name,
        files: route.files.iter().map(explain_file).collect(),
        endpoints: (route.endpoints.iter())
            .map(|endpoint| explain_endpoint(endpoint, options))
            .collect(),
        notes: route.notes,
    })
}

fn explain_file(file: &Consulted) -> FileExplanation {
    FileExplanation {
        path: text(&file.path),
        outcome: match file.outcome {
            Outcome::Decides => "decides",
            Outcome::NoEntry => "no entry",
            Outcome::Outranked => "outranked",
        },
    }
}

fn explain_endpoint(endpoint: &Endpoint, options: &Options) -> EndpointExplanation {
    let tls = &endpoint.tls;
    let identity = tls.identity.as_ref();
    EndpointExplanation {
        url: endpoint.base(),
        namespace: endpoint.namespace.clone(),
        tags: endpoint.serves.tags,
        digests: endpoint.serves.digests,
        pinned: endpoint.serves.pinned,
        tls: TlsExplanation {
            use_tls: match endpoint.scheme {
                Scheme::Https => "required",
                Scheme::HttpsOrHttp => "preferred",
                Scheme::Http => "off",
            },
            verified: endpoint.scheme != Scheme::Http && !tls.unverified,
            authorities: tls.authorities.iter().map(|path| text(path)).collect(),
            certificate: identity.map(|(certificate, _)| text(certificate)),
            key: identity.map(|(_, key)| text(key)),
        },
        headers: endpoint
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        credentials: endpoint
            .credentials
            .as_ref()
            .map(|key| CredentialsExplanation {
                key: key.to_string(),
                source: options.credentials.describe(&key.host, &key.repository),
            }),
        connect_timeout_seconds: endpoint.connect_timeout.map(|limit| limit.as_secs_f64()),
        why: endpoint.why.clone(),
    }
}

/// Prints one image. `number` is set where several are tried.
fn print(explanation: &Explanation, number: Option<usize>) -> anyhow::Result<()> {
    let order = number.map_or_else(String::new, |number| {
        format!("  (tried as number {number})")
    });
    output::line(&format!("reference   {}{order}", explanation.reference))?;
    if let Some(why) = &explanation.short_name {
        output::line(&format!("short name  {}", printable(why)))?;
    }
    for file in &explanation.files {
        let outcome = match file.outcome {
            "decides" => "decides",
            "outranked" => "not needed: another file decides",
            _ => "has no entry for this name",
        };
        output::line(&format!("file        {}: {outcome}", printable(&file.path)))?;
    }
    for note in &explanation.notes {
        output::line(&format!("note        {}", printable(note)))?;
    }
    if explanation.endpoints.is_empty() {
        return output::line("no host is asked: this image is on disk");
    }
    output::line("")?;
    let rows: Vec<Vec<String>> = (1..)
        .zip(&explanation.endpoints)
        .map(|(number, endpoint): (usize, _)| row(number, endpoint))
        .collect();
    output::table(
        &["", "URL", "SERVES", "TLS", "CREDENTIALS FOR", "WHY"],
        &rows,
        &[0],
    )
}

fn row(number: usize, endpoint: &EndpointExplanation) -> Vec<String> {
    let url = match &endpoint.namespace {
        Some(namespace) => format!("{}?ns={namespace}", endpoint.url),
        None => endpoint.url.clone(),
    };
    let serves = match (endpoint.tags, endpoint.digests, endpoint.pinned) {
        (true, true, true) => "all",
        (_, _, false) => "names without digest",
        (true, false, _) => "tags only",
        (false, _, _) => "digests only",
    };
    let mut why = vec![endpoint.why.clone()];
    if !endpoint.headers.is_empty() {
        why.push(format!("sent with {}", endpoint.headers.join(", ")));
    }
    if let Some(seconds) = endpoint.connect_timeout_seconds {
        why.push(format!("connects within {seconds} s"));
    }
    let credentials = match &endpoint.credentials {
        Some(found) => format!("{}: {}", found.key, found.source),
        None => "never sent".to_owned(),
    };
    let cells = [
        url,
        serves.to_owned(),
        tls(&endpoint.tls),
        credentials,
        why.join("; "),
    ];
    let cells = cells.iter().map(|cell| printable(cell));
    std::iter::once(number.to_string()).chain(cells).collect()
}

fn tls(tls: &TlsExplanation) -> String {
    if tls.use_tls == "off" {
        return "none: http".to_owned();
    }
    let mut parts = vec![if tls.verified {
        "system's CAs".to_owned()
    } else {
        "not checked".to_owned()
    }];
    if tls.verified {
        parts.extend(tls.authorities.iter().cloned());
    }
    if let Some(certificate) = &tls.certificate {
        parts.push(format!("shows {certificate}"));
    }
    if tls.use_tls == "preferred" {
        parts.push("or http".to_owned());
    }
    parts.join(", ")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn printable(text: &str) -> String {
    output::printable(text.as_bytes())
}
