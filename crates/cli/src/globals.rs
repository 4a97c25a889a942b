//! Options that many commands share, and what is made of them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::keys::read_public_key;
use super::password::UserOptions;
use super::units::parse_size;
use imgfs_core::image::{Pull, Request};
use imgfs_core::indexes::{FindOptions, IndexPolicy};
use imgfs_core::serve::RuntimeDir;
use imgfs_core::source::route::{DockerDaemon, candidates};
use imgfs_core::source::{Credential, Network, Options, Secret, host_platform};
use imgfs_core::store::{Cache, ReadPolicy, Store, Trust};
use imgfs_formats::oci::{Location, Platform, Reference};

/// Threads for blocking work: three for each of four layers at first contact, and the reads of a
/// mount.
const BLOCKING_THREADS: usize = 32;
/// Open files we allow ourselves, if the hard limit does.
const OPEN_FILES: u64 = 4096;

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Globals {
    /// Where fetched layers are kept [default: /var/cache/imgfs for root, else ~/.cache/imgfs]
    #[arg(long, global = true, env = "IMGFS_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Space for layer bytes in the cache, e.g. 500MB or 20GiB
    #[arg(long, global = true, env = "IMGFS_CACHE_LIMIT", value_name = "SIZE", value_parser = parse_size, default_value = "20GiB")]
    cache_limit: u64,
    /// Print only data and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say more; twice: requests
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// How to choose and reach an image.
#[derive(Args, Clone)]
pub(super) struct ImageOptions {
    /// Choose this platform: os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// When to ask the registry what a tag means: always (it must answer), newer (if it cannot be
    /// reached, use what the cache knows), missing (only if the cache does not know), never (ask
    /// for nothing at all) [default: newer; of imgfs pull: always]
    #[arg(long, value_name = "WHEN", value_parser = parse_pull)]
    pub pull: Option<Pull>,
    /// The same as --pull=never
    #[arg(long, conflicts_with = "pull")]
    pub offline: bool,
    #[command(flatten)]
    pub indexes: IndexOptions,
    #[command(flatten)]
    pub user: UserOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
}

/// Which indexes of layers that were never streamed here may be used.
#[derive(Args, Clone)]
pub(super) struct IndexOptions {
    /// Of indexes that others made use only those with this much trust: proven (none: layers are
    /// streamed once), pinned (the manifest names them, or the key of --index-key signed them) or
    /// claimed (any that is published)
    #[arg(long, value_name = "TRUST", value_parser = parse_trust, default_value = "pinned")]
    pub require: Trust,
    /// Use SOCI indexes of version 1, too, where claimed ones are: anybody who may push can add one
    /// to an image
    #[arg(long)]
    pub soci_v1: bool,
    /// Look for published indexes in this repository, too, by layer digest
    #[arg(long, value_name = "REPO")]
    pub index_repo: Option<Reference>,
    /// Ed25519 public key (PEM): a published index that it has signed is pinned, any other is only
    /// claimed
    #[arg(long, value_name = "FILE")]
    pub index_key: Option<PathBuf>,
}

/// How to reach registries. Mirrors are a matter of configuration files: see `imgfs registry
/// explain --help`.
#[derive(Args, Clone)]
pub(super) struct RegistryOptions {
    /// Speak http with the registry
    #[arg(long)]
    pub plain_http: bool,
    /// Do not check the registry's certificate
    #[arg(long)]
    pub insecure: bool,
    /// Trust *.crt in DIR for the registry, and show it *.cert with *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Use the mirrors and insecure registries of Docker's daemon [default FILE:
    /// /etc/docker/daemon.json]
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true
    )]
    #[expect(clippy::option_option, reason = "not given, and given without a file")]
    docker_daemon_config: Option<Option<PathBuf>>,
}

impl Globals {
    pub(super) fn store(&self) -> anyhow::Result<Arc<Store>> {
        Ok(Arc::new(Store::of(&self.cache()?)))
    }

    /// A user of the cache whose reads are as patient as this.
    pub(super) fn patient_store(&self, reads: ReadPolicy) -> anyhow::Result<Arc<Store>> {
        Ok(Arc::new(Store::of(&self.cache()?).with_reads(reads)))
    }

    pub(super) fn cache(&self) -> anyhow::Result<Arc<Cache>> {
        let cache = Cache::open(&self.dir()?, self.cache_limit);
        let cache = cache.context("choose another place with --cache-dir or IMGFS_CACHE_DIR")?;
        Ok(Arc::new(cache))
    }

    /// Where the cache is: an absolute path.
    pub(super) fn dir(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.cache_dir {
            Some(dir) => dir.clone(),
            None => default_cache_dir()?,
        };
        // Whoever serves a mount leaves the directory that a relative path is relative to.
        std::path::absolute(&dir).with_context(|| format!("bad cache directory {}", dir.display()))
    }
}

impl ImageOptions {
    /// What is to be opened. Reads the password if there is one to read: once for a process.
    pub(super) fn request(&self, image: &str) -> anyhow::Result<Request> {
        let mut request = self.request_without_password(image)?;
        if let Some(password) = self.password(&request.reference)?
            && let (Some(username), Some(host)) =
                (&self.user.username, registry_of(&request.reference))
        {
            let given = Credential::Password {
                username: username.clone(),
                password,
            };
            let credentials = std::mem::take(&mut request.options.credentials);
            request.options.credentials = credentials.with_given(host, given);
        }
        Ok(request)
    }

    /// The password for the registry of `reference`, from stdin or the terminal; `None` if none is
    /// to be used.
    pub(super) fn password(&self, reference: &Reference) -> anyhow::Result<Option<Secret>> {
        match registry_of(reference) {
            Some(host) if !self.offline => self.user.password(host),
            None if self.user.username.is_some() => {
                bail!("{reference} is in no registry: --username is for images of one")
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The same as [`Self::request`] with the credentials of the files alone.
    pub(super) fn request_without_password(&self, image: &str) -> anyhow::Result<Request> {
        let options = self.registry.options()?;
        let candidates = candidates(image, &options.configuration)?;
        let mut references = candidates.references.into_iter();
        let reference = references.next().context("internal: no candidate")?;
        let host = host_platform();
        let platform = match &self.platform {
            Some(text) => Platform::parse(text, &host)?,
            None => host,
        };
        let pull = if self.offline {
            Pull::Never
        } else {
            self.pull.unwrap_or_default()
        };
        Ok(Request {
            reference,
            others: references.collect(),
            platform,
            indexes: self.indexes.policy(&options, pull == Pull::Never)?,
            pull,
            options,
        })
    }
}

impl IndexOptions {
    /// Reads the key.
    fn policy(&self, options: &Options, offline: bool) -> anyhow::Result<IndexPolicy> {
        Ok(IndexPolicy {
            require: self.require,
            soci_v1: self.soci_v1,
            published: FindOptions {
                repository: self.index_repo.clone(),
                key: (self.index_key.as_deref())
                    .map(read_public_key)
                    .transpose()?,
                options: options.clone(),
            },
            offline,
        })
    }
}

impl RegistryOptions {
    /// The same as [`Self::options`] with the password of `user` for the registry of `reference`,
    /// read if there is one to read: once for a process.
    pub(super) fn options_as(
        &self,
        user: &UserOptions,
        reference: &Reference,
    ) -> anyhow::Result<Options> {
        let mut options = self.options()?;
        if let Some(host) = registry_of(reference)
            && let Some(password) = user.password(host)?
            && let Some(username) = &user.username
        {
            let given = Credential::Password {
                username: username.clone(),
                password,
            };
            options.credentials = std::mem::take(&mut options.credentials).with_given(host, given);
        }
        Ok(options)
    }

    pub(super) fn options(&self) -> anyhow::Result<Options> {
        // Whoever serves a mount leaves the directory that a relative path is relative to.
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).with_context(|| format!("bad path {}", path.display()))
        };
        let mut options = Options {
            plain_http: self.plain_http,
            insecure: self.insecure,
            ..environment()
        };
        let configuration = &mut options.configuration;
        configuration.certificate_dir = self.cert_dir.as_ref().map(absolute).transpose()?;
        configuration.docker_daemon = match &self.docker_daemon_config {
            None => None,
            Some(None) => Some(DockerDaemon::Usual),
            Some(Some(path)) => Some(DockerDaemon::File(absolute(path)?)),
        };
        Ok(options)
    }
}

/// The registry that a reference names, if it is one of a registry.
fn registry_of(reference: &Reference) -> Option<&str> {
    match reference.location() {
        Location::Registry { host, .. } => Some(host),
        Location::OciLayout { .. } | Location::DockerArchive { .. } => None,
    }
}

fn parse_trust(text: &str) -> Result<Trust, String> {
    text.parse()
}

fn parse_pull(text: &str) -> Result<Pull, String> {
    text.parse()
}

/// Where running mounts are found.
pub(super) fn runtime_dir() -> RuntimeDir {
    RuntimeDir::from_env(|name| std::env::var_os(name))
}

/// What the environment says about registries.
pub(super) fn environment() -> Options {
    Options::from_env(network(), |name| std::env::var_os(name))
}

/// The connections of this process, and the limits on them.
fn network() -> Network {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    NETWORK.get_or_init(Network::default).clone()
}

/// A runtime for the network, with threads for blocking work beside.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all();
    builder.build().context("cannot start threads")
}

/// A layer has three files open, and images can have 127 layers: more than the 256 or 1024 that are
/// usual.
pub(super) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(err) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit on open files stays: {err}");
        }
    }
}

fn default_cache_dir() -> anyhow::Result<PathBuf> {
    if rustix::process::getuid().is_root() {
        return Ok(PathBuf::from("/var/cache/imgfs"));
    }
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("imgfs"))
        .context("no cache directory: set IMGFS_CACHE_DIR or HOME")
}
