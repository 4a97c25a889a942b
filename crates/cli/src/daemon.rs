//! The process that serves a mount, from the first request to the unmount.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{output, progress, time};
use imgfs_core::serve::{Cleared, Host, MountId, MountRequest, Mounted, check_device};

/// What the serving process says to the one that started it.
pub(super) const READY: &str = "ready";

/// Mounts and serves until somebody unmounts. With `report`, says [`READY`] on stdout once the
/// mount is ready and then leaves the terminal.
pub(super) async fn serve(
    host: &Host,
    request: MountRequest,
    quiet: bool,
    report: bool,
) -> anyhow::Result<()> {
    check_device()?;
    let mut signals = Signals::listen()?;
    let (asked_for, dir) = (request.image.name(), request.dir.display().to_string());
    let opening = async {
        let mounting = host.prepare(request).await?;
        if mounting.cleared() == Cleared::DeadMount && !quiet {
            output::message(&format!(
                "replacing a dead mount on {dir}: its process was killed"
            ));
        }
        time::say_freshness(mounting.freshness(), quiet);
        let _shown = progress::show(mounting.downloads(), quiet);
        anyhow::Ok(Box::pin(mounting.start()).await?)
    };
    let mounted: Mounted = tokio::select! {
        mounted = opening => mounted.with_context(|| format!("cannot mount {asked_for}"))?,
        () = signals.next() => anyhow::bail!("interrupted before the mount was ready"),
    };
    if report {
        leave_terminal(host, mounted.id())?;
        if quiet {
            output::log_warnings();
        }
    } else if !quiet {
        let image = &mounted.record().reference;
        output::message(&format!("{image} is mounted on {dir}"));
    }
    loop {
        tokio::select! {
            ended = mounted.wait() => return Ok(ended?),
            () = signals.next() => {
                mounted.stop_waiting();
                unmount_on_signal(&mounted).await;
            }
        }
    }
}

/// Says that the mount is ready, and leaves session, terminal and directory of the process that
/// started us.
fn leave_terminal(host: &Host, id: &MountId) -> anyhow::Result<()> {
    let log = open_log(host, id).or_else(|err| {
        tracing::warn!("what this mount has to say later is lost: {err:#}");
        let nowhere = std::fs::File::options().write(true).open("/dev/null");
        nowhere.context("cannot open /dev/null")
    })?;
    rustix::process::setsid().context("cannot leave the terminal")?;
    rustix::process::chdir("/").context("cannot leave the directory")?;
    // Last: whoever hears it relies on the mount from then on.
    output::line(READY)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

fn open_log(host: &Host, id: &MountId) -> anyhow::Result<std::fs::File> {
    let path = host.runtime_dir().log(id)?;
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

async fn unmount_on_signal(mounted: &Mounted) {
    let Err(err) = mounted.unmount(false).await else {
        return;
    };
    tracing::warn!("{err}; it ends with its last user");
    if let Err(err) = mounted.unmount(true).await {
        tracing::error!("{err}");
    }
}

/// The signals that mean: end.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
