//! Turns `1h30m` and `10MiB` into numbers, and numbers into such text.
//!
//! Days and longer are not units: their length depends on the calendar.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration that may be negative, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedDuration(i64);

impl SignedDuration {
    /// From nanoseconds.
    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// In nanoseconds.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// As an ordinary duration, unless negative.
    pub fn unsigned(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for SignedDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = parse(text, duration_unit).map_err(|fault| match fault {
            Fault::Invalid => format!("time: invalid duration {text:?}"),
            Fault::NoUnit => format!("time: missing unit in duration {text:?}"),
            Fault::Unknown(unit) => format!("time: unknown unit {unit:?} in duration {text:?}"),
        })?;
        match i64::try_from(nanos) {
            Ok(nanos) => Ok(Self(nanos)),
            Err(_) => Err(format!("time: invalid duration {text:?}")),
        }
    }
}

/// Hours, minutes and seconds from the first that is not zero on (`1h0m0s`); below a second one unit with a
/// fraction. What is printed can be read back.
impl fmt::Display for SignedDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", fraction(nanos, 3)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(nanos, 6)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", fraction(nanos % 60_000_000_000, 9))
            }
        }
    }
}

/// A number shifted by so many decimal places, without zeros at the end.
fn fraction(n: u64, places: u32) -> String {
    let scale = 10_u64.pow(places);
    let rest = format!("{:0width$}", n % scale, width = places as usize);
    let rest = rest.trim_end_matches('0');
    let point = if rest.is_empty() { "" } else { "." };
    format!("{}{point}{rest}", n / scale)
}

fn duration_unit(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter look alike and are both in use.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A number of bytes, written with a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = parse(text, size_unit).map_err(|fault| match fault {
            Fault::Invalid => format!("units: invalid {text}"),
            Fault::NoUnit => format!("units: unknown unit  in {text}"),
            Fault::Unknown(unit) => format!("units: unknown unit {unit} in {text}"),
        })?;
        u64::try_from(bytes)
            .map(Self)
            .map_err(|_| format!("units: invalid {text}"))
    }
}

/// In the largest units that leave no fraction: `1GiB512MiB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let units = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB", "B"];
        for (unit, shift) in units.iter().zip([60, 50, 40, 30, 20, 10, 0]) {
            let count = (self.0 >> shift) & if shift == 60 { 0xf } else { 0x3ff };
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

fn size_unit(unit: &str) -> Option<i128> {
    let prefix = match unit {
        "B" => return Some(1),
        _ => unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B'))?,
    };
    let exponent = match prefix {
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    Some(1_i128 << (10 * exponent))
}

enum Fault {
    Invalid,
    NoUnit,
    Unknown(String),
}

/// Sums `[sign] { number unit }`. Whole parts are exact; a fraction is cut off below one base unit.
fn parse(text: &str, unit_of: fn(&str) -> Option<i128>) -> Result<i128, Fault> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Fault::Invalid);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split(rest, |c| c.is_ascii_digit());
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after, |c| c.is_ascii_digit()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(Fault::Invalid);
        }
        let (name, after) = split(after, |c| c != '.' && !c.is_ascii_digit());
        if name.is_empty() {
            return Err(Fault::NoUnit);
        }
        let unit = unit_of(name).ok_or_else(|| Fault::Unknown(name.to_owned()))?;
        let part = amount(whole, fraction, unit).ok_or(Fault::Invalid)?;
        total = total.checked_add(part).ok_or(Fault::Invalid)?;
        rest = after;
    }
    Ok(sign * total)
}

fn amount(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    // More digits than the widest unit has are below one base unit.
    let fraction: String = fraction.chars().take(18).collect();
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        i128::from(whole.parse::<u64>().ok()?)
    };
    let fraction: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    whole
        .checked_mul(unit)?
        .checked_add(fraction.checked_mul(unit)? / scale)
}

fn split(text: &str, keep: fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !keep(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_combine_units_and_fractions() {
        let table = [
            ("1h30m", 5_400_000_000_000),
            ("-5s", -5_000_000_000),
            ("+1.5us", 1_500),
            ("1µs1μs", 2_000),
            (".5ms", 500_000),
            ("1.s", 1_000_000_000),
            ("0", 0),
            ("0s", 0),
            ("2540400h10m10.000000000s", 9_145_440_610_000_000_000),
        ];
        for (text, want) in table {
            assert_eq!(text.parse(), Ok(SignedDuration(want)), "{text}");
        }
    }

    #[test]
    fn duration_without_unit_is_refused() {
        let table = [
            ("5", "time: missing unit in duration \"5\""),
            ("1h5", "time: missing unit in duration \"1h5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1w", "time: unknown unit \"w\" in duration \"1w\""),
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("s", "time: invalid duration \"s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ];
        for (text, want) in table {
            assert_eq!(
                text.parse::<SignedDuration>(),
                Err(want.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_need_a_binary_unit() {
        for (text, want) in [("10MiB", 10 << 20), ("10MB", 10 << 20), ("7B", 7), ("0", 0)] {
            assert_eq!(text.parse(), Ok(ByteSize(want)), "{text}");
        }
        assert_eq!("1.5KiB".parse(), Ok(ByteSize(1536)));
        for text in ["5", "5kB", "5K", "-1KiB", "", "99999EiB"] {
            let message = text.parse::<ByteSize>().unwrap_err();
            assert!(message.starts_with("units: "), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let table = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_061_500_000_000, "-25h1m1.5s"),
            (i64::MIN + 1, "-2562047h47m16.854775807s"),
        ];
        for (nanos, want) in table {
            assert_eq!(SignedDuration(nanos).to_string(), want);
            assert_eq!(want.parse(), Ok(SignedDuration(nanos)), "{want}");
        }
        let table = [
            (0, "0B"),
            (7, "7B"),
            (1536, "1KiB512B"),
            (50 << 30, "50GiB"),
            ((1 << 60) + (1023 << 50), "1EiB1023PiB"),
        ];
        for (bytes, want) in table {
            assert_eq!(ByteSize(bytes).to_string(), want);
            assert_eq!(want.parse(), Ok(ByteSize(bytes)), "{want}");
        }
        assert_eq!(
            ByteSize(u64::MAX).to_string().parse(),
            Ok(ByteSize(u64::MAX))
        );
    }
}
