//! Whole screens.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::browse::model::{Event, Message, tests};

/// The screen as text, without blanks at the ends of lines.
#[track_caller]
fn screen(model: &Model, theme: &Theme) -> (String, bool) {
    let (width, height) = model.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, theme)).unwrap();
    let buffer = terminal.backend().buffer();
    let has_colour = buffer
        .content()
        .iter()
        .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(super::text::width(symbol).max(1)).unwrap();
        }
        text += line.trim_end();
        text.push('\n');
    }
    // Frames in ASCII, as all of our source is.
    let ascii = text.chars().map(|letter| match letter {
        '\u{2500}' | '\u{2501}' => '-',
        '\u{2502}' | '\u{2503}' => '|',
        '\u{250c}' | '\u{2510}' | '\u{2514}' | '\u{2518}' | '\u{250f}' | '\u{2513}'
        | '\u{2517}' | '\u{251b}' => '.',
        '\u{25be}' => 'v',
        '\u{25b8}' => '>',
        letter => letter,
    });
    (ascii.collect(), has_colour)
}

#[track_caller]
fn check(model: &Model, expected: &str) {
    let (found, _) = screen(model, &Theme::new(false));
    let expected = expected.trim_start_matches('\n');
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn an_image_that_is_being_opened() {
    let mut model = Model::new("name".to_owned(), (84, 12));
    let info = tests::info();
    let large = info.layers[0].0;
    tests::tell(&mut model, Message::Resolved(info));
    tests::tell(&mut model, Message::Downloads(vec![large]));
    tests::tell(&mut model, Message::Progress(vec![(large, 13_000_000)]));
    check(
        &model,
        r"
host/name:tag                           2 layers, 30.0 MB  linux/amd64  0123456789ab
. Layers --------------------------------.. Files ---------------------------------.
|  #  PACKED   ADDED  WASTED  COMMAND    ||Files show when all layers are open.    |
|all 30.0 MB                  the whole ~||                                        |
|  0 30.0 MB [===     ] 43 %  ADD file:1~||                                        |
|  1  2.0 kB                  (not told) ||                                        |
|                                        ||                                        |
|                                        ||                                        |
|                                        ||                                        |
.----------------------------------------..----------------------------------------.
opening the layers...
 q quit  ? help  Tab layers  Enter fold  p look  c copy  f filter  / search
",
    );
}

#[test]
fn an_open_image() {
    let mut model = tests::open((100, 15));
    tests::press(&mut model, &["l"]);
    check(
        &model,
        r"
host/name:tag          efficiency 72.6 %, 157 B wasted  2 layers, 30.0 MB  linux/amd64  0123456789ab
. Layers ----------------------------------------.. The image -------------------------------------.
|  #  PACKED   ADDED  WASTED  COMMAND            ||  MODE           SIZE  NAME                     |
|all 30.0 MB   574 B   157 B  the whole image    ||* drwxr-xr-x    108 B v etc/                    |
|  0 30.0 MB   457 B   157 B  ADD file:1 in /    ||= -rw-r--r--      7 B     motd                  |
|  1  2.0 kB   117 B       -  (not told)         ||~ -rw-r--r--    101 B     passwd                |
|                                                ||+ drwxr-xr-x      9 B > srv/                    |
|                                                ||* drwxr-xr-x    300 B > usr/                    |
|                                                ||                                                |
|                                                ||                                                |
|                                                ||                                                |
|                                                ||                                                |
.------------------------------------------------..------------------------------------------------.
/etc  changes below  directory  drwxr-xr-x  0:0
 q quit  ? help  Tab layers  Enter fold  p look  c copy  f filter  / search  u unchanged
",
    );
}

#[test]
fn a_small_terminal_shows_one_side_at_a_time() {
    let mut model = tests::open((60, 15));
    check(
        &model,
        r"
host/name:tag                efficiency 72.6 %, 157 B wasted
. The image -----------------------------------------------.
|  MODE           SIZE  NAME                               |
|* drwxr-xr-x    108 B > etc/                              |
|+ drwxr-xr-x      9 B > srv/                              |
|* drwxr-xr-x    300 B > usr/                              |
|                                                          |
|                                                          |
|                                                          |
|                                                          |
|                                                          |
|                                                          |
.----------------------------------------------------------.
/etc  changes below  directory  drwxr-xr-x  0:0
 q quit  ? help  Tab layers  Enter fold  p look  c copy
",
    );
    tests::press(&mut model, &["Tab"]);
    let (text, _) = screen(&model, &Theme::new(false));
    assert!(text.contains("ADDED") && !text.contains("NAME"), "{text}");
    model.update(Event::Resize(30, 5));
    let (text, _) = screen(&model, &Theme::new(false));
    assert!(text.contains("needs 40 x 10"), "{text}");
}

#[test]
fn whatever_the_size_nothing_breaks() {
    for (width, height) in [
        (40, 10),
        (41, 23),
        (79, 11),
        (80, 10),
        (300, 90),
        (1, 1),
        (0, 0),
    ] {
        for keys in [
            &["e", "G"][..],
            &["Tab", "G"],
            &["?"],
            &["c"],
            &["f", "x"],
            &["e", "j", "p"],
        ] {
            let mut model = tests::open((100, 30));
            tests::press(&mut model, keys);
            model.update(Event::Resize(width, height));
            screen(&model, &Theme::new(true));
        }
    }
}

#[test]
fn signs_say_what_colours_say() {
    let mut model = tests::open((100, 20));
    tests::press(&mut model, &["e"]);
    let (with, has_colour) = screen(&model, &Theme::new(true));
    assert!(has_colour);
    let (without, has_colour) = screen(&model, &Theme::new(false));
    assert!(!has_colour);
    assert_eq!(with, without);
    for sign in ["|+ ", "|~ ", "|- ", "|= ", "|* "] {
        assert!(without.contains(sign), "{sign}\n{without}");
    }
}

#[test]
fn a_binary_file_is_shown_in_hex() {
    let mut model = tests::open((60, 10));
    tests::press(&mut model, &["l", "j", "p"]);
    let piece = Ok(b"\x7fELF\x02\x01\x01".to_vec());
    tests::tell(&mut model, Message::Read { preview: 1, piece });
    check(
        &model,
        r"
host/name:tag                efficiency 72.6 %, 157 B wasted
. /etc/motd, 7 B, hex -------------------------------------.
|00000000  7f 45 4c 46 02 01 01     .ELF...                |
|                                                          |
|                                                          |
|                                                          |
|                                                          |
.----------------------------------------------------------.

 Esc back  x text/hex  PgDn on  g start  G end  q quit
",
    );
    tests::press(&mut model, &["x"]);
    let (text, _) = screen(&model, &Theme::new(false));
    assert!(text.contains("\\u{7f}ELF\\u{2}"), "{text}");
}

#[test]
fn what_is_typed_can_be_seen() {
    let mut model = tests::open((60, 12));
    tests::press(&mut model, &["c", &"x".repeat(70)]);
    let (text, _) = screen(&model, &Theme::new(false));
    assert!(text.contains("copy /etc to ./~xxx"), "{text}");
    assert!(text.contains("Enter copy"), "{text}");
}
