//! The command line: parses, runs, prints.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod browse;
mod cache;
mod cp;
mod daemon;
mod export;
mod format;

mod diff;
mod globals;
mod history;
mod index;
mod inspect;
mod keys;
mod layers;
mod login;
mod look;
mod manifest;
mod mount;
mod output;
mod password;
mod progress;
mod ps;
mod pull;
mod registry;
mod template;

mod tags;
mod time;
mod units;
mod whence;

use std::ffi::OsString;
use std::process::ExitCode;

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

IMAGE is a name such as golang, ghcr.io/owner/name:tag, host:5000/name@sha256:..., oci:DIR[:tag] or
docker-archive:FILE[:name]."
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
    Ps(ps::PsArgs),
    Status(ps::StatusArgs),
    Browse(browse::BrowseArgs),
    Ls(look::LsArgs),
    Cat(look::CatArgs),
    Stat(look::StatArgs),
    Cp(cp::CpArgs),
    Export(export::ExportArgs),

    Diff(diff::DiffArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Layers(layers::LayersArgs),
    Tags(tags::TagsArgs),
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
    Completions(CompletionsArgs),
}

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  imgfs completions bash > /etc/bash_completion.d/imgfs")]
struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs the program with these arguments, the program's name first.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(with_mount_command(args)) {
        Ok(cli) => cli,
        Err(err) => {
            // Help goes to stdout, usage errors to stderr; that it cannot be printed changes nothing.
            let _unprinted = err.print();
            return ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2));
        }
    };
    output::start_log(cli.globals.verbose, cli.globals.quiet);
    match dispatch(cli) {
        Ok(code) => code,
        Err(err) if output::is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => {
            output::error(&err);
            ExitCode::FAILURE
        }
    }
}

/// `mount -t fuse.imgfs IMAGE DIR -o OPTIONS` calls us as `imgfs IMAGE DIR -o OPTIONS`: without a command,
/// two names mean `mount`. So does a path after the name of a group of commands: `registry` is an image too.
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

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let globals = &cli.globals;
    match cli.command {
        Command::Mount(args) => return mount::mount(globals, &args),
        Command::Unmount(args) => mount::unmount(&args)?,
        Command::Pull(args) => pull::pull(globals, &args)?,
        Command::Ps(args) => ps::ps(&args)?,
        Command::Status(args) => ps::status(&args)?,
        Command::Browse(args) => browse::browse(globals, &args)?,
        Command::Ls(args) => look::ls(globals, &args)?,
        Command::Cat(args) => look::cat(globals, &args)?,
        Command::Stat(args) => look::stat(globals, &args)?,
        Command::Cp(args) => cp::cp(globals, &args)?,
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
        Command::Registry(command) => registry::run(&command)?,
        Command::Cache(command) => cache::run(globals, &command)?,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "imgfs", &mut script);
            output::bytes(&script)?;
        }
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
