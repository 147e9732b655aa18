//! Turns a duration as Prometheus writes it (`1m30s`) into time.

use std::time::Duration;

/// The units in the only order they may come, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The time, or nothing where the text is none: Prometheus' `model.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut units, mut all_ms) = (text, UNITS.iter(), 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit());
        let (unit, behind) = behind.split_at(unit.unwrap_or(behind.len()));
        let (_, ms) = units.find(|(name, _)| *name == unit)?;
        all_ms = all_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(*ms)?)?;
        rest = behind;
    }
    Some(Duration::from_millis(all_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_once_and_in_order() {
        for (text, ms) in [
            ("0", 0),
            ("5s", 5000),
            ("1m30s", 90_000),
            ("1h1ms", 3_600_001),
            ("2d", 172_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1",
            "1s1m",
            "1s1s",
            "1.5s",
            "-1s",
            "99999999999y",
            "1x",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
