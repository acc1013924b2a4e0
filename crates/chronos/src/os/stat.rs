//! What `/proc/PID/stat` says of a process.

/// The fields of it that are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// The number of its parent.
    pub parent: u32,
    /// When it was started, in ticks since the boot.
    pub start: u64,
    /// Whether it is over and only waited for.
    pub zombie: bool,
    /// Whether it stands still.
    pub stopped: bool,
}

impl Stat {
    /// Reads the fields after the command name, which may itself contain spaces and parentheses.
    ///
    /// Source: proc_pid_stat(5): field 3 state, 4 parent, 22 start time.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        let (zombie, stopped) = (matches!(state, "Z" | "X"), matches!(state, "T" | "t"));
        Some(Self { parent, start, zombie, stopped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_contain_anything() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        let sleeps = Stat { parent: 1, start: 4242, zombie: false, stopped: false };
        assert_eq!(Stat::parse(text), Some(sleeps));
        let stands = Stat { stopped: true, ..sleeps };
        assert_eq!(Stat::parse(&text.replace(") S", ") T")), Some(stands));
    }
}
