//! Turns Prometheus series selectors into a yes or no for label sets.
//!
//! `name{label="value", other!="value", third=~"pattern", fourth!~"pattern"}`, each part optional.
//! Strings are in double or single quotes with escapes, or in backticks without. Names of any
//! characters stand in quotes, the metric's name among the matchers. Patterns match whole values.

use regex::Regex;

/// A parsed selector.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    name: String,
    test: Test,
    /// Whether the test is to fail.
    is_negated: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    Pattern(Regex),
}

impl Matcher {
    fn is_match(&self, value: &str) -> bool {
        let is_match = match &self.test {
            Test::Equal(text) => text == value,
            Test::Pattern(pattern) => pattern.is_match(value),
        };
        is_match != self.is_negated
    }
}

impl Selector {
    /// Whether the series with these canonical labels is meant. A label it does not have is empty.
    pub(crate) fn is_match(&self, labels: &[u8]) -> bool {
        self.matchers.iter().all(|matcher| {
            let mut found = None;
            labels::for_each(labels, |name, value| {
                if name == matcher.name.as_bytes() {
                    found = Some(matcher.is_match(&String::from_utf8_lossy(value)));
                }
            });
            found.unwrap_or_else(|| matcher.is_match(""))
        })
    }
}

/// Reads a selector.
///
/// # Errors
/// What was expected where.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut reader = Reader { text, at: 0 };
    let mut matchers = Vec::new();
    let name = reader.identifier(":");
    if !name.is_empty() {
        matchers.push(equal("__name__", name));
    }
    if reader.take("{") {
        while !reader.take("}") {
            matchers.push(reader.matcher()?);
            if !reader.take(",") {
                reader.expect("}")?;
                break;
            }
        }
    }
    reader.space();
    if reader.at < text.len() || matchers.is_empty() {
        return Err(reader.error("a series selector such as up{job=~\"a.*\"}"));
    }
    Ok(Selector { matchers })
}

fn equal(name: &str, value: &str) -> Matcher {
    Matcher {
        name: name.to_owned(),
        test: Test::Equal(value.to_owned()),
        is_negated: false,
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, expected: &str) -> String {
        format!(
            "expected {expected} at {:?} of {:?}",
            self.rest(),
            self.text
        )
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let is_there = self.rest().starts_with(token);
        self.at += if is_there { token.len() } else { 0 };
        is_there
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.error(token))
    }

    /// A name of letters, digits, `_` and `more`; empty if there is none.
    fn identifier(&mut self, more: &str) -> &'a str {
        self.space();
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let name = rest.get(..len).unwrap_or_default();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.at += len;
        name
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let mut name = self.identifier("").to_owned();
        let is_quoted = name.is_empty();
        if is_quoted {
            name = self.string()?;
        }
        let operators = [("=~", true, false), ("!~", true, true), ("!=", false, true)];
        let operators = operators.into_iter().chain([("=", false, false)]);
        for (operator, is_pattern, is_negated) in operators {
            if !self.take(operator) {
                continue;
            }
            let value = self.string()?;
            let test = if is_pattern {
                let pattern = Regex::new(&format!("^(?s:{value})$"));
                Test::Pattern(pattern.map_err(|error| format!("{value:?}: {error}"))?)
            } else {
                Test::Equal(value)
            };
            return Ok(Matcher {
                name,
                test,
                is_negated,
            });
        }
        if is_quoted {
            return Ok(equal("__name__", &name));
        }
        Err(self.error("=, !=, =~ or !~"))
    }

    fn string(&mut self) -> Result<String, String> {
        self.space();
        let quote = self.rest().chars().next();
        let Some(quote) = quote.filter(|quote| matches!(quote, '"' | '\'' | '`')) else {
            return Err(self.error("a quoted string"));
        };
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if c != '\\' || quote == '`' {
                text.push(c);
                continue;
            }
            let escaped = match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, 'r')) => '\r',
                Some((_, c @ ('\\' | '"' | '\'' | '`'))) => c,
                _ => return Err(self.error("\\\\, \\\", \\', \\n, \\r or \\t as escapes")),
            };
            text.push(escaped);
        }
        Err(self.error("the end of the string"))
    }
}

#[cfg(test)]
mod tests {
    use labels::canonical;

    use super::*;

    fn is_match(selector: &str) -> bool {
        let labels = [("__name__", "up"), ("instance", "a:1"), ("job", "api\nx")];
        parse(selector).unwrap().is_match(&canonical(&labels))
    }

    #[test]
    fn selectors_say_which_series_are_meant() {
        for (selector, expected) in [
            ("up", true),
            ("down", false),
            ("up{}", true),
            ("{__name__=\"up\"}", true),
            ("{\"up\"}", true),
            ("{\"up\", \"job\"=~\"api.*\"}", true),
            ("up{instance=\"a:1\",}", true),
            ("up{ instance = 'a:1' , job =~ `a.*` }", true),
            ("up{instance=\"a\"}", false),
            ("up{instance=~\"a\"}", false),
            ("up{instance=~\"a|b:1\"}", false),
            ("up{instance=~\"b|a:.\"}", true),
            ("up{instance!=\"a:1\"}", false),
            ("up{instance!~\"b.*\"}", true),
            ("up{missing=\"\"}", true),
            ("up{missing!=\"\"}", false),
            ("up{missing=~\".*\"}", true),
            ("up{missing=~\".+\"}", false),
            ("{job=\"api\\nx\"}", true),
        ] {
            assert_eq!(is_match(selector), expected, "{selector}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for selector in [
            "",
            "{}",
            "{",
            "up{",
            "up{job}",
            "up{job=}",
            "up{job=x}",
            "up{job=\"x}",
            "up{job==\"x\"}",
            "up{job=~\"(\"}",
            "1up",
            "up down",
            "up{a=\"b\" c=\"d\"}",
            "up{job=\"\\q\"}",
            "up{,}",
        ] {
            assert!(parse(selector).is_err(), "{selector}");
        }
    }
}
