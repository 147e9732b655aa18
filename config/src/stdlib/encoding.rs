//! The `encoding` namespace except JSON: base64 and query escaping.
//!
//! Decoded base64 must be text here, as values have no bytes; other content is an error.

use super::text::text;
use crate::value::{CallError, Value, ValueError};

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(super) fn to_base64(args: &[Value]) -> Result<Value, CallError> {
    Ok(Value::String(encode(
        text::<String>(args)?.as_bytes(),
        STANDARD,
    )))
}

pub(super) fn to_base64_url(args: &[Value]) -> Result<Value, CallError> {
    Ok(Value::String(encode(
        text::<String>(args)?.as_bytes(),
        URL_SAFE,
    )))
}

pub(super) fn from_base64(args: &[Value]) -> Result<Value, CallError> {
    from_alphabet(args, STANDARD)
}

pub(super) fn from_base64_url(args: &[Value]) -> Result<Value, CallError> {
    from_alphabet(args, URL_SAFE)
}

fn from_alphabet(args: &[Value], alphabet: &[u8; 64]) -> Result<Value, CallError> {
    let input: String = text(args)?;
    let bytes = decode(&input, alphabet).ok_or_else(|| refuse("is not valid base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("does not decode to text"))?;
    Ok(Value::String(text))
}

fn refuse(message: &str) -> CallError {
    CallError::Argument(0, ValueError::new(message))
}

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from(group >> shift & 63).unwrap_or(0);
            out.push(if index <= chunk.len() {
                char::from(alphabet[digit])
            } else {
                '='
            });
        }
    }
    out
}

/// Nothing for characters outside the alphabet, wrong padding, or stray bits. Line breaks are
/// skipped, as encoded text is often wrapped.
fn decode(text: &str, alphabet: &[u8; 64]) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = text
        .bytes()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let groups = bytes.len() / 4;
    for (number, group) in bytes.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|&&b| b == b'=').count();
        if padding > 2 || (padding > 0 && number + 1 < groups) {
            return None;
        }
        let mut value: u32 = 0;
        for &b in group.iter().take(4 - padding) {
            let digit = alphabet.iter().position(|&a| a == b)?;
            value = value << 6 | u32::try_from(digit).ok()?;
        }
        value <<= 6 * padding;
        let byte = |shift: u32| u8::try_from(value >> shift & 0xff).unwrap_or(0);
        out.extend([byte(16), byte(8), byte(0)].into_iter().take(3 - padding));
    }
    Some(out)
}

/// Query escaping: a space becomes `+`, what is neither letter, digit nor `-_.~` a percent sequence.
pub(super) fn url_encode(args: &[Value]) -> Result<Value, CallError> {
    let input: String = text(args)?;
    let mut out = String::with_capacity(input.len());
    for byte in input.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(Value::String(out))
}

pub(super) fn url_decode(args: &[Value]) -> Result<Value, CallError> {
    let input: String = text(args)?;
    let mut out = Vec::with_capacity(input.len());
    let mut bytes = input.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let pair = digit(bytes.next()).zip(digit(bytes.next()));
                let value = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                out.push(value.ok_or_else(|| refuse("has an invalid URL escape"))?);
            }
            _ => out.push(byte),
        }
    }
    let text = String::from_utf8(out).map_err(|_| refuse("does not decode to text"))?;
    Ok(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_round_trips() {
        let table = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in table {
            assert_eq!(encode(plain.as_bytes(), STANDARD), encoded);
            assert_eq!(decode(encoded, STANDARD), Some(plain.as_bytes().to_vec()));
        }
        assert_eq!(encode(&[0xfb, 0xff], URL_SAFE), "-_8=");
        for bad in ["Zg", "Zg=", "Z===", "Zg==Zg==", "Zm9*"] {
            assert_eq!(decode(bad, STANDARD), None, "{bad}");
        }
    }

    #[test]
    fn query_escaping_round_trips() {
        let run = |f: fn(&[Value]) -> Result<Value, CallError>, s: &str| match f(&[Value::from(s)])
        {
            Ok(Value::String(text)) => text,
            other => format!("{other:?}"),
        };
        assert_eq!(
            run(url_encode, "p@ss/w:ord! é~"),
            "p%40ss%2Fw%3Aord%21+%C3%A9~"
        );
        assert_eq!(run(url_decode, "p%40ss%2fw+%C3%A9"), "p@ss/w é");
        assert!(url_decode(&[Value::from("%4")]).is_err());
        assert!(url_decode(&[Value::from("%ff")]).is_err());
    }
}
