//! W3C trace context: what a payment's record says of the trace it belongs to goes on to its verdict and anomaly.
//!
//! Headers `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>), passed on as they came, so a replay gives the same
//! bytes. One that is not well formed is not passed on, and takes the state with it, as the specification asks. A dead letter keeps all
//! headers anyway. Costs nothing where a record has no headers.

use topology::record::{Header, Record};

/// Names the trace and the span within it.
const PARENT: &str = "traceparent";
/// What tracing systems add to it.
const STATE: &str = "tracestate";
/// The longest state that is passed on, as the specification demands at least.
const STATE_MAX: usize = 512;

/// Puts the headers that go on into `headers`, in place of what is there.
pub(super) fn carried<'r>(record: &Record<'r>, headers: &mut Vec<Header<'r>>) {
    headers.clear();
    let Some(parent) = record.header(PARENT).filter(|header| header.value.is_some_and(is_parent)) else { return };
    headers.push(parent);
    headers.extend(record.header(STATE).filter(|header| header.value.is_some_and(is_state)));
}

/// `version-trace-span-flags` in lower-case hexadecimal; later versions may have more behind it.
fn is_parent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    let (Some(known), rest) = (value.get(..55), value.get(55..).unwrap_or_default()) else { return false };
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    [known[2], known[35], known[52]] == [b'-'; 3]
        && [version, trace, span, flags].into_iter().all(hex)
        && version != b"ff"
        && (rest.is_empty() || (version != b"00" && rest[0] == b'-' && rest.len() <= STATE_MAX))
        && some(trace)
        && some(span)
}

fn is_state(value: &[u8]) -> bool {
    (1..=STATE_MAX).contains(&value.len()) && value.iter().all(|byte| (b' '..=b'~').contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT_00: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_is_well_formed_goes_on() {
        assert!(is_parent(PARENT_00));
        assert!(is_parent(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"));
        for wrong in [
            &b""[..],
            b"00",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            b"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_parent(wrong), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(is_state(b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"));
        assert!(!is_state(b"") && !is_state(b"a=\n") && !is_state(&[b'a'; STATE_MAX + 1]));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..56) {
            let _ = (is_parent(&value), is_state(&value));
            prop_assert_eq!(is_parent(&PARENT_00[..cut.min(55)]), cut >= 55);
        }
    }
}
