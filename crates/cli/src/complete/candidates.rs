//! What fits where: images and paths from the cache, mountpoints from the list of mounts.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command, CommandFactory, Parser};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use super::super::Cli;
use super::super::cp::split_path;
use super::super::globals::Globals;
use crate::globals::{environment, runtime_dir};
use imgfs_core::image::{CachedImage, cached_tree, find_cached};
use imgfs_core::serve::running_mounts;
use imgfs_core::source::host_platform;
use imgfs_core::source::route::candidates;
use imgfs_core::store::Store;
use imgfs_formats::oci::{Platform, PlatformMatcher};
use imgfs_formats::tree::{Answer, Content, Node, PartialTree};

/// Most names of a directory that are offered: more is no help to anybody, and shells take their
/// time with them.
const MAX_NAMES: usize = 5000;

/// What the words before the one at the cursor say.
struct Said {
    store: Option<Store>,
    image: Option<OsString>,
    platform: Option<String>,
}

/// The globals alone.
#[derive(Parser)]
struct Common {
    #[command(flatten)]
    globals: Globals,
}

/// The command line with what completes its values.
pub(super) fn attach(command: Command, words: &[OsString]) -> Command {
    let said = Arc::new(Said::read(words));
    attach_to(command, &said)
}

fn attach_to(command: Command, said: &Arc<Said>) -> Command {
    let has_image = command.get_positionals().any(is_image);
    // IMAGE:/PATH in one word.
    let takes_both = command.get_name() == "cp";
    let takes_mount = matches!(command.get_name(), "unmount" | "status");
    let command = command.mut_args(|arg| {
        let said = Arc::clone(said);
        let is_path = arg.is_positional() && is_named(&arg, &["path", "paths"]);
        if is_image(&arg) && takes_both {
            arg.add(completer(move |typed| {
                paths_behind(&said, typed).or_else(|| images(&said, typed))
            }))
        } else if is_image(&arg) {
            arg.add(completer(move |typed| images(&said, typed)))
        } else if is_path && has_image {
            arg.add(completer(move |typed| paths(&said, typed)))
        } else if has_image && is_named(&arg, &["rest"]) {
            // Of commands that compare two images: the other one, or a path.
            arg.add(completer(move |typed| match typed.first() {
                Some(b'/') => paths(&said, typed),
                _ => images(&said, typed),
            }))
        } else if takes_mount && is_named(&arg, &["dir"]) {
            arg.add(completer(mountpoints))
        } else {
            arg
        }
    });
    command.mut_subcommands(|below| attach_to(below, said))
}

/// A completer that says nothing where something is wrong.
fn completer(
    find: impl Fn(&[u8]) -> Option<Vec<CompletionCandidate>> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| find(typed.as_bytes()).unwrap_or_default())
}

/// Whether an argument is the name of an image.
fn is_image(arg: &Arg) -> bool {
    arg.is_positional() && is_named(arg, &["image", "images", "reference", "ref"])
}

/// Whether this is what an argument is called, in the code or in the help.
fn is_named(arg: &Arg, names: &[&str]) -> bool {
    let values = arg.get_value_names().unwrap_or_default();
    let mut known = values.iter().map(|name| name.to_ascii_lowercase());
    names.contains(&arg.get_id().as_str()) || known.any(|name| names.contains(&&*name))
}

impl Said {
    fn read(words: &[OsString]) -> Self {
        let before = words
            .get(..words.len().saturating_sub(1))
            .unwrap_or_default();
        let command = Cli::command().ignore_errors(true);
        let matches = command.clone().try_get_matches_from(before).ok();
        let (mut command, mut matches) = (&command, matches.as_ref());
        // The innermost command that was typed.
        while let Some((name, below)) = matches.and_then(ArgMatches::subcommand) {
            let Some(found) = command.find_subcommand(name) else {
                break;
            };
            (command, matches) = (found, Some(below));
        }
        let value = |id: &str| -> Option<OsString> {
            let mut values = matches?.try_get_raw(id).ok()??;
            values.next().map(OsStr::to_owned)
        };
        let image = command.get_positionals().find(|arg| is_image(arg));
        Self {
            store: store(value("cache_dir")),
            image: image.and_then(|arg| value(arg.get_id().as_str())),
            platform: value("platform").and_then(|text| text.into_string().ok()),
        }
    }
}

/// The cache, if there is one. Opening it would make one.
fn store(dir: Option<OsString>) -> Option<Store> {
    let dir = match dir {
        Some(dir) => PathBuf::from(dir),
        None => Common::try_parse_from(["imgfs"]).ok()?.globals.dir().ok()?,
    };
    dir.join("v1").is_dir().then(|| Store::open(&dir, 0).ok())?
}

/// The images of the cache, as people write them; as they are in full where they are typed so.
fn images(said: &Said, typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    let mut names = Vec::new();
    for record in said.store.as_ref()?.tag_records().ok()? {
        let reference: imgfs_formats::oci::Reference = record.reference.parse().ok()?;
        let forms = [reference.short(), record.reference];
        let form = forms
            .into_iter()
            .find(|form| form.as_bytes().starts_with(typed));
        names.extend(form);
    }
    names.sort();
    names.dedup();
    Some(names.into_iter().map(CompletionCandidate::new).collect())
}

/// The entries of the directory that was typed, of an image of the cache.
fn paths(said: &Said, typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    paths_of(said, said.image.as_ref()?.to_str()?, typed)
}

/// The same behind the name of the image and a colon, if both were typed.
fn paths_behind(said: &Said, typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    let (image, path) = split_path(typed).ok()?;
    let found = paths_of(said, image, path)?;
    let whole = found.iter().map(|path| {
        let mut word = OsString::from(format!("{image}:"));
        word.push(path.get_value());
        CompletionCandidate::new(word)
    });
    Some(whole.collect())
}

fn paths_of(said: &Said, image: &str, typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    let store = said.store.as_ref()?;
    let configuration = environment().configuration;
    let references = candidates(image, &configuration).ok()?.references;
    let known = find_cached(store, &references).ok()?;
    let tree = cached_tree(store, choose(&known, said.platform.as_deref())?)?;
    let start = typed.iter().rposition(|byte| *byte == b'/');
    let start = start.map_or(0, |slash| slash + 1);
    let (dir, prefix) = typed.split_at_checked(start)?;
    let Answer::Found(ino) = tree.resolve(if dir.is_empty() { b"/" } else { dir }, true) else {
        return None;
    };
    let merged = tree.tree();
    let mut found = Vec::new();
    for dirent in merged.children(merged.node(ino)?) {
        let name = merged.name(dirent);
        let is_meant = name.starts_with(prefix) && (!prefix.is_empty() || !name.starts_with(b"."));
        if !is_meant {
            continue;
        }
        let mut path = [dir, name].concat();
        if is_directory(&tree, &path, dirent.ino()) {
            path.push(b'/');
        }
        found.push(CompletionCandidate::new(OsString::from_vec(path)));
        if found.len() > MAX_NAMES {
            return None;
        }
    }
    Some(found)
}

/// Whether an entry is a directory, or a link to one.
fn is_directory(tree: &PartialTree, path: &[u8], ino: imgfs_formats::tree::Ino) -> bool {
    let merged = tree.tree();
    let is_directory = |ino| merged.node(ino).is_some_and(Node::is_directory);
    let is_link =
        (merged.node(ino)).is_some_and(|node| matches!(merged.content(node), Content::Symlink(_)));
    let target = || match tree.resolve(path, true) {
        Answer::Found(target) => is_directory(target),
        Answer::Absent(_) | Answer::NeedsLowerLayer => false,
    };
    is_directory(ino) || is_link && target()
}

/// The image for the platform that is asked for, or for this machine.
fn choose<'a>(images: &'a [CachedImage], platform: Option<&str>) -> Option<&'a CachedImage> {
    let host = host_platform();
    let wanted = match platform {
        Some(text) => Platform::parse(text, &host).ok()?,
        None => host,
    };
    let matcher = PlatformMatcher::new(&wanted);
    let fits = |image: &&CachedImage| {
        (image.platform.as_ref()).is_none_or(|offered| matcher.fit(offered).is_some())
    };
    images.iter().find(fits)
}

/// Where images are mounted.
fn mountpoints(typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    let mounts = running_mounts(&runtime_dir()).ok()?.into_iter();
    let mountpoints = mounts.map(|mount| mount.record.mountpoint);
    let fitting = mountpoints.filter(|dir| dir.as_os_str().as_bytes().starts_with(typed));
    Some(fitting.map(CompletionCandidate::new).collect())
}
