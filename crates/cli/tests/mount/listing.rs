//! Layers as listings: `layer(&[dir("a"), file("a/b", "x").mode(0o4755), whiteout("c")])`.

use std::io::Write;

use bytes::Bytes;
use tar::EntryType;

/// One tar member. Names are written as they are, however hostile.
#[derive(Clone)]
pub struct Member {
    path: Vec<u8>,
    kind: EntryType,
    content: Vec<u8>,
    target: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    mtime: (u64, Option<u32>),
    device: (u32, u32),
    pax: Vec<(String, Vec<u8>)>,
}

fn member(path: &str, kind: EntryType, mode: u32) -> Member {
    Member {
        path: path.as_bytes().to_vec(),
        kind,
        content: Vec::new(),
        target: Vec::new(),
        mode,
        owner: (0, 0),
        mtime: (1_000_000_000, None),
        device: (0, 0),
        pax: Vec::new(),
    }
}

pub fn dir(path: &str) -> Member {
    member(&format!("{path}/"), EntryType::Directory, 0o755)
}

pub fn file(path: &str, content: impl AsRef<[u8]>) -> Member {
    Member {
        content: content.as_ref().to_vec(),
        ..member(path, EntryType::Regular, 0o644)
    }
}

pub fn symlink(path: &str, target: &str) -> Member {
    Member {
        target: target.into(),
        ..member(path, EntryType::Symlink, 0o777)
    }
}

pub fn hard_link(path: &str, target: &str) -> Member {
    Member {
        target: target.into(),
        ..member(path, EntryType::Link, 0o644)
    }
}

pub fn char_device(path: &str, device: (u32, u32)) -> Member {
    Member {
        device,
        ..member(path, EntryType::Char, 0o666)
    }
}

pub fn fifo(path: &str) -> Member {
    member(path, EntryType::Fifo, 0o600)
}

/// The deletion of `path`.
pub fn whiteout(path: &str) -> Member {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    file(format!("{parent}/.wh.{name}").trim_start_matches('/'), "")
}

/// The deletion of all that lower layers have in `path`.
pub fn opaque(path: &str) -> Member {
    file(&format!("{path}/.wh..wh..opq"), "")
}

impl Member {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub fn mtime(mut self, seconds: u64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, Some(nanoseconds));
        self
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.pax
            .push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    /// A PAX record as it stands.
    #[allow(dead_code, reason = "only other test crates use it")]
    pub fn pax(mut self, name: &str, value: &str) -> Self {
        self.pax.push((name.to_owned(), value.into()));
        self
    }

    /// With a name that is no text.
    #[allow(dead_code, reason = "only other test crates use it")]
    pub fn named(mut self, path: &[u8]) -> Self {
        self.path = path.to_vec();
        self
    }

    fn append(&self, builder: &mut tar::Builder<Vec<u8>>) {
        let mut pax = self.pax.clone();
        if let (seconds, Some(nanoseconds)) = self.mtime {
            let text = format!("{seconds}.{nanoseconds:09}");
            pax.push(("mtime".to_owned(), text.into_bytes()));
        }
        let mut header = tar::Header::new_ustar();
        let mut put = |field: &mut [u8], text: &[u8], name: &str| {
            if text.len() > field.len() {
                pax.push((name.to_owned(), text.to_vec()));
            }
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text[..length]);
        };
        let fields = header.as_old_mut();
        put(&mut fields.name, &self.path, "path");
        put(&mut fields.linkname, &self.target, "linkpath");
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.mtime.0);
        header.set_size(self.content.len() as u64);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        if !pax.is_empty() {
            let pairs = pax
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()));
            builder.append_pax_extensions(pairs).unwrap();
        }
        builder.append(&header, self.content.as_slice()).unwrap();
    }
}

/// The tar of these members.
pub fn tar_of(members: &[Member]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        member.append(&mut builder);
    }
    builder.into_inner().unwrap().into()
}

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap();
    }
    out.truncate(length);
    out
}
