//! `imgfs mount` and `imgfs unmount`.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime, runtime_dir};
use super::units::{parse_size, parse_time};
use super::{daemon, output};
use imgfs_core::serve::{
    Host, MountOptions, MountRequest, imgfs_mounted_on, running_mounts, unmount as unmount_dir,
};
use imgfs_core::source::Secret;
use imgfs_core::store::{OnError, ReadPolicy};

/// How long the serving process may take to end after its mount is gone.
const END_TIME: Duration = Duration::from_secs(5);

/// Mount an image on a directory, read-only. Returns when the mount is ready.
#[derive(Args)]
#[command(after_help = "\
Options for -o, separated by commas: allow_other, default_permissions, dev, suid, noexec, offline, \
plain_http, insecure, pull=WHEN, require=TRUST, soci_v1, index_repo=REPO, index_key=FILE, prove, \
fetch_executables=SIZE, read_timeout=TIME, on_error=WHAT, platform=OS/ARCH, cache_dir=DIR, \
cache_limit=SIZE. Options of mount(8) that mean nothing here (ro, rw, noatime, user, noauto, nofail, \
_netdev, x-...) are accepted, so these work too:
  mount -t fuse.imgfs golang:latest /mnt/go -o allow_other
  golang:latest  /mnt/go  fuse.imgfs  noauto,user,_netdev  0 0          (in /etc/fstab)
As with any other filesystem, mount(8) run by root honours setuid programs and devices unless \
-o nosuid,nodev.

Examples:
  imgfs mount golang:latest /mnt/go
  imgfs mount --platform linux/arm64 alpine /mnt/alpine
  imgfs mount --pull=missing golang:1.24 /mnt/go     ask no registry about a tag that is known
  imgfs mount --prove ghcr.io/team/app:estargz /mnt/app
                                                     read at once, check all of it meanwhile
  imgfs mount --index-repo ghcr.io/team/indexes --index-key pub.pem golang /mnt/go
                                                     a first mount by indexes that were signed
  imgfs mount oci:./layout:latest /mnt/x")]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct MountArgs {
    /// The image
    image: String,
    /// The directory
    dir: PathBuf,
    #[command(flatten)]
    options: ImageOptions,
    /// Stay in the foreground until it is unmounted
    #[arg(long, short)]
    foreground: bool,
    /// Let other users read the mount
    #[arg(long)]
    allow_other: bool,
    /// Prove layers that are read by an index that was found, in the background: fetch the rest,
    /// check all of it and make the index anew; a layer that turns out to be another one is not
    /// served any more
    #[arg(long)]
    prove: bool,
    /// Fetch programs and libraries (ELF) up to this size whole when they are first read, so that a
    /// network failure is an error when they start and no crash later; 0: never
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64MiB")]
    fetch_executables: u64,
    /// How long a read may wait for bytes that do not come, e.g. 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "60s")]
    read_timeout: Duration,
    /// What then: eio (the read fails, the next one tries again) or retry (it goes on waiting; what
    /// waits cannot be killed until the bytes come or the mount's process is told to end)
    #[arg(long, value_name = "WHAT", value_parser = parse_on_error, default_value = "eio")]
    on_error: OnError,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    mount_options: Vec<String>,
    /// Say on stdout when ready, then go to the background
    #[arg(long, hide = true)]
    report_ready: bool,
}

/// Unmount an image.
#[derive(Args)]
#[command(after_help = "Example:\n  imgfs unmount /mnt/go")]
pub(super) struct UnmountArgs {
    /// The directory
    dir: PathBuf,
    /// Even while it is in use: it disappears at once and ends with its last user
    #[arg(long, short)]
    lazy: bool,
}

/// What a mount command comes down to once the `-o` options are taken in.
struct MountPlan {
    image: String,
    dir: PathBuf,
    options: ImageOptions,
    mount: MountOptions,
    fetch_executables: u64,
    reads: ReadPolicy,
    prove: bool,
    /// From `-o cache_dir=` and `-o cache_limit=`.
    cache: Vec<(&'static str, String)>,
}

impl MountPlan {
    /// What is to be mounted. Reads the password if there is one to read: once for a process.
    fn request(self) -> anyhow::Result<MountRequest> {
        Ok(MountRequest {
            image: self.options.request(&self.image)?,
            dir: self.dir,
            options: self.mount,
            reads: self.reads,
            prove: self.prove,
            fetch_executables: self.fetch_executables,
        })
    }
}

pub(super) fn mount(globals: &Globals, args: &MountArgs) -> anyhow::Result<ExitCode> {
    let plan = plan(args)?;
    if args.foreground || args.report_ready {
        let host = Host::new(globals.cache()?, runtime_dir());
        let request = plan.request()?;
        let serving = daemon::serve(&host, request, globals.quiet, args.report_ready);
        runtime()?.block_on(serving)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Errors in what was typed are said by this process; everything else is the daemon's.
    let request = plan.options.request_without_password(&plan.image)?;
    let password = plan.options.password(&request.reference)?;
    start_daemon(&plan, password.as_ref())
}

/// Runs the same command again as the process that will serve the mount, and waits for its word.
/// Until then it shares our terminal (progress, errors, Ctrl-C). A password reaches it through a
/// pipe, where nobody else sees it.
fn start_daemon(plan: &MountPlan, password: Option<&Secret>) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find the imgfs program")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    if !std::env::args_os().skip(1).any(|arg| arg == "mount") {
        // Called as `imgfs IMAGE DIR`.
        command = Command::new(std::env::current_exe()?);
        command.arg("mount").args(std::env::args_os().skip(1));
    }
    for (variable, value) in &plan.cache {
        command.env(variable, value);
    }
    if password.is_some() && !plan.options.user.password_stdin {
        // It was asked for on the terminal.
        command.arg("--password-stdin");
    }
    command
        .arg("--report-ready")
        .stdin(if password.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .context("cannot start the serving process")?;
    if let (Some(password), Some(mut stdin)) = (password, child.stdin.take()) {
        // If it has ended already, its word tells why.
        let _unread = stdin.write_all(password.expose().as_bytes());
    }
    let mut word = String::new();
    if let Some(stdout) = child.stdout.take() {
        std::io::BufReader::new(stdout)
            .read_line(&mut word)
            .context("cannot hear from the serving process")?;
    }
    if word.trim() == daemon::READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child
        .wait()
        .context("cannot wait for the serving process")?;
    // It said why.
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0);
    if code.is_none() {
        output::message(&format!(
            "imgfs: the serving process ended before the mount was ready ({status})"
        ));
    }
    Ok(ExitCode::from(code.unwrap_or(1)))
}

pub(super) fn unmount(args: &UnmountArgs) -> anyhow::Result<()> {
    if imgfs_mounted_on(&args.dir)?.is_none() {
        bail!(
            "no image is mounted on {}: `imgfs ps` lists the mounts",
            args.dir.display()
        );
    }
    let dir = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    let mount = running_mounts(&runtime_dir())?
        .into_iter()
        .find(|mount| mount.record.mountpoint == dir);
    unmount_dir(&args.dir, args.lazy).with_context(|| {
        let hint = if args.lazy {
            ""
        } else {
            " (if programs still use it, end them or add --lazy)"
        };
        format!("{} stays mounted{hint}", args.dir.display())
    })?;
    if let Some(mount) = mount.filter(|_| !args.lazy)
        && !mount.wait_for_end(END_TIME)
    {
        tracing::warn!("process {} has not ended yet", mount.record.pid);
    }
    Ok(())
}

fn parse_on_error(text: &str) -> Result<OnError, String> {
    match text {
        "eio" => Ok(OnError::Eio),
        "retry" => Ok(OnError::Retry),
        _ => Err(format!("{text:?} is neither eio nor retry")),
    }
}

fn plan(args: &MountArgs) -> anyhow::Result<MountPlan> {
    let mut plan = MountPlan {
        image: args.image.clone(),
        dir: args.dir.clone(),
        options: args.options.clone(),
        mount: MountOptions {
            allow_other: args.allow_other,
            default_permissions: args.allow_other,
            dev: false,
            suid: false,
            exec: true,
            source: args.image.clone(),
            threads: std::thread::available_parallelism()
                .map_or(2, usize::from)
                .clamp(2, 8),
        },
        fetch_executables: args.fetch_executables,
        reads: ReadPolicy {
            timeout: args.read_timeout,
            on_error: args.on_error,
        },
        prove: args.prove,
        cache: Vec::new(),
    };
    for option in &args.mount_options {
        apply(&mut plan, option.trim())?;
    }
    Ok(plan)
}

/// Takes in one `-o` option.
fn apply(plan: &mut MountPlan, option: &str) -> anyhow::Result<()> {
    let (name, value) = option
        .split_once('=')
        .map_or((option, None), |(name, value)| (name, Some(value)));
    let as_root = || {
        if rustix::process::getuid().is_root() {
            return Ok(());
        }
        bail!("-o {option} needs root: an ordinary user's mount never honours it")
    };
    match (name, value) {
        ("allow_other", None) => {
            plan.mount.allow_other = true;
            plan.mount.default_permissions = true;
        }
        ("default_permissions", None) => plan.mount.default_permissions = true,
        ("dev", None) => {
            as_root()?;
            plan.mount.dev = true;
        }
        ("nodev", None) => plan.mount.dev = false,
        ("suid", None) => {
            as_root()?;
            plan.mount.suid = true;
        }
        ("nosuid", None) => plan.mount.suid = false,
        ("exec", None) => plan.mount.exec = true,
        ("noexec", None) => plan.mount.exec = false,
        ("offline", None) => plan.options.offline = true,
        ("pull", Some(value)) => {
            let pull = value.parse().map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.options.pull = Some(pull);
        }
        ("require", Some(value)) => {
            let require = value.parse().map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.options.indexes.require = require;
        }
        ("soci_v1", None) => plan.options.indexes.soci_v1 = true,
        ("index_repo", Some(value)) => {
            let repository = value.parse().map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.options.indexes.index_repo = Some(repository);
        }
        ("index_key", Some(value)) => plan.options.indexes.index_key = Some(value.into()),
        ("prove", None) => plan.prove = true,
        ("plain_http", None) => plan.options.registry.plain_http = true,
        ("insecure", None) => plan.options.registry.insecure = true,
        ("fetch_executables", Some(value)) => {
            let size = parse_size(value).map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.fetch_executables = size;
        }
        ("read_timeout", Some(value)) => {
            let time = parse_time(value).map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.reads.timeout = time;
        }
        ("on_error", Some(value)) => {
            let on_error = parse_on_error(value).map_err(|err| anyhow!("-o {option}: {err}"))?;
            plan.reads.on_error = on_error;
        }
        ("platform", Some(value)) => plan.options.platform = Some(value.to_owned()),
        ("cache_dir", Some(value)) => plan.cache.push(("IMGFS_CACHE_DIR", value.to_owned())),
        ("cache_limit", Some(value)) => plan.cache.push(("IMGFS_CACHE_LIMIT", value.to_owned())),
        (
            "" | "ro" | "rw" | "atime" | "noatime" | "relatime" | "norelatime" | "strictatime"
            | "lazytime" | "diratime" | "nodiratime" | "sync" | "async" | "auto" | "noauto"
            | "user" | "nouser" | "users" | "owner" | "group" | "nofail" | "_netdev" | "defaults"
            | "nosymfollow",
            None,
        ) => {}
        (name, _) if name.starts_with("x-") || name == "comment" => {}
        _ => bail!("unknown mount option {option:?}: `imgfs mount --help` lists them"),
    }
    Ok(())
}
