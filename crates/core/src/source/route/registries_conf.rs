//! `registries.conf` of podman, buildah, skopeo and CRI-O, with its drop-in directories and its
//! first version.
//!
//! ```text
//! $CONTAINERS_REGISTRIES_CONF                 one of these three;
//! ~/.config/containers/registries.conf        with the last and the first, drop-ins
//! /etc/containers/registries.conf             of both directories count, with the
//! registries.conf.d/*.conf beside each        user's only the user's
//! ```
//!
//! Later files replace entries of the same prefix or alias, and whole lists. Unknown keys are
//! ignored, as other tools have keys of their own there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::configuration::Registries;
use super::error::RouteError;
use super::rule::{Credentials, Place, Rule, Target, check_location};
use super::short_name_settings::{Alias, Search, ShortNameMode};
use super::text_file::TextFile;
use crate::source::endpoint::Serves;
use crate::source::small_file::is_absent;

/// All files together.
#[derive(Debug, Default)]
pub(super) struct RegistriesConf {
    /// By prefix.
    pub rules: HashMap<String, Rule>,
    /// By short name.
    pub aliases: HashMap<String, Alias>,
    /// Where short names are searched.
    pub search: Option<Search>,
    /// What to do if there are several such places.
    pub mode: Option<(ShortNameMode, PathBuf)>,
    /// The files that exist.
    pub files: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<Spanned<String>>,
    aliases: HashMap<String, String>,
    registry: Vec<Spanned<Entry>>,
    registries: VersionOne,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: Spanned<String>,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Spanned<String>>,
}

/// The tables `registries.search`, `.insecure` and `.block` of the format's first version.
#[derive(Deserialize, Default)]
#[serde(default)]
struct VersionOne {
    search: VersionOneList,
    insecure: VersionOneList,
    block: VersionOneList,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VersionOneList {
    registries: Vec<Spanned<String>>,
}

/// Reads the files that there are.
pub(super) fn read(registries: &Registries) -> Result<RegistriesConf, RouteError> {
    let mut all = RegistriesConf::default();
    for path in files(registries)? {
        match TextFile::read(&path)? {
            Some(file) => all.take(&file)?,
            None if registries.explicit.as_ref() == Some(&path) => {
                return Err(RouteError::Read {
                    file: path,
                    cause: std::io::ErrorKind::NotFound.into(),
                });
            }
            None => {}
        }
    }
    Ok(all)
}

/// The files to read, later ones winning.
pub(super) fn files(registries: &Registries) -> Result<Vec<PathBuf>, RouteError> {
    let (main, drop_ins) = if registries.explicit.is_some() {
        (&registries.explicit, [&registries.system, &registries.user])
    } else if registries.user.as_ref().is_some_and(|user| user.exists()) {
        (&registries.user, [&None, &registries.user])
    } else {
        (&registries.system, [&registries.system, &registries.user])
    };
    let mut files: Vec<PathBuf> = main.iter().cloned().collect();
    for beside in drop_ins.into_iter().flatten() {
        let mut dir = beside.clone().into_os_string();
        dir.push(".d");
        files.extend(drop_in_files(Path::new(&dir))?);
    }
    Ok(files)
}

fn drop_in_files(dir: &Path) -> Result<Vec<PathBuf>, RouteError> {
    let error = |cause| RouteError::Read {
        file: dir.to_owned(),
        cause,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if is_absent(&cause) => return Ok(Vec::new()),
        Err(cause) => return Err(error(cause)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
            && !path.is_dir()
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl RegistriesConf {
    /// Lets a file's entries replace those of the files before.
    pub(super) fn take(&mut self, file: &TextFile) -> Result<(), RouteError> {
        let parsed: File = file.parse_toml()?;
        let path = &file.path;
        for entry in parsed.registry {
            let rule = rule(file, &entry)?;
            self.rules.insert(rule.prefix.clone(), rule);
        }
        self.take_version_one(file, &parsed.registries)?;
        for (name, target) in parsed.aliases {
            // An empty target takes back what a file before says.
            if target.is_empty() {
                self.aliases.remove(&name);
            } else {
                self.aliases.insert(name, Alias::new(target, path));
            }
        }
        if let Some(registries) = parsed.unqualified_search_registries {
            self.search = Some(Search::new(registries, path));
        }
        if let Some(text) = parsed.short_name_mode {
            let mode = match text.as_ref().as_str() {
                "enforcing" => ShortNameMode::Enforcing,
                "permissive" | "" => ShortNameMode::Permissive,
                "disabled" => ShortNameMode::Disabled,
                other => {
                    let problem = format!(
                        "the short-name-mode {other:?} is none of \"enforcing\", \"permissive\" and \"disabled\""
                    );
                    return Err(file.error_at(text.span(), problem));
                }
            };
            self.mode = Some((mode, path.clone()));
        }
        self.files.push(path.clone());
        Ok(())
    }

    fn take_version_one(&mut self, file: &TextFile, lists: &VersionOne) -> Result<(), RouteError> {
        for (list, blocks) in [(&lists.block, true), (&lists.insecure, false)] {
            for text in &list.registries {
                let prefix = location(file, text)?;
                let rule = self.rules.entry(prefix.clone()).or_insert_with(|| Rule {
                    prefix,
                    file: file.path.clone(),
                    blocked: false,
                    primary: Target::default(),
                    mirrors: Vec::new(),
                });
                rule.blocked |= blocks;
                rule.primary.insecure |= !blocks;
            }
        }
        if !lists.search.registries.is_empty() {
            let search = lists.search.registries.iter();
            let search = search.map(|text| text.as_ref().clone()).collect();
            self.search = Some(Search::new(search, &file.path));
        }
        Ok(())
    }
}

fn rule(file: &TextFile, entry: &Spanned<Entry>) -> Result<Rule, RouteError> {
    let span = entry.span();
    let entry = entry.as_ref();
    let text = |text: &Option<Spanned<String>>| {
        text.as_ref()
            .filter(|text| !text.as_ref().is_empty())
            .map(|text| location(file, text))
            .transpose()
    };
    let (prefix, place) = match (text(&entry.prefix)?, text(&entry.location)?) {
        (Some(prefix), Some(location)) if prefix == location => (prefix, Place::Unchanged),
        (Some(prefix), Some(location)) => (prefix, Place::Location(location)),
        (None, Some(location)) => (location, Place::Unchanged),
        (Some(prefix), None) if prefix.starts_with("*.") => (prefix, Place::Unchanged),
        (Some(prefix), None) => {
            let problem =
                format!("the registry {prefix:?} needs a location: only *.host goes without");
            return Err(file.error_at(span, problem));
        }
        (None, None) => {
            let problem = "a registry has a prefix, a location or both";
            return Err(file.error_at(span, problem));
        }
    };
    let mirrors = entry
        .mirror
        .iter()
        .map(|mirror| mirror_target(file, mirror, entry.mirror_by_digest_only))
        .collect::<Result<_, _>>()?;
    Ok(Rule {
        prefix,
        file: file.path.clone(),
        blocked: entry.blocked,
        primary: Target {
            place,
            insecure: entry.insecure,
            ..Target::default()
        },
        mirrors,
    })
}

fn mirror_target(
    file: &TextFile,
    mirror: &MirrorEntry,
    only_digests: bool,
) -> Result<Target, RouteError> {
    let (tags, pinned) = match &mirror.pull_from_mirror {
        None => (!only_digests, true),
        Some(text) if only_digests && !text.as_ref().is_empty() => {
            let problem = "pull-from-mirror cannot be beside mirror-by-digest-only = true";
            return Err(file.error_at(text.span(), problem));
        }
        Some(text) => match text.as_ref().as_str() {
            "" => (!only_digests, true),
            "all" => (true, true),
            "digest-only" => (false, true),
            "tag-only" => (true, false),
            other => {
                let problem = format!(
                    "pull-from-mirror {other:?} is none of \"all\", \"digest-only\" and \"tag-only\""
                );
                return Err(file.error_at(text.span(), problem));
            }
        },
    };
    Ok(Target {
        place: Place::Location(location(file, &mirror.location)?),
        insecure: mirror.insecure,
        // What a tag-only mirror may say of a tag it may bring as well; a digest-only one can say
        // nothing wrong.
        serves: Serves {
            tags,
            digests: true,
            pinned,
        },
        credentials: Credentials::Own,
        ..Target::default()
    })
}

fn location(file: &TextFile, text: &Spanned<String>) -> Result<String, RouteError> {
    check_location(text.as_ref()).map_err(|problem| file.error_at(text.span(), problem))
}
