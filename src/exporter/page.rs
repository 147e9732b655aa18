//! Turns samples with names, labels and types into the text that scrapers read.
//!
//! Our own metrics are written as OpenMetrics (`telemetry::families`); here names are those of somebody else,
//! made while it runs, and untyped ones among them, which only the older text format can say.
//!
//! # Invariants
//! - A family stands in one piece, with one help and one type: those that came first.
//! - No series stands there twice: the first stays, what came later is told to be too much.

use std::collections::BTreeMap;

/// What the text is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The type of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: Kind,
    /// Values by name and labels as they are written.
    samples: BTreeMap<String, f64>,
}

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Families by their names.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: BTreeMap<String, Family>,
}

impl Page {
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.add((name, Kind::Counter, help), labels, value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.add((name, Kind::Gauge, help), labels, value);
    }

    pub(super) fn untyped(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.add((name, Kind::Untyped, help), labels, value);
    }

    /// Adds a sample that has the name of its family. False if there is one of that series.
    pub(super) fn add(
        &mut self,
        family: (&str, Kind, &str),
        labels: Labels<'_>,
        value: f64,
    ) -> bool {
        self.add_part(family, family.0, labels, value)
    }

    /// Adds a sample of a family, such as a bucket of a histogram. False if there is one of that series.
    pub(super) fn add_part(
        &mut self,
        (family, kind, help): (&str, Kind, &str),
        name: &str,
        labels: Labels<'_>,
        value: f64,
    ) -> bool {
        if !self.families.contains_key(family) {
            let new = Family {
                help: help.to_owned(),
                kind,
                samples: BTreeMap::new(),
            };
            self.families.insert(family.to_owned(), new);
        }
        let Some(family) = self.families.get_mut(family) else {
            return false;
        };
        let series = series(name, labels);
        let is_new = !family.samples.contains_key(&series);
        if is_new {
            family.samples.insert(series, value);
        }
        is_new
    }

    /// The text of all families.
    pub(super) fn encode(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.families {
            out.push_str("# HELP ");
            out.push_str(name);
            out.push(' ');
            escape(&mut out, &family.help, false);
            out.push_str("\n# TYPE ");
            out.push_str(name);
            out.push(' ');
            out.push_str(family.kind.as_str());
            out.push('\n');
            for (series, value) in &family.samples {
                out.push_str(series);
                out.push(' ');
                number(&mut out, *value);
                out.push('\n');
            }
        }
        out
    }
}

/// A series as it is written.
fn series(name: &str, labels: Labels<'_>) -> String {
    let mut out = name.to_owned();
    let mut before = '{';
    for (name, value) in labels {
        out.push(before);
        out.push_str(name);
        out.push_str("=\"");
        escape(&mut out, value, true);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    out
}

fn escape(out: &mut String, text: &str, is_value: bool) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if is_value => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

fn number(out: &mut String, value: f64) {
    if value == f64::INFINITY {
        out.push_str("+Inf");
    } else if value == f64::NEG_INFINITY {
        out.push_str("-Inf");
    } else {
        // NaN is written as such.
        out.push_str(&value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_whole_and_no_series_stands_twice() {
        let mut page = Page::default();
        let total = ("b_total", Kind::Counter, "How\noften\\ \"x\".");
        assert!(page.add(total, &[("of", "a\"b\\c\nd"), ("none", "")], 1.5));
        assert!(page.add(("a", Kind::Untyped, ""), &[], f64::INFINITY));
        assert!(page.add(("b_total", Kind::Gauge, "Other."), &[], 3.0));
        assert!(!page.add(total, &[], 4.0));
        let size = ("c", Kind::Histogram, "Sizes.");
        assert!(page.add_part(size, "c_bucket", &[("le", "+Inf")], 2.0));
        assert!(page.add_part(size, "c_sum", &[], f64::NAN));
        assert_eq!(
            page.encode(),
            "# HELP a \n# TYPE a untyped\na +Inf\n\
             # HELP b_total How\\noften\\\\ \"x\".\n# TYPE b_total counter\n\
             b_total 3\nb_total{of=\"a\\\"b\\\\c\\nd\",none=\"\"} 1.5\n\
             # HELP c Sizes.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 2\nc_sum NaN\n"
        );
    }
}
