//! The command line: parses, runs, prints.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: see `exit.rs`.

mod browse;
mod cache;
mod complete;
mod cp;
mod daemon;
mod diff;
mod digests;
mod exit;
mod export;
mod format;
mod globals;
mod hints;
mod history;
mod images;
mod index;
mod inspect;
mod keys;
mod layers;
mod login;
mod look;
mod man;
mod manifest;
mod mount;
mod output;
mod password;
mod progress;
mod ps;
mod pull;
mod registry;
mod search;
mod tags;
mod time;
mod units;
#[cfg(test)]
mod walk_tests;
mod whence;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use globals::Globals;

/// Mount and look into container images, without extracting or preparing them.
#[derive(Parser)]
#[command(
    name = "imgfs",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  imgfs mount golang:latest /mnt/go       mount an image; reads fetch what they need
  imgfs pull golang:latest                fetch all of it, for when the registry is out of reach
  imgfs ls -l golang /usr/local           list a directory without a mount
  imgfs cat alpine:3.20 /etc/os-release   print a file
  imgfs index push host/team/tool:1       publish indexes, so that others need not fetch all of it
  imgfs status /mnt/go                    what a mount has fetched, and how far it is proven
  imgfs unmount /mnt/go

IMAGE is a name such as golang, ghcr.io/owner/name:tag, host:5000/name@sha256:..., oci:DIR[:tag] or \
docker-archive:FILE[:name].

Data goes to stdout, everything else to stderr. `imgfs man COMMAND | man -l -` says more; so does \
`imgfs COMMAND --help`."
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Mount(mount::MountArgs),
    #[command(visible_alias = "umount")]
    Unmount(mount::UnmountArgs),
    Pull(pull::PullArgs),
    Images(images::ImagesArgs),
    Rm(images::RmArgs),
    Prune(images::PruneArgs),
    Ps(ps::PsArgs),
    Status(ps::StatusArgs),
    Browse(browse::BrowseArgs),
    Ls(look::LsArgs),
    Tree(look::TreeArgs),
    Find(look::FindArgs),
    Cat(look::CatArgs),
    Head(look::HeadArgs),
    Grep(look::GrepArgs),
    Du(look::DuArgs),
    Stat(look::StatArgs),
    Cp(cp::CpArgs),
    Export(export::ExportArgs),

    Diff(diff::DiffArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Layers(layers::LayersArgs),
    Tags(tags::TagsArgs),
    Search(search::SearchArgs),
    Whence(whence::WhenceArgs),
    #[command(subcommand)]
    Index(index::IndexCommand),
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    Completions(complete::CompletionsArgs),
    Man(man::ManArgs),
}

fn main() -> ExitCode {
    imgfs_core::hint::word_hints(hints::words);
    run(std::env::args_os().collect())
}

/// Runs the program with these arguments, the program's name first.
fn run(args: Vec<OsString>) -> ExitCode {
    if let [_, command, words @ ..] = &args[..]
        && command == complete::HIDDEN_COMMAND
    {
        return complete::answer(words);
    }
    let command_line = look::with_tests_last::<Cli>(with_mount_command(args));
    let cli = match Cli::try_parse_from(&command_line) {
        Ok(cli) => cli,
        Err(err) => {
            // Help goes to stdout, usage errors to stderr; that it cannot be printed changes
            // nothing.
            let _unprinted = err.print();
            if err.kind() == ErrorKind::InvalidSubcommand && !names_a_group(&command_line) {
                output::message(
                    "An image comes after a command, as in `imgfs ls golang`; `imgfs --help` lists the commands.",
                );
            }
            return ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2));
        }
    };
    output::start_log(cli.globals.verbose, cli.globals.quiet);
    globals::raise_open_files();
    match dispatch(cli) {
        Ok(code) => code,
        Err(err) if output::is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => {
            output::error(&err);
            ExitCode::FAILURE
        }
    }
}

/// `mount -t fuse.imgfs IMAGE DIR -o OPTIONS` calls us as `imgfs IMAGE DIR -o OPTIONS`: without a
/// command, two names mean `mount`. So does a path after the name of a group of commands:
/// `registry` is an image too.
fn with_mount_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let cli = Cli::command();
    let command = |arg: &OsString| {
        let text = arg.to_string_lossy();
        cli.get_subcommands()
            .find(|command| {
                command.get_name() == text || command.get_all_aliases().any(|alias| alias == text)
            })
            .map(clap::Command::has_subcommands)
    };
    let is_name = |arg: &OsString| {
        !arg.to_string_lossy().starts_with('-') && command(arg).is_none() && arg != "help"
    };
    if let [_, image, dir, ..] = &args[..]
        && is_name(dir)
        && (is_name(image) || command(image) == Some(true) && dir.to_string_lossy().contains('/'))
    {
        args.insert(1, "mount".into());
    }
    args
}

/// Whether the first word that is no option is a group of commands, so that it was not an image in
/// its place.
fn names_a_group(command_line: &[OsString]) -> bool {
    let mut words = command_line
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy());
    let first = words.find(|word| !word.starts_with('-'));
    first.is_some_and(|word| Cli::command().find_subcommand(&*word).is_some())
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let globals = &cli.globals;
    match cli.command {
        Command::Mount(args) => return mount::mount(globals, &args),
        Command::Unmount(args) => mount::unmount(&args)?,
        Command::Pull(args) => pull::pull(globals, &args)?,
        Command::Images(args) => images::images(globals, &args)?,
        Command::Rm(args) => return images::rm(globals, &args),
        Command::Prune(args) => images::prune(globals, &args)?,
        Command::Ps(args) => ps::ps(&args)?,
        Command::Status(args) => ps::status(&args)?,
        Command::Ls(args) => return look::ls(globals, &args),
        Command::Tree(args) => return look::tree(globals, &args),
        Command::Find(args) => return look::find_files(globals, &args),
        Command::Cat(args) => return look::cat(globals, &args),
        Command::Head(args) => return look::head(globals, &args),
        Command::Grep(args) => return look::grep(globals, &args),
        Command::Du(args) => return look::du(globals, &args),
        Command::Browse(args) => browse::browse(globals, &args)?,
        Command::Stat(args) => look::stat(globals, &args)?,
        Command::Cp(args) => return cp::cp(globals, &args),
        Command::Export(args) => export::export(globals, &args)?,
        Command::Diff(args) => return diff::diff(globals, &args),
        Command::Index(command) => return index::run(globals, &command),
        Command::Inspect(args) => inspect::inspect(globals, &args)?,
        Command::History(args) => history::history(globals, &args)?,
        Command::Layers(args) => layers::layers(globals, &args)?,
        Command::Tags(args) => tags::tags(&args)?,
        Command::Whence(args) => whence::whence(globals, &args)?,
        Command::Manifest(command) => manifest::run(globals, &command)?,
        Command::Login(args) => login::login(globals, &args)?,
        Command::Logout(args) => login::logout(globals, &args)?,
        Command::Search(args) => search::search(globals, &args)?,
        Command::Registry(command) => registry::run(&command)?,
        Command::Cache(command) => return cache::run(globals, &command),
        Command::Completions(args) => complete::completions(&args)?,
        Command::Man(args) => man::man(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_names_mean_mount() {
        let check = |args: &[&str], expected: &[&str]| {
            let args = std::iter::once(&"imgfs")
                .chain(args)
                .map(OsString::from)
                .collect();
            assert_eq!(with_mount_command(args)[1..], *expected);
        };
        check(
            &["golang", "/mnt", "-o", "rw"],
            &["mount", "golang", "/mnt", "-o", "rw"],
        );
        check(&["umount", "/mnt"], &["umount", "/mnt"]);
        check(&["registry", "/mnt"], &["mount", "registry", "/mnt"]);
        check(
            &["registry", "explain", "a/b"],
            &["registry", "explain", "a/b"],
        );
        check(&["ls", "golang"], &["ls", "golang"]);
        check(&["golang"], &["golang"]);
        check(&["--help"], &["--help"]);
    }
}
