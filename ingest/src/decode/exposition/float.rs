//! Turns number tokens into floats and floats into the text of `le` and `quantile` values.
//!
//! What is accepted is what Prometheus accepts: decimals with or without point and exponent, and
//! `Inf`, `Infinity` (signed or not) and `NaN` (unsigned) in any case. Hexadecimal numbers,
//! underscores and decimals beyond the range of a double are refused.
//!
//! # Invariants
//! - The short path is exact: a mantissa below 2^53 and a power of ten up to 10^22 are both
//!   doubles, so their one product or quotient is rounded once, as the definition asks.

use std::io::Write as _;

/// The bits every NaN gets, which are those Prometheus stores; the stale marker has others.
pub const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

const MANTISSA_MAX: u64 = 1 << 53;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Digits that always fit into a `u64`.
const DIGITS_MAX: usize = 19;

/// Exponents beyond this are as good as infinite, and do not overflow when digits are added.
const EXPONENT_MAX: i64 = 100_000;

/// The number that the whole token is.
#[must_use]
#[inline]
pub fn parse(token: &[u8]) -> Option<f64> {
    let (is_negative, unsigned) = match token {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let Some(decimal) = Decimal::scan(unsigned) else {
        return named(is_negative, unsigned, token);
    };
    let magnitude = match decimal.exact() {
        Some(exact) => exact,
        None => fast_float2::parse(unsigned)
            .ok()
            .filter(|float: &f64| float.is_finite())?,
    };
    Some(if is_negative { -magnitude } else { magnitude })
}

/// `Inf`, `Infinity` and `NaN`.
#[cold]
fn named(is_negative: bool, unsigned: &[u8], token: &[u8]) -> Option<f64> {
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        let infinite = f64::INFINITY;
        return Some(if is_negative { -infinite } else { infinite });
    }
    let is_nan = token.eq_ignore_ascii_case(b"nan");
    is_nan.then(|| f64::from_bits(NAN_BITS))
}

/// The parts of a decimal without its sign.
struct Decimal {
    /// The significant digits; wrapped around where there are too many.
    mantissa: u64,
    /// How many significant digits there are.
    digits: usize,
    exponent: i64,
}

impl Decimal {
    /// None if the token is no decimal.
    #[inline]
    fn scan(token: &[u8]) -> Option<Self> {
        let mut mantissa = 0u64;
        let mut digits = 0;
        let mut seen = 0usize;
        let mut fraction = None;
        let mut rest = token;
        while let [byte, after @ ..] = rest {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                seen += 1;
                digits += usize::from(digits > 0 || digit > 0);
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            } else if *byte == b'.' && fraction.is_none() {
                fraction = Some(seen);
            } else {
                break;
            }
            rest = after;
        }
        if seen == 0 {
            return None;
        }
        let places = fraction.map_or(0, |before| seen - before);
        let exponent = Self::exponent(rest)? - i64::try_from(places).unwrap_or(EXPONENT_MAX);
        Some(Self {
            mantissa,
            digits,
            exponent,
        })
    }

    /// The exponent that the rest of a token is; 0 for no rest.
    #[inline]
    fn exponent(rest: &[u8]) -> Option<i64> {
        let [b'e' | b'E', after @ ..] = rest else {
            return rest.is_empty().then_some(0);
        };
        let (is_negative, digits) = match after {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() {
            return None;
        }
        let mut exponent = 0i64;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit >= 10 {
                return None;
            }
            exponent = (exponent * 10 + i64::from(digit)).min(EXPONENT_MAX);
        }
        Some(if is_negative { -exponent } else { exponent })
    }

    #[inline]
    fn exact(&self) -> Option<f64> {
        if self.digits > DIGITS_MAX || self.mantissa >= MANTISSA_MAX {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let mantissa = self.mantissa as f64;
        let power = *POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        Some(if self.exponent < 0 {
            mantissa / power
        } else {
            mantissa * power
        })
    }
}

/// What becomes of the text of a bound.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// It is as it should be.
    Canonical,
    /// It wants `.0` behind it.
    Whole,
    /// It is to be read and written again.
    Other,
}

/// Judges the text of a bound by its form, so that most need no number to be made.
///
/// Up to 15 significant digits name a double that no shorter text names, so a text of the right
/// form is the one that writing would give.
pub(super) fn bound(text: &[u8]) -> Bound {
    if text == b"+Inf" {
        return Bound::Canonical;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (Some(integer), Some(rest)) = (digits.get(..whole), digits.get(whole..)) else {
        return Bound::Other;
    };
    let is_integer_right = match integer {
        [b'0'] => true,
        [b'0', ..] | [] => false,
        _ => whole <= 6,
    };
    let is_zero = integer == b"0";
    if !is_integer_right {
        return Bound::Other;
    }
    match rest {
        [] if !(is_zero && text.len() > 1) => Bound::Whole,
        [b'.', b'0'] if !(is_zero && text.len() > 3) => Bound::Canonical,
        [b'.', fraction @ .., last] if last.is_ascii_digit() && *last != b'0' => {
            let is_small = is_zero && fraction.starts_with(b"0000");
            let is_right = fraction.len() + 1 + whole <= 15
                && !is_small
                && fraction.iter().all(u8::is_ascii_digit);
            if is_right {
                Bound::Canonical
            } else {
                Bound::Other
            }
        }
        _ => Bound::Other,
    }
}

/// Writes a float as `le` and `quantile` values are written: the shortest text that reads as the
/// same float, exponents from 10^6 on and below 10^-4, and never without a point or an exponent.
pub(super) fn append(out: &mut Vec<u8>, float: f64) {
    if float.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if float.is_infinite() {
        return out.extend_from_slice(if float > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    if float == 0.0 {
        return out.extend_from_slice(b"0.0");
    }
    if float < 0.0 {
        out.push(b'-');
    }
    let begin = out.len();
    let exponent = append_digits(out, float);
    let Some(digits) = out.len().checked_sub(begin) else {
        return;
    };
    if !(-4..6).contains(&exponent) {
        if digits > 1 {
            out.insert(begin + 1, b'.');
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        // A write to a vector does not fail.
        return write!(out, "e{sign}{:02}", exponent.unsigned_abs()).unwrap_or_default();
    }
    let Ok(point) = usize::try_from(exponent + 1) else {
        let zeros = usize::try_from(-exponent).unwrap_or(0);
        let lead = b"0.0000".get(..=zeros).unwrap_or_default();
        out.splice(begin..begin, lead.iter().copied());
        return;
    };
    if point == 0 {
        out.splice(begin..begin, *b"0.");
    } else if digits > point {
        out.insert(begin + point, b'.');
    } else {
        out.resize(begin + point, b'0');
        out.extend_from_slice(b".0");
    }
}

/// Writes the shortest digits without sign and point; gives the power of ten of the first digit.
fn append_digits(out: &mut Vec<u8>, float: f64) -> i32 {
    let begin = out.len();
    // "d.ddde-7": the standard library writes the shortest digits.
    write!(out, "{:e}", float.abs()).unwrap_or_default();
    let text = out.get(begin..).unwrap_or_default();
    let mark = text.iter().position(|byte| *byte == b'e').unwrap_or(0);
    let exponent = text.get(mark + 1..).unwrap_or_default();
    let exponent = std::str::from_utf8(exponent).ok();
    let exponent = exponent.and_then(|text| text.parse().ok()).unwrap_or(0);
    out.truncate(begin + mark);
    if mark > 1 {
        out.remove(begin + 1);
    }
    exponent
}
