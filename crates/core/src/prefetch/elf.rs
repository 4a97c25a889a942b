//! What an ELF program says that it needs: its interpreter and its libraries.
//!
//! Only hints are made of it, so it knows the common kind (64 bits, little endian: x86-64, arm64,
//! riscv64, ppc64le) and takes what does not fit for nothing. Layouts are those of the System V
//! ABI, chapters 4 and 5.
//!
//! ```text
//! header   0x20 program headers' offset (8)   0x36 size of one (2)   0x38 count (2)
//! program  0 type (4)   8 offset (8)   16 address (8)   32 size in the file (8)
//! dynamic  0 tag (8)    8 value (8)
//! ```

use std::ops::Range;

/// Program headers looked at; usual programs have about a dozen.
const MAX_HEADERS: usize = 64;
/// Most bytes read of a dynamic section: 2048 entries, where usual programs have 30.
pub(crate) const MAX_DYNAMIC: u64 = 32 << 10;
/// Most libraries of one program that are looked for.
pub(crate) const MAX_LIBRARIES: usize = 64;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Where in the file its parts are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Headers {
    /// The interpreter's path, with a zero at its end.
    pub(crate) interpreter: Option<Range<u64>>,
    /// The dynamic section.
    pub(crate) dynamic: Option<Range<u64>>,
    /// Address and place in the file of what is loaded.
    loaded: Vec<(u64, Range<u64>)>,
}

/// Places in the file of strings, each ended by a zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dynamic {
    /// Names of libraries.
    pub(crate) needed: Vec<u64>,
    /// Directories, separated by colons, to look for them in.
    pub(crate) paths: Option<u64>,
}

impl Headers {
    /// Reads them from a file's first bytes; what lies behind these counts as absent.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = usize::try_from(number::<8>(bytes, 0x20)?).ok()?;
        let size = usize::try_from(number::<2>(bytes, 0x36)?).ok()?;
        let count = usize::try_from(number::<2>(bytes, 0x38)?).ok()?;
        let mut headers = Self::default();
        for i in 0..count.min(MAX_HEADERS) {
            let Some(header) = bytes.get(table.checked_add(i * size)?..) else {
                break;
            };
            let Some(length) = number::<8>(header, 32) else {
                break;
            };
            let offset = number::<8>(header, 8)?;
            let place = offset..offset.checked_add(length)?;
            match u32::try_from(number::<4>(header, 0)?).ok()? {
                PT_LOAD => headers.loaded.push((number::<8>(header, 16)?, place)),
                PT_DYNAMIC => headers.dynamic = Some(place),
                PT_INTERP => headers.interpreter = Some(place),
                _ => {}
            }
        }
        Some(headers)
    }

    /// Reads the dynamic section.
    pub(crate) fn dynamic(&self, section: &[u8]) -> Option<Dynamic> {
        let (entries, _) = section.as_chunks::<16>();
        let entries: Vec<(u64, u64)> = (entries.iter())
            .filter_map(|entry| Some((number::<8>(entry, 0)?, number::<8>(entry, 8)?)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let first = |wanted| {
            entries
                .iter()
                .find(|(tag, _)| *tag == wanted)
                .map(|(_, value)| *value)
        };
        let strings = self.place(first(DT_STRTAB)?)?;
        let needed = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
        Some(Dynamic {
            needed: (needed.take(MAX_LIBRARIES))
                .filter_map(|(_, name)| strings.checked_add(*name))
                .collect(),
            paths: (first(DT_RUNPATH).or_else(|| first(DT_RPATH)))
                .and_then(|paths| strings.checked_add(paths)),
        })
    }

    /// Where in the file the byte is that is loaded at `address`.
    fn place(&self, address: u64) -> Option<u64> {
        self.loaded.iter().find_map(|(start, place)| {
            let within = address.checked_sub(*start)?;
            (within < place.end - place.start).then(|| place.start + within)
        })
    }
}

/// The little-endian number of `N` (at most 8) bytes at `offset`.
fn number<const N: usize>(bytes: &[u8], offset: usize) -> Option<u64> {
    let digits = bytes.get(offset..offset.checked_add(N)?)?;
    Some(
        digits
            .iter()
            .rev()
            .fold(0, |sum, digit| sum << 8 | u64::from(*digit)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(program: &[u8], place: u64) -> &[u8] {
        let rest = &program[usize::try_from(place).unwrap()..];
        rest.split(|byte| *byte == 0).next().unwrap()
    }

    fn part(program: &[u8], range: &Range<u64>) -> Vec<u8> {
        let end = usize::try_from(range.end).unwrap().min(program.len());
        program[usize::try_from(range.start).unwrap()..end].to_vec()
    }

    #[test]
    #[cfg(all(
        target_env = "gnu",
        target_endian = "little",
        target_pointer_width = "64"
    ))]
    fn this_program_needs_libc() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let headers = Headers::parse(&program[..4096]).unwrap();
        let interpreter = string(&program, headers.interpreter.clone().unwrap().start);
        assert!(interpreter.starts_with(b"/lib"), "{interpreter:?}");
        let section = part(&program, headers.dynamic.as_ref().unwrap());
        let dynamic = headers.dynamic(&section).unwrap();
        let names: Vec<_> = (dynamic.needed.iter())
            .map(|place| string(&program, *place))
            .collect();
        assert!(names.contains(&b"libc.so.6".as_slice()), "{names:?}");
    }

    #[test]
    fn damaged_programs_are_no_programs() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let head = &program[..program.len().min(4096)];
        for end in 0..head.len().min(1024) {
            let _nothing_or_less = Headers::parse(&head[..end]);
        }
        let mut damaged = head.to_vec();
        for position in 6..1024 {
            for value in [0, 1, 0x7f, 0xff] {
                let before = std::mem::replace(&mut damaged[position], value);
                if let Some(headers) = Headers::parse(&damaged) {
                    let _whatever = headers.dynamic(&damaged);
                    assert!(headers.loaded.len() <= MAX_HEADERS);
                }
                damaged[position] = before;
            }
        }
        assert_eq!(Headers::parse(b"#!/bin/sh\n"), None);
    }
}
