//! Turns a regular expression as Go writes it into one of the `regex` crate, anchored at both ends.
//!
//! The two agree on what an expression finds, as both prefer the leftmost alternative, and differ in
//! how some are written. Translated here: `\d`, `\w`, `\s` and `\b` are of ASCII in Go; `[`, `&`,
//! `~` and `-` in a class are themselves; `\Q...\E` quotes; `\123` is octal; a brace that is no
//! repetition is a brace; any punctuation may be escaped. Refused as in Go: the flags `x`, `u`, `R`.
//!
//! What remains different: Go refuses some expressions that work here (`a**`, more than 1000
//! repetitions, names of scripts that it does not know).

use regex::bytes::{CaptureLocations, Regex};

/// Matches everything, and its only group is all of it.
const EVERYTHING: &str = "(.*)";

/// An expression that matches a text from end to end, where a dot is any character.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    is_everything: bool,
}

impl Pattern {
    /// Compiles `text`; the error says what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = |problem: String| format!("error parsing regexp: {problem}: `{text}`");
        let translated = Translation::of(text).map_err(wrong)?;
        // on its own first: what closes more than it opens must not reach the anchors
        let regex = Regex::new(&translated)
            .and_then(|_| Regex::new(&format!("^(?s:{translated})$")))
            .map_err(|error| wrong(reason(&error)))?;
        Ok(Self {
            regex,
            is_everything: text == EVERYTHING,
        })
    }

    /// Whether it matches all of `text`.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.is_everything || self.regex.is_match(text)
    }

    /// The match of all of `text`.
    pub(super) fn find<'a>(
        &self,
        text: &'a [u8],
        locations: &'a mut CaptureLocations,
    ) -> Option<Match<'a>> {
        if !self.is_everything {
            self.regex.captures_read(locations, text)?;
        }
        Some(Match {
            text,
            locations: (!self.is_everything).then_some(locations),
        })
    }

    /// Where [`Self::find`] may note its groups.
    pub(super) fn locations(&self) -> CaptureLocations {
        self.regex.capture_locations()
    }

    /// The number of a group that is given by number or by name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && (name == "0" || !name.starts_with('0')) {
            let number = name.parse().ok()?;
            return (number < self.regex.captures_len()).then_some(number);
        }
        let mut names = self.regex.capture_names();
        names.position(|one| one == Some(name))
    }
}

/// What a pattern found.
pub(super) struct Match<'a> {
    text: &'a [u8],
    /// None where all groups are the whole text.
    locations: Option<&'a mut CaptureLocations>,
}

impl Match<'_> {
    /// The text of a group; empty if it took no part.
    pub(super) fn group(&self, number: usize) -> &[u8] {
        match &self.locations {
            Some(locations) => match locations.get(number) {
                Some((start, end)) => &self.text[start..end],
                None => &[],
            },
            None => self.text,
        }
    }
}

/// The last line of the crate's message, which draws the place of a mistake in the lines before.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// An expression on its way from one syntax to the other.
struct Translation<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    out: String,
}

impl Translation<'_> {
    fn of(text: &str) -> Result<String, String> {
        let mut this = Translation {
            rest: text.chars().peekable(),
            out: String::with_capacity(text.len() + 16),
        };
        while let Some(c) = this.rest.next() {
            match c {
                '\\' => this.escape(false)?,
                '[' => this.class()?,
                '{' if !this.is_repetition() => this.out.push_str("\\{"),
                '{' => this.copy_until('}'),
                '}' => this.out.push_str("\\}"),
                '(' => this.group()?,
                c => this.out.push(c),
            }
        }
        Ok(this.out)
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.rest.next() else {
            return Err("trailing backslash at end of expression".to_owned());
        };
        let (bare, ascii) = match c {
            'd' => ("0-9", true),
            'D' => ("^0-9", false),
            'w' => ("0-9A-Za-z_", true),
            'W' => ("^0-9A-Za-z_", false),
            's' => (r"\t\n\f\r ", true),
            'S' => (r"^\t\n\f\r ", false),
            'b' | 'B' if !in_class => {
                self.out.push_str("(?-u:\\");
                self.out.push(c);
                self.out.push(')');
                return Ok(());
            }
            'Q' => {
                self.quote();
                return Ok(());
            }
            '0'..='7' => return self.octal(c),
            'p' | 'P' => {
                self.property(c);
                return Ok(());
            }
            'A' | 'z' if !in_class => ("", true),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' => ("", true),
            c if c.is_ascii_punctuation() => {
                self.literal(c);
                return Ok(());
            }
            c => return Err(format!("invalid escape sequence: `\\{c}`")),
        };
        if bare.is_empty() {
            self.out.extend(['\\', c]);
        } else if in_class && ascii {
            self.out.push_str(bare);
        } else {
            self.out.extend(["[", bare, "]"]);
        }
        Ok(())
    }

    /// A character that stands for itself.
    fn literal(&mut self, c: char) {
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>' | '_') {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    /// Everything up to `\E` stands for itself.
    fn quote(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(c);
        }
    }

    fn octal(&mut self, first: char) -> Result<(), String> {
        let mut digits = String::from(first);
        while digits.len() < 3
            && let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c))
        {
            digits.push(digit);
        }
        if first != '0' && digits.len() == 1 {
            return Err(format!("invalid escape sequence: `\\{first}`"));
        }
        let code = u32::from_str_radix(&digits, 8).unwrap_or_default();
        self.out.push_str(&format!("\\x{{{code:x}}}"));
        Ok(())
    }

    /// `\p{^Name}` is `\P{Name}`.
    fn property(&mut self, c: char) {
        let mut c = c;
        let is_braced = self.rest.next_if_eq(&'{').is_some();
        if is_braced && self.rest.next_if_eq(&'^').is_some() {
            c = if c == 'p' { 'P' } else { 'p' };
        }
        self.out.extend(['\\', c]);
        if is_braced {
            self.out.push('{');
            self.copy_until('}');
        }
    }

    /// Copies up to and with `end`.
    fn copy_until(&mut self, end: char) {
        if self.out.ends_with(|c| c != '{') {
            self.out.push('{');
        }
        for c in self.rest.by_ref() {
            self.out.push(c);
            if c == end {
                break;
            }
        }
    }

    /// Whether what follows a brace is `n}`, `n,}` or `n,m}`.
    fn is_repetition(&self) -> bool {
        let mut ahead = self.rest.clone();
        let mut commas = 0;
        let mut is_first = true;
        loop {
            match ahead.next() {
                Some('0'..='9') => {}
                Some(',') if !is_first && commas == 0 => commas += 1,
                Some('}') => return !is_first,
                _ => return false,
            }
            is_first = false;
        }
    }

    /// What follows an opening parenthesis: a group's flags must be among those of Go.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        while let Some(c) = self.rest.peek().copied() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => {
                    self.out.push(c);
                    self.rest.next();
                }
                ':' | ')' | 'P' | '<' => return Ok(()),
                _ => return Err(format!("invalid or unsupported Perl syntax: `(?{c}`")),
            }
        }
        Ok(())
    }

    /// What follows an opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            match self.rest.next() {
                None => return Err("missing closing ]".to_owned()),
                Some(']') if !is_first => break,
                Some('\\') => self.escape(true)?,
                Some('[') if self.named_class() => {}
                Some('-') if !is_first && self.is_range() => self.out.push('-'),
                Some(c) => self.literal(c),
            }
            is_first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// Whether a dash in a class stands between two characters.
    fn is_range(&mut self) -> bool {
        let after = self.rest.peek();
        let is_open = self.out.ends_with('[') || self.out.ends_with("[^");
        after.is_some_and(|c| *c != ']') && !is_open
    }

    /// Copies `[:alpha:]`, if that is what follows the bracket.
    fn named_class(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some(':') {
            return false;
        }
        let name: String = ahead.take_while(|c| *c != ']').collect();
        if !name.ends_with(':') {
            return false;
        }
        self.out.push_str("[:");
        self.out.push_str(&name);
        self.out.push(']');
        let copied = name.chars().count() + 2;
        self.rest.by_ref().take(copied).for_each(drop);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, yes, no) in [
            ("a|b", "b", "ab"),
            ("a.b", "a\nb", "a"),
            ("", "", "a"),
            (r"\d+", "12", "\u{661}"),
            (r"\w", "_", "\u{e4}"),
            (r"\W", "\u{e4}", "a"),
            (r"[\d_]+", "1_2", "\u{661}"),
            (r"[\D]", "\u{661}", "1"),
            (r"[^\w]", "-", "w"),
            (r"a\s", "a\t", "a\u{a0}"),
            (r"\bx\b", "x", ""),
            (r"[[a]+", "[a", "]"),
            (r"[a&&b]+", "a&b", "c"),
            (r"[]a]+", "]a", "b"),
            (r"[a-c-]+", "b-", "d"),
            (r"[+--]+", "+,-", "."),
            (r"[a~~b]+", "~", "c"),
            (r"[[:alpha:]_]+", "a_", "1"),
            (r"\Qa.b\E+", "a.bb", "axb"),
            (r"\Qa.b", "a.b", "axb"),
            (r"\101\x42\x{43}", "ABC", "abc"),
            ("a{b", "a{b", "a"),
            ("a{,2}", "a{,2}", "aa"),
            ("a{2}", "aa", "a"),
            ("a{1,}b}", "aab}", "b}"),
            (r"\<\>\_\/\-", "<>_/-", "x"),
            (r"(?i)ab", "AB", "x"),
            (r"(?i:a)b", "Ab", "AB"),
            (r"\p{Greek}\PL", "\u{3b1}1", "a1"),
            (r"\p{^Greek}", "a", "\u{3b1}"),
            ("(?P<x>a)(?<y>b)", "ab", "a"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_the_expression() {
        for pattern in [
            "(", "a)(b", "[a", "a\\", r"\8", r"\1", r"\y", "(?x)a", "*", "(?u:a)",
        ] {
            let message = Pattern::new(pattern).unwrap_err();
            assert!(message.starts_with("error parsing regexp: "), "{message}");
            assert!(message.ends_with(&format!("`{pattern}`")), "{message}");
        }
    }

    #[test]
    fn everything_is_found_without_looking() {
        let pattern = Pattern::new("(.*)").unwrap();
        let mut locations = pattern.locations();
        let found = pattern.find(b"a\nb", &mut locations).unwrap();
        assert_eq!(
            (found.group(0), found.group(1)),
            (&b"a\nb"[..], &b"a\nb"[..])
        );
    }

    proptest::proptest! {
        #[test]
        fn no_expression_panics(pattern in r"[\\\[\]{}()?*+|.^$&~\-:,a-z0-9QEdwpP<>]{0,16}") {
            drop(Pattern::new(&pattern));
        }

        #[test]
        fn an_escaped_text_matches_itself(text in "[ -~]{0,20}") {
            let escaped: String = text
                .chars()
                .flat_map(|c| [c.is_ascii_punctuation().then_some('\\'), Some(c)])
                .flatten()
                .collect();
            proptest::prop_assert!(matches(&escaped, &text), "{escaped}");
        }
    }
}
