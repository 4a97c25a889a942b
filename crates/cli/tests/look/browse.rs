//! `imgfs browse` in a real terminal: tmux presses the keys and tells what is on the screen.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;
use crate::listing::{dir, file, symlink, whiteout};
use crate::process::{LIMIT, run};
use crate::support::registry::{Fault, On};
use crate::world::{IMGFS, kill};

/// What the shell in the terminal says when it waits.
const PROMPT: &str = "ready>";

/// A terminal with a shell, in a directory of its own. It ends with the test.
struct Terminal<'w> {
    world: &'w World,
    dir: PathBuf,
}

impl<'w> Terminal<'w> {
    /// `None`, with a message, where there is no tmux.
    fn open(world: &'w World, columns: u16, rows: u16) -> Option<Self> {
        Self::open_with(world, columns, rows, &[])
    }

    fn open_with(
        world: &'w World,
        columns: u16,
        rows: u16,
        variables: &[(&str, &str)],
    ) -> Option<Self> {
        if !has(&["tmux"]) {
            return None;
        }
        let terminal = Self {
            world,
            dir: world.path("here"),
        };
        std::fs::create_dir(&terminal.dir).unwrap();
        // A file, as Debian's shell has a prompt of its own for root.
        let start = world.path("start");
        std::fs::write(&start, format!("PS1='{PROMPT}'\n")).unwrap();
        let mut tmux = terminal.tmux();
        tmux.env("ENV", start)
            .env("LC_ALL", "C.UTF-8")
            .env("IMGFS", IMGFS)
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .args(["new-session", "-d", "-c"])
            .arg(&terminal.dir)
            .args(["-x", &columns.to_string(), "-y", &rows.to_string(), "sh"]);
        run(&mut tmux).ok();
        terminal.shows(PROMPT);
        Some(terminal)
    }

    /// tmux, with a server that no other test talks to.
    fn tmux(&self) -> Command {
        let mut tmux = self.world.command("tmux");
        tmux.env_remove("TMUX")
            .arg("-u")
            .arg("-S")
            .arg(self.world.path("tmux"))
            .args(["-f", "/dev/null"]);
        tmux
    }

    /// Types a line into the shell.
    fn line(&self, text: &str) {
        run(self.tmux().args(["send-keys", "-l", text])).ok();
        self.keys("Enter");
    }

    /// Empties the screen.
    fn clear(&self) {
        self.line("clear");
        self.waits("an empty screen,", |screen| screen.trim() == PROMPT);
    }

    /// Starts the explorer.
    fn browse(&self, reference: &str) {
        self.line(&format!("\"$IMGFS\" browse {reference}; echo code=$?"));
    }

    /// Presses keys, named as tmux does.
    fn keys(&self, keys: &str) {
        let mut tmux = self.tmux();
        run(tmux.arg("send-keys").args(keys.split(' '))).ok();
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p"])).ok()
    }

    /// Waits until this can be seen.
    #[track_caller]
    fn shows(&self, text: &str) -> String {
        self.waits(&format!("{text:?} on"), |screen| screen.contains(text))
    }

    #[track_caller]
    fn waits(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "waited for {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the explorer has ended with this code and the terminal is as it was.
    #[track_caller]
    fn ended(&self, code: i32) -> String {
        let screen = self.waits("the shell on", |screen| {
            screen.contains(&format!("code={code}")) && screen.trim_end().ends_with(PROMPT)
        });
        let state = ["display-message", "-p", "#{alternate_on} #{cursor_flag}"];
        assert_eq!(run(self.tmux().args(state)).ok().trim(), "0 1");
        screen
    }

    fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let resize = ["resize-window", "-x", &columns, "-y", &rows];
        run(self.tmux().args(resize)).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        run(self.tmux().arg("kill-server"));
    }
}

/// The path of the entry that the cursor is on, as the line below the panes has it.
fn here(screen: &str) -> &str {
    let line = screen.trim_end().lines().rev().nth(1).unwrap_or_default();
    line.split("  ").next().unwrap_or_default()
}

/// A base and a layer that adds, changes, removes and writes anew.
fn sample() -> Image {
    host_image(vec![
        gzip(&[
            dir("etc"),
            file("etc/same", "the same bytes"),
            file("etc/release", "base\n"),
            dir("usr"),
            dir("usr/bin"),
            file("usr/bin/tool", noise(3, 200_000)),
            file("usr/bin/old", noise(4, 50_000)),
        ]),
        gzip(&[
            file("etc/same", "the same bytes").mtime(5, 0),
            file("etc/release", "release 2\nsecond line\n"),
            dir("srv"),
            file("srv/\u{4e2d}\u{6587}\u{1b}[31m.txt", "wide"),
            symlink("srv/link", "../etc"),
            whiteout("usr/bin/old"),
        ]),
    ])
}

/// The bytes of an image's layers.
fn layer_bytes(image: &Image) -> u64 {
    image
        .layers
        .iter()
        .map(|layer| layer.blob.len() as u64)
        .sum()
}

/// How often blobs of layers were asked for.
fn layer_requests(world: &World, image: &Image) -> usize {
    let digests: Vec<String> = (image.layers.iter())
        .map(|layer| imgfs_formats::oci::Digest::sha256(&layer.blob).to_string())
        .collect();
    let requests = world.registry.requests();
    requests
        .iter()
        .filter(|seen| digests.iter().any(|digest| seen.path.ends_with(digest)))
        .count()
}

#[test]
fn an_image_that_nobody_pulled_is_walked_through() {
    let world = World::new();
    let image = sample();
    let reference = world.put(&image);
    let Some(terminal) = Terminal::open(&world, 120, 30) else {
        return;
    };
    terminal.browse(&reference);
    let screen = terminal.shows("\u{25b8} usr/");
    assert!(screen.contains("efficiency"), "{screen}");
    assert!(screen.contains("50.0 kB"), "the base wastes it\n{screen}");
    let documents = (image.manifest.len() + image.blobs[0].len()) as u64;
    assert_eq!(world.registry.bytes(), documents + layer_bytes(&image));
    assert_eq!(here(&screen), "/etc");
    terminal.keys("j l j j");
    let screen = terminal.waits("the odd name on", |screen| here(screen).contains("txt"));
    let odd = "srv/\u{4e2d}\u{6587}\\u{1b}[31m.txt";
    assert_eq!(here(&screen), "/".to_owned() + odd, "{screen}");
    assert!(screen.contains("link -> ../etc"), "{screen}");
    for line in screen.lines().skip(1).take(27) {
        let columns = unicode_width::UnicodeWidthStr::width(line);
        assert_eq!(columns, 120, "the frame is straight\n{screen}");
    }
    // What the top layer did, with signs.
    terminal.keys("Tab G e");
    let screen = terminal.shows("What layer 1 did");
    for (sign, name) in [("~", "release"), ("+", "link"), ("-", "old"), ("*", "bin/")] {
        let row = screen
            .lines()
            .find(|line| line.contains(&format!(" {name} ")))
            .unwrap();
        assert!(
            row.contains(&format!("\u{2502}{sign} ")),
            "{sign} {name}\n{screen}"
        );
    }
    assert!(!screen.contains(" tool"), "it did nothing to it\n{screen}");
    terminal.keys("u");
    terminal.shows(" tool");
    terminal.keys("Tab f b i n /");
    let screen = terminal.waits("the filter on", |screen| !screen.contains("release"));
    assert!(
        screen.contains(" tool") && screen.contains(" old"),
        "{screen}"
    );
    // Escape alone: what follows it at once makes another key of it.
    terminal.keys("Enter Escape");
    terminal.waits("no filter on", |screen| !screen.contains("only *"));
    terminal.keys("/ r e l e a s e Enter");
    terminal.waits("the hit on", |screen| here(screen) == "/etc/release");
    assert_eq!(layer_requests(&world, &image), 2, "each layer once");
    terminal.keys("q");
    let screen = terminal.ended(0);
    assert!(!screen.contains("Layers"), "{screen}");
}

#[test]
fn bytes_written_anew_are_told_from_others() {
    let world = World::new();
    let again = host_image(vec![
        gzip(&[file("same", "bytes"), file("other", "bytes")]),
        gzip(&[file("same", "bytes"), file("other", "BYTES")]),
    ]);
    let reference = world.put(&again);
    let Some(terminal) = Terminal::open(&world, 100, 20) else {
        return;
    };
    terminal.browse(&reference);
    let screen = terminal.shows(" same");
    let row = |name: &str| screen.lines().find(|line| line.contains(name)).unwrap();
    assert!(row(" same").contains("\u{2503}= "), "{screen}");
    assert!(row(" other").contains("\u{2503}~ "), "{screen}");
}

#[test]
fn a_preview_fetches_what_it_shows() {
    let world = World::new();
    let text: String = (0..400_000)
        .map(|line| format!("line {line:06}\n"))
        .collect();
    let image = host_image(vec![gzip(&[
        file("before", noise(1, 6 << 20)),
        file("text", &text),
        file("behind", noise(2, 6 << 20)),
    ])]);
    let reference = world.put(&image);
    let Some(terminal) = Terminal::open(&world, 100, 20) else {
        return;
    };
    world.imgfs(&["ls", &reference]).ok();
    world.evict();
    world.registry.forget_requests();
    terminal.browse(&reference);
    terminal.shows(" text");
    assert_eq!(layer_requests(&world, &image), 0, "the index is here");
    terminal.keys("G Enter");
    let screen = terminal.shows("line 000014");
    assert!(!screen.contains("line 000015"), "one screen\n{screen}");
    assert!(screen.contains("/text, 4.8 MB, text"), "{screen}");
    let (requests, bytes) = (layer_requests(&world, &image), world.registry.bytes());
    assert!((1..=2).contains(&requests), "{requests}");
    assert!(bytes < layer_bytes(&image) / 4, "{bytes}");
    // The end of each piece, and on into the next one.
    terminal.keys("G");
    terminal.shows("line 005461");
    terminal.keys("PageDown");
    terminal.shows("line 005470");
    terminal.keys("g");
    terminal.shows("line 000000");
    terminal.keys("x");
    terminal.shows("00000000  6c 69 6e 65 20 30");
    terminal.keys("Escape");
    terminal.shows("Layers");
    terminal.keys("k k p");
    let screen = terminal.shows("/before, 6.2 MB, hex");
    assert!(screen.contains("00000000  "), "{screen}");
    terminal.keys("q");
    terminal.ended(0);
}

#[test]
fn files_and_trees_are_copied_out() {
    let world = World::new();
    let reference = world.put(&sample());
    let Some(terminal) = Terminal::open(&world, 100, 20) else {
        return;
    };
    std::fs::create_dir(terminal.path("into")).unwrap();
    terminal.browse(&reference);
    terminal.shows("usr/");
    terminal.keys("/ t o o l Enter c");
    terminal.shows("copy /usr/bin/tool to ./tool");
    terminal.keys("C-u");
    terminal.keys("i n t o Enter");
    terminal.shows("copied to ./into/tool");
    assert!(std::fs::read(terminal.path("into/tool")).unwrap() == noise(3, 200_000));
    terminal.keys("c C-u . . / o u t Enter");
    terminal.shows("error: ../out is not below the current directory");
    assert!(!world.path("out").exists());
    terminal.keys("/ e t c Enter c Enter");
    terminal.shows("copied to ./etc");
    let release = std::fs::read_to_string(terminal.path("etc/release")).unwrap();
    assert_eq!(release, "release 2\nsecond line\n");
    terminal.keys("/ t o o l Enter c C-u i n t o / t o o l Enter");
    terminal.shows("exists");
    // What is gone in the image is still in its layer.
    terminal.keys("Tab G");
    terminal.shows("What layer 1 did");
    terminal.keys("/ o l d Enter c Enter");
    terminal.shows("copied to ./old");
    assert!(std::fs::read(terminal.path("old")).unwrap() == noise(4, 50_000));
    terminal.keys("q");
    terminal.ended(0);
}

#[test]
fn it_can_be_left_while_it_downloads() {
    let world = World::new();
    let image = host_image(vec![gzip(&[file("noise", noise(5, 4_000_000))])]);
    let reference = world.put(&image);
    world.registry.fault_always(On::Blob, Fault::Drip(64));
    // The config is a blob too, and comes first.
    let Some(terminal) = Terminal::open(&world, 100, 20) else {
        return;
    };
    terminal.line("stty -g > before");
    for key in ["q", "C-c"] {
        terminal.clear();
        terminal.line("echo what was there");
        terminal.browse(&reference);
        let screen = terminal.waits("a gauge on", |screen| {
            screen.contains('[') && screen.contains(" %") && screen.contains("the whole image")
        });
        assert!(screen.contains("opening the layers"), "{screen}");
        terminal.keys("?");
        terminal.shows("by pages");
        terminal.keys("x");
        terminal.keys(key);
        let screen = terminal.ended(0);
        assert!(screen.contains("\nwhat was there"), "it is back\n{screen}");
    }
    terminal.line("stty -g > after");
    terminal.clear();
    let state = |name| std::fs::read_to_string(terminal.path(name)).unwrap();
    assert_eq!(state("before"), state("after"));
    assert!(layer_requests(&world, &image) > 0);
}

#[test]
fn a_signal_ends_it_in_order() {
    let world = World::new();
    let reference = world.put(&sample());
    let Some(terminal) = Terminal::open(&world, 100, 20) else {
        return;
    };
    terminal.line(&format!(
        "sh -c 'echo $$ > pid; exec \"$IMGFS\" browse {reference}'; echo code=$?"
    ));
    terminal.shows("efficiency");
    let pid = std::fs::read_to_string(terminal.path("pid")).unwrap();
    kill(pid.trim().parse().unwrap(), Signal::TERM);
    terminal.ended(0);
}

#[test]
fn errors_say_what_to_do_next() {
    let world = World::new();
    let image = sample();
    let reference = world.put(&image);
    let Some(terminal) = Terminal::open(&world, 130, 20) else {
        return;
    };
    // The config is there, the layers are not.
    world.imgfs(&["inspect", &reference]).ok();
    world.registry.fault_always(On::Blob, Fault::Status(404));
    terminal.browse(&reference);
    let screen = terminal.shows("error, r tries again: layer ");
    assert!(screen.contains("has no blob"), "{screen}");
    world.registry.clear_faults();
    terminal.keys("r");
    terminal.shows("usr/");
    terminal.keys("q");
    terminal.ended(0);
    // A file whose bytes are not here, and nobody to ask.
    world.evict();
    terminal.clear();
    terminal.browse(&reference);
    terminal.shows("usr/");
    world.registry.away();
    terminal.keys("/ t o o l Enter p");
    terminal.shows("(fetching...)");
    let screen = terminal.shows("error, r tries again: ");
    assert!(screen.contains("(it could not be read)"), "{screen}");
    world.registry.back();
    // Who asks again in the same moment is told the same.
    terminal.waits("the content on", |screen| {
        terminal.keys("r");
        screen.contains("/usr/bin/tool, 200 kB, hex")
    });
    terminal.shows("00000000  ");
    terminal.keys("q");
    terminal.ended(0);
    // An image that is not there at all.
    terminal.clear();
    terminal.browse(&world.registry.reference("absent:t"));
    let screen = terminal.ended(1);
    assert!(
        screen.contains("imgfs: ") && screen.contains("absent"),
        "{screen}"
    );
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let world = World::new();
    let reference = world.put(&sample());
    let Some(terminal) = Terminal::open(&world, 120, 40) else {
        return;
    };
    terminal.browse(&reference);
    terminal.shows("usr/");
    terminal.resize(60, 15);
    let screen = terminal.waits("one pane on", |screen| !screen.contains("COMMAND"));
    assert!(screen.contains("usr/"), "{screen}");
    terminal.keys("Tab");
    let screen = terminal.shows("COMMAND");
    assert!(
        screen.contains("ADDED") && !screen.contains("NAME"),
        "{screen}"
    );
    terminal.resize(30, 8);
    terminal.shows("needs 40 x 10");
    terminal.resize(100, 24);
    let screen = terminal.shows("COMMAND");
    assert!(screen.contains("NAME"), "{screen}");
    terminal.keys("q");
    terminal.ended(0);
}

/// Whether escape sequences set a colour.
fn has_colours(screen: &str) -> bool {
    screen.split('\u{1b}').any(|part| {
        let codes = part.strip_prefix('[').and_then(|part| part.split_once('m'));
        codes.is_some_and(|(codes, _)| {
            let mut numbers = codes.split(';').filter_map(|code| code.parse::<u32>().ok());
            numbers.any(|code| matches!(code, 30..=38 | 40..=48 | 90..=107))
        })
    })
}

#[test]
fn no_color_means_no_colour() {
    for (value, expected) in [("", true), ("1", false)] {
        let world = World::new();
        let reference = world.put(&sample());
        let terminal = Terminal::open_with(&world, 100, 20, &[("NO_COLOR", value)]);
        let Some(terminal) = terminal else {
            return;
        };
        terminal.browse(&reference);
        terminal.shows("usr/");
        let raw = run(terminal.tmux().args(["capture-pane", "-e", "-p"])).ok();
        assert_eq!(has_colours(&raw), expected, "{raw:?}");
        assert!(
            raw.contains("\u{1b}[7m"),
            "the chosen line stands out\n{raw:?}"
        );
        terminal.keys("q");
        terminal.ended(0);
    }
}

/// The processes with this in their command line.
fn processes(text: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap();
    let lines = all.filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8(line).ok()
    });
    lines
        .filter(|line| line.contains(text) && line.contains("\0browse\0"))
        .collect()
}

#[test]
fn it_ends_with_its_terminal() {
    let world = World::new();
    let reference = world.put(&sample());
    let Some(terminal) = Terminal::open(&world, 100, 24) else {
        return;
    };
    terminal.browse(&reference);
    terminal.shows("usr/");
    assert_eq!(processes(&reference).len(), 1);
    run(terminal.tmux().arg("kill-server")).ok();
    let end = Instant::now() + LIMIT;
    while !processes(&reference).is_empty() {
        assert!(Instant::now() < end, "it goes on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_a_terminal_it_names_other_commands() {
    let world = World::new();
    let reference = world.put(&sample());
    let outcome = world.imgfs(&["browse", &reference]);
    outcome.fails(1, &["needs a terminal", "imgfs ls", "imgfs tree"]);
    assert_eq!(world.registry.log(), [""; 0]);
}
