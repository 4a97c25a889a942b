//! Completion: by the protocol that the scripts speak, and in the real shells. Nobody is ever asked
//! for anything.

use std::path::Path;

use super::*;
use crate::listing::{Member, dir, file, symlink};
use crate::process::run;
use crate::world::IMGFS;

/// What completes in all three shells, with names that are no joy to type.
fn odd() -> Vec<Member> {
    vec![
        dir("etc"),
        file("etc/release", "x"),
        file("etc/resolv", "x"),
        dir("etc/with space"),
        file("etc/with space/it's", "x"),
        file("etc/a:b", "x"),
        file("etc/$HOME", "x"),
        file("etc/line\nbreak", "x"),
        symlink("link", "etc"),
        symlink("dangling", "nowhere"),
        file(".hidden", "x"),
    ]
}

/// A world with that image pulled; its name is `127.0.0.1:PORT/r:t`.
fn world() -> (World, String) {
    let world = World::new();
    let lower = gzip(&[file("below", "x"), file("etc", "replaced")]);
    let reference = world.put(&host_image(vec![lower, gzip(&odd())]));
    world.imgfs(&["pull", "-q", &reference]).ok();
    world.registry.forget_requests();
    (world, reference)
}

/// What fits at the end of these words, by the protocol of zsh: without quotes.
#[track_caller]
fn complete(world: &World, words: &[&str]) -> Vec<String> {
    let arguments = [&["__complete", "zsh", "imgfs"], words].concat();
    let outcome = world.imgfs(&arguments);
    assert_eq!(outcome.stderr, "", "nobody is disturbed");
    let lines = outcome.ok();
    let value = |line: &str| line.split('\t').next().unwrap().to_owned();
    let values = lines.lines().map(value).collect();
    assert_eq!(world.registry.log(), [""; 0], "nobody is asked");
    values
}

#[test]
fn commands_options_and_their_values() {
    let world = World::new();
    let commands = complete(&world, &[""]);
    for command in ["mount", "umount", "cache", "completions"] {
        assert!(commands.contains(&command.to_owned()), "{commands:?}");
    }
    assert!(!commands.contains(&"__complete".to_owned()));
    assert_eq!(complete(&world, &["unm"]), ["unmount"]);
    assert_eq!(complete(&world, &["compl"]), ["completions"]);
    assert_eq!(complete(&world, &["cache", "ver"]), ["verify"]);
    assert_eq!(complete(&world, &["ls", "--offl"]), ["--offline"]);
    assert_eq!(complete(&world, &["completions", "f"]), ["fish"]);
    let said = world
        .imgfs(&["__complete", "fish", "imgfs", "cache", "ver"])
        .ok();
    assert!(said.starts_with("verify\tCheck every"), "{said}");
    assert!(!world.path("cache").exists(), "asking makes no cache");
}

#[test]
fn images_of_the_cache() {
    let (world, reference) = world();
    assert_eq!(complete(&world, &["ls", ""])[0], reference);
    assert_eq!(complete(&world, &["ls", "127.0"]), [reference.as_str()]);
    assert_eq!(
        complete(&world, &["mount", &reference[..15]]),
        [reference.as_str()]
    );
    assert_eq!(complete(&world, &["ls", "alp"]), [""; 0]);
    let cache = world.path("cache");
    let elsewhere = format!("--cache-dir={}", world.path("absent").display());
    assert_eq!(complete(&world, &[&elsewhere, "ls", "127"]), [""; 0]);
    let here = format!("--cache-dir={}", cache.display());
    assert_eq!(
        complete(&world, &[&here, "ls", "127"]),
        [reference.as_str()]
    );
}

#[test]
fn paths_of_an_image() {
    let (world, image) = world();
    let paths = |typed: &str| complete(&world, &["cat", &image, typed]);
    assert_eq!(paths("/"), ["/below", "/dangling", "/etc/", "/link/"]);
    assert_eq!(paths("/."), ["/.hidden"]);
    assert_eq!(paths("et"), ["etc/"]);
    assert_eq!(paths("/etc/re"), ["/etc/release", "/etc/resolv"]);
    assert_eq!(paths("/link/rel"), ["/link/release"]);
    assert_eq!(paths("/etc/w"), ["/etc/with space/"]);
    assert_eq!(paths("/etc/line"), [""; 0], "it would break the line");
    assert_eq!(paths("/absent/x"), [""; 0]);
    let second = complete(&world, &["cat", &image, "/below", "/etc/rel"]);
    assert_eq!(second, ["/etc/release"]);
    let optional = ["ls", "--pull=never", "-l", &image, "/etc/rel"];
    assert_eq!(complete(&world, &optional), ["/etc/release"]);
    assert_eq!(complete(&world, &["cat", "absent", "/"]), [""; 0]);
}

#[test]
fn paths_behind_the_image_that_cp_takes_in_one_word() {
    let (world, image) = world();
    let words = |typed: &str| complete(&world, &["cp", &format!("{image}{typed}")]);
    let expected = [":/etc/release", ":/etc/resolv"].map(|path| format!("{image}{path}"));
    assert_eq!(words(":/etc/re"), expected);
    assert_eq!(words(":/et"), [format!("{image}:/etc/")]);
    assert_eq!(words(""), [image.as_str()]);
    assert_eq!(
        bash(&world, &format!("imgfs cp {image}:/etc/rel")),
        ["/etc/release "]
    );
    assert_eq!(complete(&world, &["ls", &format!("{image}:/et")]), [""; 0]);
}

#[test]
fn paths_are_known_as_far_as_indexes_are_here() {
    let world = World::new();
    let lower = gzip(&[dir("low"), file("low/x", "x")]);
    let upper = gzip(&[dir("top"), file("top/y", "y")]);
    let reference = world.put(&host_image(vec![lower, upper]));
    // Only the upper layer is opened for that.
    world.imgfs(&["cat", &reference, "/top/y"]).ok();
    world.registry.forget_requests();
    assert_eq!(complete(&world, &["cat", &reference, "/top/"]), ["/top/y"]);
    assert_eq!(complete(&world, &["cat", &reference, "/low/"]), [""; 0]);
}

#[test]
fn a_broken_cache_disturbs_nobody() {
    let (world, image) = world();
    let damage = |dir: &str| {
        let mut pending = vec![world.cache().join(dir)];
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(
                    std::fs::read_dir(path)
                        .unwrap()
                        .map(|one| one.unwrap().path()),
                );
            } else {
                std::fs::write(path, "no sense").unwrap();
            }
        }
    };
    damage("indexes");
    assert_eq!(complete(&world, &["cat", &image, "/et"]), [""; 0]);
    damage("documents");
    damage("refs");
    let offered = complete(&world, &["cat", ""]);
    assert!(
        offered.iter().all(|one| one.starts_with('-')),
        "{offered:?}"
    );
    std::fs::remove_dir_all(world.cache()).unwrap();
    std::fs::write(world.cache(), "a file").unwrap();
    assert_eq!(complete(&world, &["cat", &image, "/et"]), [""; 0]);
}

#[test]
fn mountpoints_for_who_unmounts() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&host_image(vec![gzip(&odd())]));
    let mount = world.mount(&reference, &[]);
    world.registry.forget_requests();
    let dir = mount.dir.to_str().unwrap();
    for command in ["unmount", "status"] {
        let typed = &dir[..dir.len() - 1];
        assert!(complete(&world, &[command, typed]).contains(&dir.to_owned()));
    }
    mount.end(&world);
}

/// A directory with imgfs in it, for the PATH.
fn path_of_imgfs() -> String {
    let dir = Path::new(IMGFS).parent().unwrap().to_str().unwrap();
    format!("{dir}:{}", std::env::var("PATH").unwrap())
}

/// What bash puts in the place of the last word of a line, in a bash that has sourced the script.
#[track_caller]
fn bash(world: &World, line: &str) -> Vec<String> {
    // The words as readline cuts them do not matter: the function takes the line.
    let script = r#"
        source "$1"
        COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=(imgfs) COMP_CWORD=1
        _imgfs imgfs "" ""
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let file = world.path("imgfs.bash");
    std::fs::write(&file, world.imgfs(&["completions", "bash"]).ok()).unwrap();
    let mut command = world.command("bash");
    command.env("PATH", path_of_imgfs());
    command.env("COMP_WORDBREAKS", " \t\n\"'><=;|&(:");
    let outcome = run(command.args(["-c", script, "bash"]).arg(&file).arg(line));
    assert_eq!(outcome.stderr, "");
    let lines = outcome.ok();
    lines
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn bash_gets_what_it_can_put_in() {
    let (world, image) = world();
    let (host, rest) = image.split_once(':').unwrap();
    // bash replaces what stands behind the last colon.
    assert_eq!(
        bash(&world, &format!("imgfs ls {host}:")),
        [format!("{rest} ")]
    );
    assert_eq!(
        bash(&world, &format!("imgfs ls {}", &image[..4])),
        [format!("{image} ")]
    );
    assert_eq!(
        bash(&world, &format!("imgfs ls \"{host}:")),
        [format!("{image}\" ")]
    );
    let path = |typed: &str| bash(&world, &format!("X=1 imgfs cat {image} {typed}"));
    assert_eq!(path("/etc/rel"), ["/etc/release "]);
    assert_eq!(path("/etc/w"), ["/etc/with\\ space/"]);
    assert_eq!(path("/etc/with\\ space/"), ["/etc/with\\ space/it\\'s "]);
    assert_eq!(path("'/etc/with space/"), ["/etc/with space/it'\\''s' "]);
    assert_eq!(path("/etc/\\$"), ["/etc/\\$HOME "]);
    assert_eq!(path("/etc/a"), ["/etc/a:b "]);
    assert_eq!(path("/etc/a:"), ["b "]);
    assert_eq!(bash(&world, "imgfs cache ver"), ["verify "]);
    assert_eq!(world.registry.log(), [""; 0]);
}

/// A whole terminal: keys in, and what bash runs in the end is what was meant.
#[test]
fn bash_completes_as_somebody_types() {
    if !has(&["script", "bash"]) {
        return;
    }
    let (world, image) = world();
    let script = world.path("imgfs.bash");
    std::fs::write(&script, world.imgfs(&["completions", "bash"]).ok()).unwrap();
    let typed = format!(
        "source {}\nimgfs cat --off\t{}\t/etc/wi\tit\t; echo \"code $?\"\nexit\n",
        script.display(),
        &image[..image.len() - 2]
    );
    let mut command = world.command("script");
    command.env("PATH", path_of_imgfs()).env("TERM", "dumb");
    let outcome = process::run_with_input(
        command.args(["-qec", "bash --norc --noprofile -i", "/dev/null"]),
        &typed,
    );
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    // The file's only byte, and then what was printed after it.
    assert!(said.contains("xcode 0"), "{said}");
}

#[test]
fn zsh_completes_in_a_terminal_of_its_own() {
    if !has(&["zsh"]) {
        return;
    }
    let (world, image) = world();
    let script = world.path("_imgfs");
    std::fs::write(&script, world.imgfs(&["completions", "zsh"]).ok()).unwrap();
    // The line as it is when the keys were typed, told by a key of its own.
    let driver = r#"
        zmodload zsh/zpty
        zpty shell "PS1=READY zsh -f -i"
        send() { zpty -w -n shell "$1" }
        zpty -w shell "autoload -U compinit; compinit -u -D; source $1"
        zpty -w shell 'tell() { print -r -- "LINE<$BUFFER>END" }; zle -N tell; bindkey "^X^T" tell; print SET''UP'
        zpty -r -m shell seen '*SETUP*'
        send "$2"$'\C-x\C-t'
        zpty -r -m shell seen '*LINE<*>END*'
        line=${${seen##*LINE<}%%>END*}
        print -r -- "$line"
        zpty -d shell
    "#;
    let line = |typed: &str| {
        let mut command = world.command("zsh");
        command.env("PATH", path_of_imgfs()).env("TERM", "dumb");
        let outcome = run(command
            .args(["-f", "-c", driver, "zsh"])
            .arg(&script)
            .arg(typed));
        outcome.ok().trim_end_matches('\n').to_owned()
    };
    assert_eq!(line("imgfs cache ver\t"), "imgfs cache verify ");
    let host = &image[..image.len() - 2];
    assert_eq!(
        line(&format!("imgfs ls {host}\t")),
        format!("imgfs ls {image} ")
    );
    let path = format!("imgfs cat {image} /etc/wi");
    assert_eq!(line(&format!("{path}\t")), format!("{path}th\\ space/"));
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn fish_completes() {
    if !has(&["fish"]) {
        return;
    }
    let (world, image) = world();
    let script = world.path("imgfs.fish");
    std::fs::write(&script, world.imgfs(&["completions", "fish"]).ok()).unwrap();
    let complete = |typed: &str| {
        let mut command = world.command("fish");
        command
            .env("PATH", path_of_imgfs())
            .env("LC_ALL", "C.UTF-8");
        let program = format!(
            "source {}; complete --do-complete $argv[1]",
            script.display()
        );
        let outcome = run(command.args(["--no-config", "-c", &program]).arg(typed));
        let lines = outcome.ok();
        let value = |line: &str| line.split('\t').next().unwrap().to_owned();
        lines.lines().map(value).collect::<Vec<_>>()
    };
    assert_eq!(complete("imgfs cache ver"), ["verify"]);
    assert_eq!(
        complete(&format!("imgfs ls {}", &image[..6])),
        [image.as_str()]
    );
    assert_eq!(
        complete(&format!("imgfs cat {image} /etc/re")),
        ["/etc/release", "/etc/resolv"]
    );
    let quoted = complete(&format!("imgfs cat {image} /etc/with\\ space/"));
    assert_eq!(quoted.len(), 1, "{quoted:?}");
    assert!(
        quoted[0].ends_with("it's") || quoted[0].ends_with("it\\'s"),
        "{quoted:?}"
    );
    assert_eq!(world.registry.log(), [""; 0]);
}
