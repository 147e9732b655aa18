//! Turns the text of a literal into its value.

use crate::ast::{Literal, LiteralKind};
use crate::value::{Value, ValueError};

/// The value of a literal.
///
/// # Errors
/// A number too large for any kind.
pub(crate) fn literal_value(literal: &Literal) -> Result<Value, ValueError> {
    match literal.kind {
        LiteralKind::Null => Ok(Value::Null),
        LiteralKind::Bool => Ok(Value::Bool(literal.text == "true")),
        LiteralKind::Number => number(&literal.text),
        LiteralKind::Float => float(&literal.text),
        LiteralKind::String => Ok(Value::String(unquote(&literal.text))),
    }
}

/// The smallest kind that fits. A leading zero means octal; where the digits are not octal, the
/// number is read as a float, as the reference does.
fn number(text: &str) -> Result<Value, ValueError> {
    let radix = if text.len() > 1 && text.starts_with('0') {
        8
    } else {
        10
    };
    if let Ok(n) = i64::from_str_radix(text, radix) {
        return Ok(Value::Int(n));
    }
    if let Ok(n) = u64::from_str_radix(text, radix) {
        return Ok(Value::Uint(n));
    }
    float(text)
}

fn float(text: &str) -> Result<Value, ValueError> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(Value::Float(n)),
        _ => Err(ValueError::new("is out of range")),
    }
}

/// Removes quotes and decodes escapes; the scanner has checked them. Bytes that do not make up
/// valid UTF-8 (`"\xff"`) become the replacement character, because text here is UTF-8 throughout.
fn unquote(text: &str) -> String {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.strip_suffix('`').unwrap_or(raw).replace('\r', "");
    }
    let inner = text.strip_prefix('"').unwrap_or(text);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            escape(&mut chars, &mut bytes);
        } else {
            push(&mut bytes, c);
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(invalid) => String::from_utf8_lossy(invalid.as_bytes()).into_owned(),
    }
}

fn escape(chars: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) {
    let Some(c) = chars.next() else { return };
    match c {
        'a' => bytes.push(0x07),
        'b' => bytes.push(0x08),
        'f' => bytes.push(0x0c),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(0x0b),
        '0'..='7' => {
            let value = digits(chars, 2, 8, c.to_digit(8).unwrap_or(0));
            bytes.extend(u8::try_from(value));
        }
        'x' => bytes.extend(u8::try_from(digits(chars, 2, 16, 0))),
        'u' => push(
            bytes,
            char::from_u32(digits(chars, 4, 16, 0)).unwrap_or('\u{fffd}'),
        ),
        'U' => push(
            bytes,
            char::from_u32(digits(chars, 8, 16, 0)).unwrap_or('\u{fffd}'),
        ),
        other => push(bytes, other),
    }
}

fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32, first: u32) -> u32 {
    chars.take(count).fold(first, |n, c| {
        n.wrapping_mul(radix)
            .wrapping_add(c.to_digit(radix).unwrap_or(0))
    })
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_unquoted() {
        let table = [
            (r#""a\tb\"\\""#, "a\tb\"\\"),
            (r#""\x41\101""#, "AA"),
            (r#""\u00e9\U0001F600""#, "é😀"),
            (r#""\xc3\xa9""#, "é"),
            (r#""\xff""#, "\u{fffd}"),
            ("`a\\n\r\nb`", "a\\n\nb"),
            ("\"\"", ""),
        ];
        for (text, want) in table {
            assert_eq!(unquote(text), want, "{text}");
        }
    }

    #[test]
    fn numbers_take_the_smallest_kind() {
        let table = [
            ("010", "Int(8)"),
            ("08", "Float(8.0)"),
            ("0", "Int(0)"),
            ("9223372036854775807", "Int(9223372036854775807)"),
            ("9223372036854775808", "Uint(9223372036854775808)"),
            ("18446744073709551616", "Float(1.8446744073709552e19)"),
        ];
        for (text, want) in table {
            assert_eq!(format!("{:?}", number(text).unwrap()), want, "{text}");
        }
        for (text, want) in [("1.", 1.0), ("1e3", 1000.0), (".5", 0.5), ("1.e2", 100.0)] {
            assert!(
                matches!(float(text), Ok(Value::Float(n)) if n == want),
                "{text}"
            );
        }
        assert!(number(&"9".repeat(400)).is_err() && float("1e999").is_err());
    }
}
