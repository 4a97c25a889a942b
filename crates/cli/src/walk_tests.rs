//! What holds for every command there is, and for those to come.

use clap::{Command, CommandFactory};

use super::Cli;

/// Widest line of help, in columns.
const WIDTH: usize = 100;

/// Every command, groups and imgfs itself too, by its name.
fn commands() -> Vec<Command> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let (mut found, mut pending) = (Vec::new(), vec![root]);
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().cloned());
        found.push(command);
    }
    found
}

fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

/// All faults at once, so that they can be mended at once.
#[track_caller]
fn check(fault: impl Fn(&Command) -> Vec<String>) {
    let faults: Vec<String> = (commands().iter())
        .flat_map(|command| {
            let named = |text| format!("{}: {text}", name(command));
            fault(command).into_iter().map(named)
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_command_says_what_it_is_for_and_gives_an_example() {
    check(|command| {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let mut faults = Vec::new();
        if command.get_about().is_none() {
            faults.push("it does not say what it is for".to_owned());
        }
        let mut lines = help.lines();
        let has_heading = lines.any(|line| line == "Example:" || line == "Examples:");
        if !has_heading || !lines.any(|line| line.starts_with("  imgfs ")) {
            faults.push("no example".to_owned());
        }
        faults
    });
}

#[test]
fn every_argument_has_its_help() {
    check(|command| {
        let silent = command.get_arguments().filter(|arg| {
            let help = arg.get_help().map(ToString::to_string);
            help.unwrap_or_default().is_empty() && !arg.is_hide_set()
        });
        silent
            .map(|arg| format!("no help for {}", arg.get_id()))
            .collect()
    });
}

/// What is laid out by hand, with spaces before it, does not survive being broken. Paragraphs are
/// one line each, broken where the terminal ends.
#[test]
fn help_fits_a_terminal() {
    check(|command| {
        let mut command = command.clone().term_width(WIDTH);
        let text = command.get_after_help().map(ToString::to_string);
        let text = text.unwrap_or_default();
        let by_hand = text.lines().filter(|line| line.starts_with(' '));
        let rendered = command.render_long_help().to_string();
        let lines = by_hand.chain(rendered.lines());
        let wide = lines.filter(|line| line.chars().count() > WIDTH);
        wide.map(|line| format!("wide: {line}")).collect()
    });
}

/// Every word in an example that looks like an option is one.
#[test]
fn examples_use_options_that_exist() {
    let commands = commands();
    check(|command| {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let mut faults = Vec::new();
        for line in help
            .lines()
            .filter_map(|line| line.strip_prefix("  imgfs "))
        {
            // What follows is an explanation, or another program.
            let line = line.split("  ").next().unwrap_or_default();
            let line = line.split(['|', '>', '&', ';']).next().unwrap_or_default();
            let mut meant = &commands[0];
            for word in line.split(' ') {
                if let Some(below) = meant.find_subcommand(word) {
                    meant = below;
                }
            }
            for word in line.split(' ').filter_map(|word| word.strip_prefix("--")) {
                let option = word.split('=').next().unwrap_or_default();
                let exists = meant.get_arguments().any(|arg| {
                    arg.get_long() == Some(option)
                        || (arg.get_all_aliases()).is_some_and(|names| names.contains(&option))
                });
                if !exists {
                    faults.push(format!("no option --{option} of {}: {line}", name(meant)));
                }
            }
        }
        faults
    });
}
