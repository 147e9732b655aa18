//! Turns paths and queries into what is asked for.

use std::borrow::Cow;

use hyper::HeaderMap;

/// What of a request is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'r> {
    /// As it was sent.
    pub(crate) path: &'r str,
    pub(crate) query: &'r str,
    #[allow(dead_code, reason = "for files that the peer may have already")]
    pub(crate) headers: &'r HeaderMap,
    pub(crate) is_head: bool,
}

impl<'r> Asked<'r> {
    /// A value of the query: the first of that name.
    pub(super) fn value(&self, name: &str) -> Option<Cow<'r, str>> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A number of the query within a range, or `default` where it is not given.
    ///
    /// # Errors
    /// What it must be.
    pub(super) fn number<T>(&self, name: &str, (min, max): (T, T), default: T) -> Result<T, String>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.value(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|n| *n >= min && *n <= max);
        number.ok_or_else(|| format!("{name} must be a number from {min} to {max}\n"))
    }
}

/// The text behind percent signs; what is no such code stays as it is.
pub(crate) fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high << 4 | low));
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the page and its API are; begins and ends with a slash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// The prefix as it is given: `/` or `/penstock`, with or without the last slash.
    ///
    /// # Errors
    /// It is no absolute path.
    pub(crate) fn new(given: &str) -> Result<Self, String> {
        let path = given.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        if !given.starts_with('/') || path.contains("//") || !path.chars().all(is_plain) {
            return Err("must be a path such as / or /penstock".to_owned());
        }
        Ok(Self(format!("{path}/")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The rest of a path below the prefix, which may come without its last slash.
    pub(super) fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        match path.strip_prefix(&self.0) {
            Some(rest) => Some(rest),
            None => (self.0.strip_suffix('/') == Some(path)).then_some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_absolute_paths() {
        for (given, is) in [("/", "/"), ("/a", "/a/"), ("/a/b/", "/a/b/")] {
            assert_eq!(Prefix::new(given).unwrap().as_str(), is);
        }
        for given in ["", "a", "/a//b", "/a b", "/é", "/a?b"] {
            assert!(Prefix::new(given).is_err(), "{given}");
        }
        let prefix = Prefix::new("/a").unwrap();
        let paths = ["/a/b/c", "/a/", "/a", "/ab", "/"];
        let below = paths.map(|path| prefix.below(path));
        assert_eq!(below, [Some("b/c"), Some(""), Some(""), None, None]);
    }

    #[test]
    fn codes_are_read_and_the_rest_stays() {
        for (path, expected) in [
            ("a%2Fb%2fc", "a/b/c"),
            ("%C3%A9", "é"),
            ("%ff", "\u{fffd}"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(decoded(path), expected);
        }
    }

    #[test]
    fn numbers_have_their_range() {
        let headers = HeaderMap::new();
        let asked = Asked {
            path: "/",
            query: "a=5&b=x&c=61&d=%30.5&a=7",
            headers: &headers,
            is_head: false,
        };
        assert_eq!(asked.number("a", (1, 60), 9), Ok(5));
        assert_eq!(asked.number("none", (1, 60), 9), Ok(9));
        assert_eq!(asked.number("d", (0.0, 1.0), 1.0), Ok(0.5));
        for name in ["b", "c"] {
            let problem = asked.number(name, (1, 60), 9).unwrap_err();
            assert!(problem.contains("from 1 to 60"), "{problem}");
        }
    }
}
