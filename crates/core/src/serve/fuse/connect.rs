//! The connection to the kernel: mount(2) where that is permitted, else through `fusermount3`,
//! which mounts for ordinary users and hands the descriptor over.
//!
//! fuser could do both, but what it mounts it also unmounts: its `Mount` takes the error poll of a
//! connection that has ended for a sign of life, and unmounts whatever stands on the mountpoint by
//! then. A session over a descriptor of ours unmounts nothing.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::options::MountOptions;

/// The helper that mounts for ordinary users, and what it was called before.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];
/// Longest message of the helper that is repeated, in bytes.
const MAX_MESSAGE: u64 = 4096;

/// Mounts on `place`, an absolute path, and gives the connection.
pub(super) fn connect(place: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    match by_kernel(place, options) {
        Err(err) if err.raw_os_error() == Some(libc::EPERM) => by_helper(place, options),
        connected => connected,
    }
}

/// By mount(2), with the options of the kernel's `Documentation/filesystems/fuse.rst`.
fn by_kernel(place: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let root = std::fs::metadata(place)?;
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},subtype=imgfs",
        device.as_raw_fd(),
        root.mode(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if options.default_permissions {
        data.push_str(",default_permissions");
    }
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::RDONLY | MountFlags::NOATIME;
    flags.set(MountFlags::NODEV, !options.dev);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NOEXEC, !options.exec);
    let data = CString::new(data)?;
    rustix::mount::mount(option_text(&options.source), place, "fuse", flags, &*data)?;
    Ok(device.into())
}

/// By `fusermount3`, which sends the descriptor through the socket that `_FUSE_COMMFD` names: its
/// standard input.
fn by_helper(place: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = None;
    for helper in HELPERS {
        let mut command = Command::new(helper);
        command
            .arg("-o")
            .arg(helper_options(options))
            .arg("--")
            .arg(place)
            .env("_FUSE_COMMFD", "0")
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match command.spawn() {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            spawned => {
                child = Some(spawned?);
                break;
            }
        }
    }
    let Some(mut child) = child else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "ordinary users need fusermount3: install the package fuse3",
        ));
    };
    // The helper's end has to be the last one, or its death would not be noticed.
    drop(theirs);
    let device = receive(&ours);
    let mut message = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What it says is for people: what is not text is not worth failing.
        let _read = stderr.take(MAX_MESSAGE).read_to_string(&mut message);
    }
    let status = child.wait()?;
    match device? {
        Some(device) if status.success() => Ok(device),
        _ => {
            let message = message.trim();
            let kind = if message.contains("user_allow_other") {
                io::ErrorKind::PermissionDenied
            } else {
                io::ErrorKind::Other
            };
            Err(io::Error::new(kind, message))
        }
    }
}

/// The options as `fusermount3` takes them.
fn helper_options(options: &MountOptions) -> String {
    let either = |on, yes, no| if on { yes } else { no };
    let mut list = vec![
        "ro".to_owned(),
        "noatime".to_owned(),
        either(options.dev, "dev", "nodev").to_owned(),
        either(options.suid, "suid", "nosuid").to_owned(),
        either(options.exec, "exec", "noexec").to_owned(),
        format!("fsname={}", option_text(&options.source)),
        "subtype=imgfs".to_owned(),
    ];
    if options.default_permissions {
        list.push("default_permissions".to_owned());
    }
    if options.allow_other {
        list.push("allow_other".to_owned());
    }
    list.join(",")
}

/// The descriptor that the helper sends; `None` if it ends without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    loop {
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// Options are joined with commas, and nothing in them can be escaped.
fn option_text(text: &str) -> String {
    let harmful = |c: char| c == ',' || c == '\\' || c.is_control();
    text.replace(harmful, "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_cannot_bring_mount_options() {
        let options = MountOptions {
            allow_other: false,
            default_permissions: false,
            dev: false,
            suid: false,
            exec: true,
            source: "imgfs:oci:/a,suid\\,dev\n".to_owned(),
            threads: 0,
        };
        assert_eq!(
            helper_options(&options),
            "ro,noatime,nodev,nosuid,exec,fsname=imgfs:oci:/a_suid__dev_,subtype=imgfs"
        );
    }
}
