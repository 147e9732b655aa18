//! Turns JSON text into values and back.
//!
//! # Limits
//! Nesting beyond [`MAX_DEPTH`] is an error, so hostile text cannot exhaust the stack.

use super::text::text;
use crate::MAX_DEPTH;
use crate::value::{CallError, Object, Value, ValueError};

pub(super) fn from_json(args: &[Value]) -> Result<Value, CallError> {
    let input: String = text(args)?;
    let mut reader = Reader {
        rest: &input,
        depth: 0,
    };
    let value = reader.document();
    value.ok_or_else(|| {
        let at = input.len() - reader.rest.len();
        let message = format!("is not valid JSON at byte {at}");
        CallError::Argument(0, ValueError::new(message))
    })
}

pub(super) fn to_json(args: &[Value]) -> Result<Value, CallError> {
    let value: Value = text(args)?;
    if value.as_object().is_none() {
        return Err(CallError::Function(
            "jsonEncode only supports map".to_owned(),
        ));
    }
    let mut out = String::new();
    match write(&mut out, &value) {
        Ok(()) => Ok(Value::String(out)),
        Err(error) => Err(CallError::Argument(0, error)),
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: u32,
}

/// `None` is a syntax error at `rest`.
impl Reader<'_> {
    fn document(&mut self) -> Option<Value> {
        let value = self.value()?;
        self.blanks();
        self.rest.is_empty().then_some(value)
    }

    fn value(&mut self) -> Option<Value> {
        self.blanks();
        match self.rest.chars().next()? {
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            '"' => self.string().map(Value::String),
            't' => self.eat("true").then_some(Value::Bool(true)),
            'f' => self.eat("false").then_some(Value::Bool(false)),
            'n' => self.eat("null").then_some(Value::Null),
            _ => self.number(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Some(value)
    }

    fn object(&mut self) -> Option<Value> {
        let mut fields = Object::new();
        self.items('{', '}', |reader| {
            reader.blanks();
            let name = reader.string()?;
            reader.blanks();
            if !reader.eat(":") {
                return None;
            }
            fields.insert(name, reader.value()?);
            Some(())
        })?;
        Some(Value::from(fields))
    }

    fn array(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        self.items('[', ']', |reader| {
            items.push(reader.value()?);
            Some(())
        })?;
        Some(Value::from(items))
    }

    fn items(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        let close = close.to_string();
        self.rest = self.rest.strip_prefix(open)?;
        self.blanks();
        if self.eat(&close) {
            return Some(());
        }
        loop {
            item(self)?;
            self.blanks();
            if self.eat(&close) {
                return Some(());
            }
            if !self.eat(",") {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.strip_prefix('"')?.chars();
        let mut out = String::new();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => out.push(escape(&mut chars)?),
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(out)
    }

    fn number(&mut self) -> Option<Value> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        if !digits.starts_with(|c: char| c.is_ascii_digit()) || leading_zero || text.ends_with('.')
        {
            return None;
        }
        // Every JSON number is a float; whole ones print without a fraction.
        let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
        self.rest = rest;
        Some(Value::Float(number))
    }

    fn eat(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
}

fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(chars),
        c @ ('"' | '\\' | '/') => c,
        _ => return None,
    })
}

/// A lone half of a pair becomes the replacement character.
fn unicode(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let high = hex(chars)?;
    if !(0xD800..0xDC00).contains(&high) {
        return Some(char::from_u32(high).unwrap_or('\u{fffd}'));
    }
    let mut ahead = chars.clone();
    if ahead.next() == Some('\\')
        && ahead.next() == Some('u')
        && let Some(low) = hex(&mut ahead)
        && (0xDC00..0xE000).contains(&low)
    {
        *chars = ahead;
        return char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
    }
    Some('\u{fffd}')
}

fn hex(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut value = 0;
    for _ in 0..4 {
        value = value * 16 + chars.next()?.to_digit(16)?;
    }
    Some(value)
}

fn write(out: &mut String, value: &Value) -> Result<(), ValueError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(n) => out.push_str(&n.to_string()),
        Value::Uint(n) => out.push_str(&n.to_string()),
        Value::Float(n) if n.is_finite() => out.push_str(&n.to_string()),
        Value::Float(_) => return Err(ValueError::new("is not a finite number")),
        Value::String(text) => write_string(out, text),
        Value::OptionalSecret(secret) if !secret.is_secret() => write_string(out, secret.expose()),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, item).map_err(|error| error.in_element(index))?;
            }
            out.push(']');
        }
        other => match other.as_object() {
            Some(fields) => write_object(out, fields)?,
            None => {
                let message = format!("cannot be encoded as JSON, got {}", other.type_of());
                return Err(ValueError::new(message));
            }
        },
    }
    Ok(())
}

fn write_object(out: &mut String, fields: &Object) -> Result<(), ValueError> {
    out.push('{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write(out, value).map_err(|error| error.in_field(name))?;
    }
    out.push('}');
    Ok(())
}

/// `<`, `>` and `&` are escaped too, as the reference does to make the text safe inside HTML.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, CallError> {
        from_json(&[Value::from(text)])
    }

    #[test]
    fn json_is_read() {
        let text = r#" {"a": [1, -2.5e1, true, null, "xé😀\u00e9\ud83d\ude00\n"], "b": {}} "#;
        let want = r#"Object({"a": Array([Float(1.0), Float(-25.0), Bool(true), Null, "#.to_owned()
            + r#"String("xé😀é😀\n")]), "b": Object({})})"#;
        assert_eq!(format!("{:?}", read(text).unwrap()), want);
    }

    #[test]
    fn bad_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in [
            "", "{", "[1,]", "{\"a\"}", "01", "1.", "+1", "nul", "\"\\x\"", "1 2", "1e999", &deep,
        ] {
            assert!(read(text).is_err(), "{text:.10}");
        }
    }

    #[test]
    fn json_is_written_with_sorted_keys() {
        let value = read(r#"{"b": "<\"\u0001", "a": [1, 2.5, false]}"#).unwrap();
        let text = to_json(&[value]).unwrap();
        assert_eq!(format!("{text:?}"), {
            r#"String("{\"a\":[1,2.5,false],\"b\":\"\\u003c\\\"\\u0001\"}")"#
        });
        let hidden = Object::from([("s".to_owned(), crate::Secret::new("x").into())]);
        assert!(to_json(&[hidden.into()]).is_err());
    }
}
