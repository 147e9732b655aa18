//! Fills the verbs of a format text with values, as C's printf does.
//!
//! # Failure
//! Never an error: a verb that does not fit prints what is wrong in its place, as `%!d(string=x)`.

use super::argument;
use crate::numbers::float_text;
use crate::print::quote;
use crate::value::{CallError, Value};

/// Widest field; beyond it the width is ignored, so that a format cannot ask for all memory.
const WIDTH_MAX: usize = 1000;

pub(super) fn format(args: &[Value]) -> Result<Value, CallError> {
    if args.is_empty() {
        return Err(CallError::Function(
            "expected at least 1 args, got 0".to_owned(),
        ));
    }
    let text: String = argument(args, 0)?;
    let mut values = args.iter().skip(1);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = Spec::read(&mut chars);
        match spec.verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => out.push_str(&spec.apply(verb, value)),
            },
        }
    }
    let extra: Vec<String> = values
        .map(|v| format!("{}={}", kind(v), plain(v)))
        .collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(Value::String(out))
}

#[derive(Default)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    verb: Option<char>,
}

impl Spec {
    fn read(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Self {
        let mut spec = Self::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '+' | '-' | '#' | ' ' | '0')) {
            match flag {
                '+' => spec.plus = true,
                '-' => spec.minus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                _ => spec.zero = true,
            }
        }
        spec.width = digits(chars).unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(chars).unwrap_or(0));
        }
        spec.verb = chars.next();
        spec
    }

    fn apply(&self, verb: char, value: &Value) -> String {
        let text = match (verb, value) {
            ('v', Value::String(text)) if self.sharp => Some(quote(text)),
            ('v', Value::Float(_)) => self.float('g', value),
            ('v', Value::Int(_) | Value::Uint(_)) => self.whole('d', value),
            ('v', _) => Some(plain(value)),
            ('t', Value::Bool(_)) => Some(plain(value)),
            ('s', Value::String(text)) => Some(self.cut(text)),
            ('q', Value::String(text)) => Some(quote(&self.cut(text))),
            ('x', Value::String(text)) => Some(text.bytes().map(|b| format!("{b:02x}")).collect()),
            ('X', Value::String(text)) => Some(text.bytes().map(|b| format!("{b:02X}")).collect()),
            (_, Value::Int(_) | Value::Uint(_)) => self.whole(verb, value),
            (_, Value::Float(_)) => self.float(verb, value),
            ('s', Value::Array(_) | Value::Object(_) | Value::Capsule(_)) => Some(plain(value)),
            ('s' | 'q', Value::Secret(_) | Value::OptionalSecret(_)) => Some(plain(value)),
            _ => None,
        };
        match text {
            Some(text) => self.pad(text, matches!(value, Value::String(_))),
            None => format!("%!{verb}({}={})", kind(value), plain(value)),
        }
    }

    fn cut(&self, text: &str) -> String {
        match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        }
    }

    fn whole(&self, verb: char, value: &Value) -> Option<String> {
        let (negative, size) = match value {
            Value::Int(n) => (*n < 0, n.unsigned_abs()),
            Value::Uint(n) => (false, *n),
            _ => return None,
        };
        let (prefix, digits) = match verb {
            'd' => ("", size.to_string()),
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            'o' => ("0", format!("{size:o}")),
            'b' => ("0b", format!("{size:b}")),
            'c' | 'q' | 'U' => return self.code_point(verb, negative, size),
            _ => return None,
        };
        let prefix = if self.sharp { prefix } else { "" };
        let least = self.precision.unwrap_or(0);
        Some(format!("{}{prefix}{digits:0>least$}", self.sign(negative)))
    }

    fn code_point(&self, verb: char, negative: bool, size: u64) -> Option<String> {
        let code = u32::try_from(size).ok().filter(|_| !negative);
        let c = code.and_then(char::from_u32).unwrap_or('\u{fffd}');
        match verb {
            'c' => Some(c.to_string()),
            'q' => Some(format!("'{c}'")),
            _ if negative => None,
            _ => Some(format!("U+{size:04X}")),
        }
    }

    fn float(&self, verb: char, value: &Value) -> Option<String> {
        let Value::Float(n) = value else { return None };
        let size = n.abs();
        let text = match verb {
            _ if !n.is_finite() => float_text(size).trim_start_matches('+').to_owned(),
            'f' | 'F' => format!("{size:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => exponent(&format!("{size:.*e}", self.precision.unwrap_or(6)), verb),
            'g' | 'G' => general(size, self.precision, verb),
            _ => return None,
        };
        Some(format!(
            "{}{text}",
            self.sign(n.is_sign_negative() && !n.is_nan())
        ))
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn pad(&self, text: String, is_text: bool) -> String {
        let width = self.width;
        if text.chars().count() >= width {
            return text;
        }
        if self.minus {
            return format!("{text:<width$}");
        }
        if !self.zero || (self.precision.is_some() && !text.contains('.') && !is_text) {
            return format!("{text:>width$}");
        }
        let (sign, rest) = match text.strip_prefix(['+', '-']) {
            Some(rest) if !is_text => text.split_at(text.len() - rest.len()),
            _ => ("", text.as_str()),
        };
        let width = width.saturating_sub(sign.len());
        format!("{sign}{rest:0>width$}")
    }
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut value = None;
    while let Some(c) = chars.next_if(char::is_ascii_digit) {
        let digit = usize::try_from(c.to_digit(10)?).ok()?;
        value = Some(
            value
                .unwrap_or(0_usize)
                .saturating_mul(10)
                .saturating_add(digit),
        );
    }
    value.map(|value| if value > WIDTH_MAX { 0 } else { value })
}

/// At least two digits and always a sign after the `e`.
fn exponent(text: &str, verb: char) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    let e = if verb.is_ascii_uppercase() { 'E' } else { 'e' };
    format!("{mantissa}{e}{sign}{power:0>2}")
}

/// The shorter of plain and scientific notation, without trailing zeros.
fn general(size: f64, precision: Option<usize>, verb: char) -> String {
    let scientific = match precision {
        Some(precision) => format!("{size:.*e}", precision.max(1) - 1),
        None => format!("{size:e}"),
    };
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i64 = power.parse().unwrap_or(0);
    let limit = precision.map_or(21, |p| i64::try_from(p.max(1)).unwrap_or(i64::MAX));
    if power < -4 || power >= limit {
        let mantissa = match mantissa.contains('.') {
            true => mantissa.trim_end_matches('0').trim_end_matches('.'),
            false => mantissa,
        };
        return exponent(&format!("{mantissa}e{power}"), verb);
    }
    match precision {
        None => size.to_string(),
        Some(_) => {
            // Rounded to the precision already; printing it plainly drops trailing zeros.
            scientific
                .parse::<f64>()
                .map_or(scientific.clone(), |rounded| rounded.to_string())
        }
    }
}

/// The name of a value's type in complaints.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Function(_) => "function",
        Value::Capsule(_) | Value::Secret(_) | Value::OptionalSecret(_) => "capsule",
    }
}

fn plain(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Float(n) => general(*n, None, 'g'),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(plain).collect())),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}:{}", plain(value));
            format!("map[{}]", list(fields.iter().map(field).collect()))
        }
        Value::Function(function) => format!("{function:?}"),
        Value::Capsule(capsule) => format!("{capsule:?}"),
        Value::Secret(secret) => secret.to_string(),
        Value::OptionalSecret(secret) => secret.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, values: &[Value]) -> String {
        let args: Vec<Value> = [Value::from(text)]
            .into_iter()
            .chain(values.to_vec())
            .collect();
        match format(&args) {
            Ok(Value::String(text)) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn verbs_print_values() {
        let table: &[(&str, Value, &str)] = &[
            ("%s!", "a".into(), "a!"),
            ("%5s|", "a".into(), "    a|"),
            ("%-5s|", "a".into(), "a    |"),
            ("%.2s", "abc".into(), "ab"),
            ("%q", "a\"\n".into(), "\"a\\\"\\n\""),
            ("%x", "hi".into(), "6869"),
            ("%d", Value::Int(-5), "-5"),
            ("%+d", Value::Int(5), "+5"),
            ("%05d", Value::Int(-42), "-0042"),
            ("%x", Value::Int(255), "ff"),
            ("%#X", Value::Int(255), "0XFF"),
            ("%b", Value::Int(5), "101"),
            ("%c", Value::Int(65), "A"),
            ("%f", Value::Float(1.5), "1.500000"),
            ("%.2f", Value::Float(-1.005), "-1.00"),
            ("%6.2f", Value::Float(-2.254), " -2.25"),
            ("%e", Value::Float(123456.0), "1.234560e+05"),
            ("%g", Value::Float(1e21), "1e+21"),
            ("%g", Value::Float(0.00001), "1e-05"),
            ("%.3g", Value::Float(1234.5), "1.23e+03"),
            ("%v", Value::Float(100.0), "100"),
            ("%t", Value::Bool(true), "true"),
            ("%#v", Value::Bool(true), "true"),
            ("%v", Value::Null, "<nil>"),
            ("%v", vec![Value::Int(1), "a".into()].into(), "[1 a]"),
            ("%s", Value::from(crate::Secret::new("x")), "(secret)"),
            ("100%% %v", Value::Int(1), "100% 1"),
        ];
        for (text, value, want) in table {
            assert_eq!(run(text, std::slice::from_ref(value)), *want, "{text}");
        }
    }

    #[test]
    fn verbs_that_do_not_fit_say_so() {
        assert_eq!(run("%s", &[]), "%!s(MISSING)");
        assert_eq!(run("%d", &["hi".into()]), "%!d(string=hi)");
        assert_eq!(run("%s", &[Value::Int(5)]), "%!s(int=5)");
        assert_eq!(run("50%", &[]), "50%!(NOVERB)");
        assert_eq!(run("a", &["x".into()]), "a%!(EXTRA string=x)");
        assert_eq!(run("%9999999999d", &[Value::Int(1)]), "1");
    }
}
