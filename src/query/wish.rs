//! What a caller asks of an answer about a user.
//!
//! | parameter | value | default |
//! |---|---|---|
//! | `consistency` | `owner`: the partition's owner answers, or nobody does; `any`: a standby may | `owner` |
//! | `min_position` | `partition:offset`, with commas between several: the answer includes every input record of the partition before that offset | none |
//! | `timeout` | `250ms` or `2s`, 30 s at most: for the position to be reached and others to answer | `5s` |
//!
//! The offset of `min_position` is a next offset, as `position.input_offset` of an answer has it: to read what the record at offset
//! 41 did, ask for 42. Entries of other partitions than the user's are passed over, so that a client may send all positions it
//! has seen without knowing which partition a user is in.

use std::time::Duration;

/// The longest `timeout`.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Entries of one `min_position`: more than an application has partitions is a mistake.
const POSITIONS_MAX: usize = 10_000;

/// Who may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The partition's owner only.
    #[default]
    Owner,
    /// Whoever has a copy, where the owner gives no answer.
    Any,
}

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Who may answer.
    pub consistency: Consistency,
    /// How long it may take.
    pub timeout: Duration,
    min_positions: Vec<(u32, u64)>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { consistency: Consistency::Owner, timeout: TIMEOUT_DEFAULT, min_positions: Vec::new() }
    }
}

/// A parameter that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub parameter: &'static str,
    /// What was expected.
    pub expected: &'static str,
}

impl Wish {
    /// The parameters that make a wish.
    pub const PARAMETERS: [&'static str; 3] = ["consistency", "min_position", "timeout"];

    /// Takes up one parameter; others than [`Self::PARAMETERS`] are passed over.
    ///
    /// # Errors
    /// A value that is none.
    pub fn set(&mut self, parameter: &str, value: &str) -> Result<(), Unreadable> {
        match parameter {
            "consistency" => {
                self.consistency = match value {
                    "owner" => Consistency::Owner,
                    "any" => Consistency::Any,
                    _ => return Err(Unreadable { parameter: "consistency", expected: "owner or any" }),
                }
            }
            "min_position" => {
                self.min_positions = positions(value).ok_or(Unreadable {
                    parameter: "min_position",
                    expected: "partition:offset, with commas between several, such as 3:1206",
                })?;
            }
            "timeout" => {
                self.timeout =
                    duration(value).ok_or(Unreadable { parameter: "timeout", expected: "1ms to 30s, such as 250ms or 2s" })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The next input offset that an answer from this partition must have reached; 0 where any will do.
    #[must_use]
    pub fn min_of(&self, partition: u32) -> u64 {
        let of_partition = self.min_positions.iter().filter(|(of, _)| *of == partition);
        of_partition.map(|(_, offset)| *offset).max().unwrap_or(0)
    }

    /// The query string for another instance, which has `left` to answer.
    #[must_use]
    pub fn onward(&self, consistency: Consistency, partition: u32, left: Duration) -> String {
        let consistency = if consistency == Consistency::Owner { "owner" } else { "any" };
        let min = self.min_of(partition);
        let min = if min > 0 { format!("&min_position={partition}:{min}") } else { String::new() };
        format!("consistency={consistency}&timeout={}ms{min}", left.as_millis().max(1))
    }
}

/// Digits and nothing else: `parse` alone would take a plus sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn positions(value: &str) -> Option<Vec<(u32, u64)>> {
    let entry = |entry: &str| entry.split_once(':').and_then(|(of, offset)| Some((number(of)?, number(offset)?)));
    let positions: Option<Vec<_>> = value.split(',').take(POSITIONS_MAX + 1).map(entry).collect();
    positions.filter(|positions| positions.len() <= POSITIONS_MAX)
}

fn duration(value: &str) -> Option<Duration> {
    let milliseconds = match value.strip_suffix("ms") {
        Some(number_of) => number::<u64>(number_of)?,
        None => number::<u64>(value.strip_suffix('s')?)?.checked_mul(1000)?,
    };
    let duration = Duration::from_millis(milliseconds);
    (Duration::from_millis(1)..=TIMEOUT_MAX).contains(&duration).then_some(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parameter: &str, value: &str) -> Result<Wish, Unreadable> {
        let mut wish = Wish::default();
        wish.set(parameter, value).map(|()| wish)
    }

    #[test]
    fn parameters_are_read_strictly() {
        assert_eq!(read("consistency", "any").map(|wish| wish.consistency), Ok(Consistency::Any));
        assert_eq!(read("timeout", "250ms").map(|wish| wish.timeout), Ok(Duration::from_millis(250)));
        assert_eq!(read("timeout", "30s").map(|wish| wish.timeout), Ok(TIMEOUT_MAX));
        for (parameter, value) in [
            ("consistency", ""),
            ("consistency", "Any"),
            ("timeout", "5"),
            ("timeout", "0s"),
            ("timeout", "31s"),
            ("timeout", "+5s"),
            ("timeout", "-1s"),
            ("timeout", "99999999999999999999s"),
            ("min_position", ""),
            ("min_position", "3"),
            ("min_position", "3:"),
            ("min_position", ":3"),
            ("min_position", "3:4,"),
            ("min_position", "3:+4"),
            ("min_position", "4294967296:1"),
        ] {
            let refused = read(parameter, value).expect_err(value);
            assert_eq!(refused.parameter, parameter);
        }
    }

    #[test]
    fn only_the_partitions_own_position_counts() {
        let wish = read("min_position", "3:41,5:7,3:40").expect("positions");
        assert_eq!([3, 5, 6].map(|partition| wish.min_of(partition)), [41, 7, 0]);
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_read_back(partition in any::<u32>(), offset in any::<u64>(), ms in 1..30_000_u64, any in any::<bool>()) {
            let asked = read("min_position", &format!("{partition}:{offset}")).expect("a position");
            let consistency = if any { Consistency::Any } else { Consistency::Owner };
            let mut got = Wish::default();
            for pair in asked.onward(consistency, partition, Duration::from_millis(ms)).split('&') {
                let (name, value) = pair.split_once('=').expect("a pair");
                got.set(name, value).expect("readable");
            }
            prop_assert_eq!((got.consistency, got.timeout), (consistency, Duration::from_millis(ms)));
            prop_assert_eq!(got.min_of(partition), offset);
        }

        #[test]
        fn any_text_is_read_or_refused(value in "\\PC{0,30}") {
            for parameter in Wish::PARAMETERS {
                let _ = Wish::default().set(parameter, &value);
            }
        }
    }
}
