//! Which configuration files are read, before any is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The configuration files to read. By default none: a program that uses this library decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Whether Docker's `daemon.json` counts, if the command line says; else imgfs's own file does.
    pub docker_daemon: Option<DockerDaemon>,
    /// A directory of certificates for the reference's own registry.
    pub certificate_dir: Option<PathBuf>,
    /// imgfs's own; the first wins.
    pub(super) own: Vec<PathBuf>,
    /// The one of them that the user named.
    pub(super) own_must_exist: Option<PathBuf>,
    /// containerd's directories of directories with `hosts.toml`.
    pub(super) hosts_dirs: Vec<PathBuf>,
    /// `registries.conf`.
    pub(super) registries: Registries,
    /// Aliases that podman writes down when a user has chosen.
    pub(super) recorded_aliases: Option<PathBuf>,
    /// Where `daemon.json` usually is.
    pub(super) daemon_files: Vec<PathBuf>,
    /// Directories of directories with certificates.
    pub(super) certificate_dirs: Vec<PathBuf>,
}

/// Whether the configuration of Docker's daemon counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerDaemon {
    /// It does not.
    Ignored,
    /// The one in the usual place does.
    Usual,
    /// This one does.
    File(PathBuf),
}

/// Where `registries.conf` may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Registries {
    /// Named by the user: instead of the others.
    pub explicit: Option<PathBuf>,
    /// The user's.
    pub user: Option<PathBuf>,
    /// The system's.
    pub system: Option<PathBuf>,
}

impl Configuration {
    /// The files that the environment names and the usual ones; `variable` reads the environment.
    /// The system's files are below `root`.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Self {
        let set = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        // Whoever serves a mount leaves the directory that a relative path is relative to.
        let file = |name: &str| set(name).map(|path| std::path::absolute(&path).unwrap_or(path));
        let dir = |name: &str, below_home: &str| {
            set(name)
                .filter(|dir| dir.is_absolute())
                .or_else(|| set("HOME").map(|home| home.join(below_home)))
        };
        let config = dir("XDG_CONFIG_HOME", ".config");
        // podman does not look at the variable for these.
        let containers = set("HOME").map(|home| home.join(".config/containers"));
        let explicit = file("IMGFS_CONFIG");
        let users = |path: &str| config.as_ref().map(|config| config.join(path));
        let own = explicit.clone().or_else(|| users("imgfs/config.toml"));
        let recorded_aliases = if rustix::process::geteuid().is_root() {
            Some(root.join("var/cache/containers"))
        } else {
            dir("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("containers"))
        };
        let with = |user: Option<PathBuf>, system: &str| {
            user.into_iter().chain([root.join(system)]).collect()
        };
        let in_containers = |name: &str| containers.as_ref().map(|dir| dir.join(name));
        let mut certificate_dirs: Vec<_> = with(in_containers("certs.d"), "etc/containers/certs.d");
        certificate_dirs.push(root.join("etc/docker/certs.d"));
        Self {
            docker_daemon: None,
            certificate_dir: None,
            own: with(own, "etc/imgfs/config.toml"),
            own_must_exist: explicit,
            hosts_dirs: with(users("containerd/certs.d"), "etc/containerd/certs.d"),
            registries: Registries {
                explicit: file("CONTAINERS_REGISTRIES_CONF"),
                user: in_containers("registries.conf"),
                system: Some(root.join("etc/containers/registries.conf")),
            },
            recorded_aliases: recorded_aliases.map(|dir| dir.join("short-name-aliases.conf")),
            daemon_files: with(users("docker/daemon.json"), "etc/docker/daemon.json"),
            certificate_dirs,
        }
    }
}
