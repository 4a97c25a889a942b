//! The lists under construction, as files of the user's. They are no cache: nothing but `manifest
//! rm` and `push --purge` removes one.
//!
//! ```text
//! DIR/HEX.json     one list; HEX is the SHA-256 of its name, which may be too long for a file
//! DIR/lock         held while a list is changed
//! ```

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result, Within, fail};
use crate::hint::Hint;
use imgfs_formats::oci::{Descriptor, Digest, ListMember, ManifestList, Reference};

/// Version of the files.
const VERSION: u32 = 1;
/// Largest file read, in bytes: a list has at most 4 MiB when it is pushed, and its names come on
/// top.
const MAX_FILE: u64 = 8 << 20;

/// The lists kept in a directory.
#[derive(Debug, Clone)]
pub struct Lists {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptList {
    version: u32,
    name: String,
    members: Vec<KeptMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptMember {
    reference: String,
    manifest: Descriptor,
}

impl Lists {
    /// Those in `dir`, which need not exist.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The list of this name.
    pub fn get(&self, name: &Reference) -> Result<Option<ManifestList>> {
        let path = self.path(name);
        let Some(bytes) = read(&path).within(|| format!("cannot read {}", path.display()))? else {
            return Ok(None);
        };
        let list = parse(&bytes, name).within(|| {
            let name = name.to_string();
            format!(
                "{} is damaged: {}",
                path.display(),
                Hint::RecreateList { name }
            )
        })?;
        Ok(Some(list))
    }

    /// Replaces the list of this name by what `change` makes of it.
    pub fn change<E: From<EngineError>>(
        &self,
        name: &Reference,
        change: impl FnOnce(Option<ManifestList>) -> Result<ManifestList, E>,
    ) -> Result<(), E> {
        let _locked = self.lock()?;
        let list = change(self.get(name)?)?;
        let members = list.members.into_iter().map(|member| KeptMember {
            reference: member.reference.to_string(),
            manifest: member.manifest,
        });
        let kept = KeptList {
            version: VERSION,
            name: name.to_string(),
            members: members.collect(),
        };
        let bytes = serde_json::to_vec_pretty(&kept).map_err(EngineError::from)?;
        let path = self.path(name);
        let written = self.write(&path, &bytes);
        Ok(written.within(|| format!("cannot write {}", path.display()))?)
    }

    /// Removes a list, whatever state its file is in. Whether there was one.
    pub fn remove(&self, name: &Reference) -> Result<bool> {
        let _locked = self.lock()?;
        self.unlink(name)
    }

    /// Removes a list unless it has changed since it was `known`. Whether it is gone.
    pub fn remove_unchanged(&self, name: &Reference, known: &ManifestList) -> Result<bool> {
        let _locked = self.lock()?;
        match self.get(name)? {
            Some(list) if list == *known => self.unlink(name),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    fn unlink(&self, name: &Reference) -> Result<bool> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err).within(|| format!("cannot remove {}", path.display())),
        }
    }

    fn path(&self, name: &Reference) -> PathBuf {
        let hex = Digest::sha256(name.to_string().as_bytes()).hex();
        self.dir.join(format!("{hex}.json"))
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let lock = || {
            std::fs::create_dir_all(&self.dir)?;
            let file = File::create(&path)?;
            match file.try_lock() {
                // Whoever has it holds it for as long as a small file takes to write.
                Err(TryLockError::WouldBlock) => file.lock()?,
                Err(TryLockError::Error(err)) => return Err(err),
                Ok(()) => {}
            }
            Ok(file)
        };
        lock().within(|| {
            let hint = Hint::ListsPlace;
            format!("cannot keep lists in {}: {hint}", self.dir.display())
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut beside = tempfile::NamedTempFile::new_in(&self.dir)?;
        beside.write_all(bytes)?;
        beside.as_file().sync_all()?;
        beside.persist(path)?;
        Ok(())
    }
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn parse(bytes: &[u8], name: &Reference) -> Result<ManifestList> {
    if bytes.len() as u64 > MAX_FILE {
        fail!(Invalid, "it has more than {MAX_FILE} bytes");
    }
    let kept: KeptList = serde_json::from_slice(bytes)?;
    if kept.version != VERSION {
        fail!(
            Unsupported,
            "it is of version {}, not {VERSION}",
            kept.version
        );
    }
    if kept.name != name.to_string() {
        fail!(Invalid, "it is the list {}", kept.name);
    }
    let members = kept.members.into_iter().map(|member| {
        Ok(ListMember {
            reference: member.reference.parse()?,
            manifest: member.manifest,
        })
    });
    Ok(ManifestList {
        members: members.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> ListMember {
        ListMember {
            reference: name.parse().unwrap(),
            manifest: Descriptor::of_document(Digest::sha256(name.as_bytes()), 3),
        }
    }

    #[test]
    fn lists_are_kept_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists::new(dir.path().join("a/b"));
        // As long as names get.
        let long = format!("r.example/{}:{}", "a".repeat(255), "t".repeat(128));
        let name: Reference = long.parse().unwrap();
        assert_eq!(lists.get(&name).unwrap(), None);
        for number in 0..3 {
            let added = member(&format!("r.example/m:{number}"));
            let change = |list: Option<ManifestList>| {
                let mut list = list.unwrap_or_default();
                assert_eq!(list.members.len(), number);
                list.add(added.clone());
                Ok::<_, EngineError>(list)
            };
            lists.change(&name, change).unwrap();
        }
        let found = lists.get(&name).unwrap().unwrap();
        assert_eq!(found.members[2], member("r.example/m:2"));
        // What was changed meanwhile stays.
        let mut known = found.clone();
        known.members.pop();
        assert!(!lists.remove_unchanged(&name, &known).unwrap());
        assert_eq!(lists.get(&name).unwrap().as_ref(), Some(&found));
        // What is refused changes nothing.
        let refused = lists.change(&name, |_| fail!(Invalid, "no"));
        assert_eq!(refused.unwrap_err().to_string(), "no");
        assert_eq!(lists.get(&name).unwrap(), Some(found));
        assert!(lists.remove(&name).unwrap());
        assert!(!lists.remove(&name).unwrap());
    }

    #[test]
    fn a_damaged_file_is_named_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists::new(dir.path().to_owned());
        let name: Reference = "r.example/l:1".parse().unwrap();
        lists
            .change(&name, |_| Ok::<_, EngineError>(ManifestList::default()))
            .unwrap();
        let good = std::fs::read_to_string(lists.path(&name)).unwrap();
        let check = |text: &str, expected: &str| {
            std::fs::write(lists.path(&name), text).unwrap();
            let err = format!("{:#}", lists.get(&name).unwrap_err());
            let path = lists.path(&name);
            assert!(err.contains(path.to_str().unwrap()), "{err}");
            assert!(
                err.contains("remove r.example/l:1 and create the list again"),
                "{err}"
            );
            assert!(err.contains(expected), "{err}");
        };
        check("", "EOF");
        check(&good[..good.len() / 2], "EOF");
        check(
            &good.replace("\"version\": 1", "\"version\": 2"),
            "version 2",
        );
        check(&good.replace("l:1", "l:2"), "r.example/l:2");
        let large = usize::try_from(MAX_FILE + 1).unwrap();
        check(&" ".repeat(large), "more than");
        assert!(lists.remove(&name).unwrap());
        assert_eq!(lists.get(&name).unwrap(), None);
    }
}
