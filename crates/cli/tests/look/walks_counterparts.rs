//! What `ls -R`, `find`, `grep`, `head`, `du` and `tree` say of an image against what the tools of
//! those names say of the same layers, unpacked by umoci.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::listing::{dir, fifo, file, hard_link, opaque, symlink, whiteout};
use crate::process::{Outcome, run};
use crate::support::image::write_layout;
use crate::world::{IMGFS, is_root, test_name};

/// Two layers with odd names, several names for one file, and a deletion of each kind.
fn odd() -> Image {
    let lines: String = (1..=500).map(|n| format!("line {n} of many\n")).collect();
    host_image(vec![
        gzip(&[
            dir("etc"),
            file(
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:Web Server:/var/www:/bin/false\n",
            )
            .mtime(1_700_000_000, 5),
            file("etc/group", "root:x:0:\nstaff:x:50:web\n"),
            file("etc/gone", "gone"),
            file("etc/.hidden", "dot\n"),
            dir("etc/.config"),
            file("etc/.config/x", "X"),
            dir("data"),
            file("data/lines", &lines),
            file("data/no end", "first\nlast line"),
            file("data/dos", "one\r\ntwo\r\n"),
            file("data/binary", b"text\nzero\0 here\nmore text\n"),
            file("data/latin", b"caf\xe9 text\n"),
            file("data/empty", ""),
            file("data/1023", noise(3, 1023)),
            file("data/1024", noise(4, 1024)).mode(0o600),
            file("data/1025", noise(5, 1025)).mode(0o4755).owner(33, 50),
            file("data/large", noise(6, 3_000_000))
                .mode(0o2755)
                .owner(1000, 50),
            hard_link("data/again", "data/1025")
                .mode(0o4755)
                .owner(33, 50),
            dir("full"),
            file("full/low", "low"),
            dir("void"),
            dir("void/void"),
            symlink("to-file", "data/lines"),
            symlink("to-nothing", "/no/such/file"),
            fifo("data/pipe"),
        ]),
        gzip(&[
            whiteout("etc/gone"),
            dir("full"),
            opaque("full"),
            file("full/top", "text on top\n").mtime(1_600_000_000, 0),
            dir("odd"),
            file("odd/a b", "text\n"),
            file("odd/line\nbreak", "text\n"),
            file("odd/back\\slash", "text\n"),
            file("odd/esc\u{1b}[31m", "text\n"),
            file("odd/\u{6f22}\u{5b57}", "text\n"),
            file("odd/e\u{301}", "Text\n"),
            file("odd/*", "star\n"),
            file("odd/latin", "text\n").named(b"odd/\xe9t\xe9"),
            dir("tmp").mode(0o1777),
        ]),
    ])
}

/// An image in the registry, and what umoci makes of it.
struct Both {
    world: World,
    reference: String,
    rootfs: PathBuf,
}

impl Both {
    fn new() -> Option<Self> {
        if !has(&["umoci"]) {
            return None;
        }
        if !is_root() {
            support::programs::skip(&test_name(), "owners are restored by root only");
            return None;
        }
        let world = World::new();
        let image = odd();
        let reference = world.put(&image);
        let layout = world.path("layout");
        write_layout(&layout, &[("t", &image)]);
        let mut umoci = world.command("umoci");
        umoci.args(["unpack", "--image"]);
        let image = format!("{}:t", layout.display());
        run(umoci.arg(image).arg(world.path("bundle"))).ok();
        let rootfs = world.path("bundle/rootfs");
        Some(Self {
            world,
            reference,
            rootfs,
        })
    }

    /// A tool in the unpacked tree: its arguments as a shell has them.
    fn tool(&self, line: &str) -> Outcome {
        let mut shell = self.world.command("sh");
        shell.env("LC_ALL", "C").env("TZ", "UTC");
        run(shell.args(["-c", line]).current_dir(&self.rootfs))
    }

    /// imgfs with the image where the line has `IMAGE`.
    fn imgfs(&self, line: &str) -> Outcome {
        let mut shell = self.world.command("sh");
        shell.env("IMAGE", &self.reference).env("imgfs", IMGFS);
        let line = line.replace("IMAGE", "\"$IMAGE\"");
        // There patterns of the shell mean the same names.
        shell.current_dir(&self.rootfs);
        run(shell.args(["-c", &format!("\"$imgfs\" {line}")]))
    }
}

fn set(bytes: &[u8], end: u8) -> BTreeSet<String> {
    let parts = bytes.split(|byte| *byte == end);
    parts.map(|part| part.escape_ascii().to_string()).collect()
}

#[test]
fn find_finds_what_find_finds() {
    let Some(both) = Both::new() else { return };
    if !has(&["find"]) {
        return;
    }
    for tests in [
        "",
        "-name '*a*'",
        "-name '[!a-m]*' -type f",
        "-name '\\*'",
        "-name 'back\\\\slash'",
        "-iname 'E*'",
        "-path '*/etc/*'",
        "-path './odd/*' ! -name 'a b'",
        "-type d",
        "-type l,p",
        "-type f -size 2",
        "-type f -size +1k",
        "-type f -size -1025c",
        "-type f -size 1025c",
        "-type f -size +2M",
        "-type f -size 0",
        "-mindepth 1 -newermt 2023-11-14",
        "-mindepth 1 ! -newermt '2001-09-09 01:46:40'",
        "-mindepth 1 -mtime +1000 -type f",
        "-mindepth 1 -mtime -3",
        "-uid 33",
        "-uid +32 -uid -1001",
        "-gid 50 -not -uid 33",
        "-perm 600",
        "-perm -4000",
        "-perm /6000",
        "-perm -u=x,g=x -type f",
        "-perm /222 -type d",
        "-empty",
        "-empty -type d",
        "-maxdepth 1",
        "-mindepth 2 -maxdepth 2 -type f",
        "-maxdepth 0",
    ] {
        let line = format!(". {tests} -print0");
        let expected = both.tool(&format!("find {line}"));
        let found = both.imgfs(&format!("find IMAGE {line}"));
        let (expected, found) = (expected.ok_bytes(), found.ok_bytes());
        assert_eq!(set(&found, 0), set(&expected, 0), "find {tests}");
        assert!(found.len() > 5 || expected.len() <= 5, "find {tests}");
    }
    let some = both
        .imgfs("find IMAGE etc/passwd /data/1025 -user web")
        .ok();
    assert_eq!(some, "/data/1025\n", "names are the image's");
    let some = both.imgfs("find IMAGE /data -group staff -type f").ok();
    assert_eq!(some, "/data/1025\n/data/again\n/data/large\n");
    both.imgfs("find IMAGE / -user nobody-here")
        .fails(1, &["no user nobody-here in the image's /etc/passwd"]);
    both.imgfs("find IMAGE / /absent -name passwd")
        .fails(1, &["/absent", "no such file"]);
    both.imgfs("find IMAGE / -name a -o -name b")
        .fails(2, &["-o", "\"and\" alone"]);
}

#[test]
fn ls_lists_as_ls_does() {
    let Some(both) = Both::new() else { return };
    for line in [
        "-R .",
        "-R data full odd",
        "-RA .",
        "etc/passwd data to-file",
    ] {
        let ours = line.replace('A', "a");
        let expected = both.tool(&format!("ls {line}")).ok_bytes();
        let found = both.imgfs(&format!("ls IMAGE {ours}")).ok_bytes();
        assert_eq!(
            found.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "ls {line}"
        );
    }
}

#[test]
fn grep_selects_what_grep_selects() {
    let Some(both) = Both::new() else { return };
    if !has(&["grep"]) {
        return;
    }
    for line in [
        "line data/lines",
        "-c line data/lines",
        "-n 'e 4.. of' data/lines",
        "-v line data/lines",
        "-vc 'line 1' data/lines",
        "-w 'line 1' data/lines data/dos",
        "-i TEXT data/latin odd/*",
        "-E 'o(ne|f)' data/dos 'data/no end' data/lines",
        "-F 'x:33:' etc/passwd etc/group",
        "-nF . etc/passwd",
        "text data/binary data/latin",
        "-a text data/binary",
        "-h text data/latin data/dos",
        "-H last 'data/no end'",
        "nowhere data/lines data/empty",
        "-l text data/latin data/binary data/empty",
        "-c text data/binary data/empty",
        "-r text",
        "-rl text odd full",
        "-rc root etc",
        "-ri TEXT .",
        "-q line data/lines",
        "x absent etc/passwd",
        "x data",
        "-r top full/top",
        "'one\nlast' data/dos 'data/no end'",
    ] {
        // Without a path grep -r searches where it is, imgfs the root; so both are told where.
        let where_else = if line == "-r text" { " ." } else { "" };
        // The image stands behind the pattern.
        let words = split(line);
        let pattern = words
            .iter()
            .position(|word| !word.starts_with('-'))
            .unwrap();
        let mut ours = words.clone();
        ours.insert(pattern + 1, "IMAGE".to_owned());
        let line = format!("{}{where_else}", words.join(" "));
        let ours = format!("{}{where_else}", ours.join(" "));
        let expected = both.tool(&format!("grep {line}"));
        let found = both.imgfs(&format!("grep {ours}"));
        assert_eq!(found.code, expected.code, "grep {line}\n{}", found.stderr);
        assert_eq!(
            set(&found.stdout, b'\n'),
            set(&expected.stdout, b'\n'),
            "grep {line}"
        );
        let binary = expected.stderr.contains("data/binary: binary file matches");
        let said = found.stderr.contains("data/binary matches");
        assert_eq!(said, binary, "grep {line}\n{}", found.stderr);
    }
}

/// The words of a line, quotes kept.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        quoted ^= c == '\'';
        match words.last_mut() {
            Some(word) if c != ' ' || quoted => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words
}

#[test]
fn head_prints_what_head_prints() {
    let Some(both) = Both::new() else { return };
    for line in [
        "data/lines",
        "-n 3 data/lines",
        "-n 0 data/lines",
        "-n 10000 data/lines",
        "-n 2 'data/no end' data/dos data/empty data/lines",
        "-c 7 data/lines",
        "-c 1000000 data/large",
        "-c 100000000 data/large",
        "-n 5 data/large",
    ] {
        let expected = both.tool(&format!("head {line}")).ok_bytes();
        let words = line
            .replacen("data/", "IMAGE data/", 1)
            .replace("'IMAGE ", "IMAGE '");
        let found = both.imgfs(&format!("head {words}")).ok_bytes();
        assert!(found == expected, "head {line}");
    }
}

#[test]
fn du_sums_what_du_sums() {
    let Some(both) = Both::new() else { return };
    let number = |text: String| -> u64 {
        let digits = text.split_whitespace().next().unwrap_or_default();
        digits.parse().unwrap_or_else(|_| panic!("{text}"))
    };
    for place in [".", "data", "etc", "odd", "void", "full", "data/1025"] {
        // What du counts for directories depends on the filesystem.
        let all = number(both.tool(&format!("du -sb --apparent-size {place}")).ok());
        let sizes =
            format!("find {place} -type d -printf '%s\\n' | awk '{{s += $1}} END {{print s + 0}}'");
        let directories = number(both.tool(&sizes).ok());
        let found = both.imgfs(&format!("du -s IMAGE {place}")).ok();
        assert_eq!(found, format!("{}\t{place}\n", all - directories));
    }
    let listed = |text: String| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| line.split('\t').nth(1).unwrap().to_owned());
        lines.collect::<BTreeSet<_>>().into_iter().collect()
    };
    for depth in ["", "-d 1"] {
        let expected = both.tool(&format!("du -b {depth} .")).ok();
        let found = both.imgfs(&format!("du {depth} IMAGE .")).ok();
        assert!(
            found.ends_with("\t.\n"),
            "the sum of all comes last\n{found}"
        );
        assert_eq!(listed(found), listed(expected), "du {depth}");
    }
    assert_eq!(
        both.imgfs("du -sh IMAGE data/large data/1025").ok(),
        "2.9M\tdata/large\n1.1K\tdata/1025\n"
    );
}

#[test]
fn tree_draws_what_tree_draws() {
    let Some(both) = Both::new() else { return };
    if !has(&["tree"]) {
        return;
    }
    for line in [
        "etc",
        "-a etc",
        "-a .",
        "-L 1 .",
        "-d .",
        "-a -L 2 data full",
        "void/void",
        "-d -L 1 void",
    ] {
        let expected = both.tool(&format!("tree --charset=UTF-8 -N {line}")).ok();
        let found = both.imgfs(&format!("tree IMAGE {line}")).ok();
        // tree draws with spaces that do not break, and prints odd names as they are.
        let expected = expected
            .replace('\u{a0}', " ")
            .replace("line\nbreak", "line\\nbreak")
            .replace("back\\slash", "back\\\\slash")
            .replace('\u{1b}', "\\u{1b}")
            .replace("\u{fffd}t\u{fffd}", "\\xe9t\\xe9");
        assert_eq!(found, expected, "tree {line}");
    }
}
