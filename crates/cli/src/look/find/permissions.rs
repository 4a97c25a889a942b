//! `-perm`: modes as numbers, or as chmod(1) writes them.

use anyhow::Context;

/// Which permissions are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permissions {
    /// These and no others.
    Just(u16),
    /// All of these.
    All(u16),
    /// Any of these; of none, everything.
    Any(u16),
}

impl Permissions {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (make, mode): (fn(u16) -> Self, _) = if let Some(mode) = text.strip_prefix('-') {
            (Self::All, mode)
        } else if let Some(mode) = text.strip_prefix('/') {
            (Self::Any, mode)
        } else {
            (Self::Just, text)
        };
        let is_number = !mode.is_empty() && mode.bytes().all(|byte| byte.is_ascii_digit());
        let bits = if is_number {
            u16::from_str_radix(mode, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
        } else {
            symbolic(mode)
        };
        let bits = bits
            .with_context(|| format!("-perm {text}: write a mode such as 644, -4000 or /u=s,g=s"));
        Ok(make(bits?))
    }

    pub(super) fn allow(self, mode: u16) -> bool {
        match self {
            Self::Just(bits) => mode == bits,
            Self::All(bits) => mode & bits == bits,
            Self::Any(bits) => bits == 0 || mode & bits != 0,
        }
    }
}

/// A mode such as `u=rwx,go=rx`, from nothing on.
fn symbolic(text: &str) -> Option<u16> {
    let mut mode = 0;
    for clause in text.split(',') {
        let position = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(position);
        let mut mask = 0;
        for letter in who.chars() {
            mask |= match letter {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        if who.is_empty() {
            mask = 0o7777;
        }
        let mut letters = rest.chars();
        let operator = letters.next()?;
        let mut bits = 0;
        for letter in letters {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                _ => return None,
            };
        }
        // The sticky bit is nobody's alone.
        let bits = bits & (mask | 0o1000);
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !mask | bits,
        };
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbers_or_letters() {
        #[track_caller]
        fn check(text: &str, expected: Permissions) {
            assert_eq!(Permissions::parse(text).unwrap(), expected, "{text}");
        }
        check("644", Permissions::Just(0o644));
        check("-4000", Permissions::All(0o4000));
        check("/6000", Permissions::Any(0o6000));
        check("u=rwx,go=rx", Permissions::Just(0o755));
        check("-u+s", Permissions::All(0o4000));
        check("/u=s,g=s", Permissions::Any(0o6000));
        check("a=rwx,o-w", Permissions::Just(0o775));
        check("+t", Permissions::Just(0o1000));
        for bad in ["", "-", "8", "77777", "x", "u=z", "k=r", "u=r,"] {
            assert!(Permissions::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn permissions_are_compared_as_asked_for() {
        assert!(Permissions::Just(0o644).allow(0o644) && !Permissions::Just(0o644).allow(0o4644));
        assert!(Permissions::All(0o22).allow(0o666) && !Permissions::All(0o22).allow(0o620));
        assert!(Permissions::Any(0o22).allow(0o620) && !Permissions::Any(0o22).allow(0o600));
        assert!(Permissions::Any(0).allow(0) && Permissions::All(0).allow(0o7));
    }
}
