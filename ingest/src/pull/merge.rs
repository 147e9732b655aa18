//! Turns the labels of an exposed sample and those of its target into the labels of its series.
//!
//! Who wins where both have a label is what `honor_labels` says; the loser of the other way round is kept as
//! `exported_NAME`. As in Prometheus (`scrape/scrape.go`, `mutateSampleLabels`).

use crate::decode::labels::append_any_label;

/// The canonical labels of the samples of one target; its memory is reused.
#[derive(Default, Debug)]
pub(crate) struct Merge {
    /// Names and values by their ranges in `text`.
    labels: Vec<(Range, Range)>,
    text: Vec<u8>,
    canonical: Vec<u8>,
}

type Range = std::ops::Range<usize>;

const EXPORTED: &[u8] = b"exported_";

impl Merge {
    /// The canonical label bytes.
    pub(crate) fn merge<'e>(
        &mut self,
        exposed: impl Iterator<Item = (&'e [u8], &'e [u8])>,
        target: &[(String, String)],
        honors_labels: bool,
    ) -> &[u8] {
        self.labels.clear();
        self.text.clear();
        for (name, value) in exposed {
            let (name, value) = (self.keep(name), self.keep(value));
            self.labels.push((name, value));
        }
        let exposed = self.labels.len();
        for (name, value) in target {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let there = self.position(name, exposed);
            match there {
                Some(_) if honors_labels => continue,
                Some(at) => self.rename(at, target),
                None => {}
            }
            let (name, value) = (self.keep(name), self.keep(value));
            self.labels.push((name, value));
        }
        self.write()
    }

    fn keep(&mut self, text: &[u8]) -> Range {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        start..self.text.len()
    }

    fn at(&self, range: &Range) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn position(&self, name: &[u8], among: usize) -> Option<usize> {
        let labels = self.labels.iter().take(among);
        labels
            .map(|(one, _)| self.at(one))
            .position(|one| one == name)
    }

    /// Gives an exposed label a name that nobody has.
    fn rename(&mut self, at: usize, target: &[(String, String)]) {
        let Some((name, value)) = self.labels.get(at).cloned() else {
            return;
        };
        if value.is_empty() {
            // Without a value it is no label.
            self.labels[at] = (0..0, 0..0);
            return;
        }
        let mut free = self.at(&name).to_vec();
        loop {
            free.splice(..0, EXPORTED.iter().copied());
            let is_targets = target.iter().any(|(one, _)| one.as_bytes() == free);
            if !is_targets && self.position(&free, self.labels.len()).is_none() {
                break;
            }
        }
        let name = self.keep(&free);
        self.labels[at] = (name, value);
    }

    fn write(&mut self) -> &[u8] {
        let Self {
            labels,
            text,
            canonical,
        } = self;
        let bytes = |range: &Range| text.get(range.clone()).unwrap_or_default();
        labels.retain(|(_, value)| !value.is_empty());
        if !labels.is_sorted_by(|a, b| bytes(&a.0) < bytes(&b.0)) {
            labels.sort_by(|a, b| bytes(&a.0).cmp(bytes(&b.0)));
        }
        canonical.clear();
        for (name, value) in &*labels {
            append_any_label(canonical, bytes(name), bytes(value));
        }
        canonical
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(exposed: &[(&str, &str)], target: &[(&str, &str)], honors: bool) -> String {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let target: Vec<(String, String)> = target.iter().map(own).collect();
        let exposed = exposed.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let mut merge = Merge::default();
        let canonical = merge.merge(exposed, &target, honors);
        let pairs = crate::decode::labels::labels_of(canonical);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        pairs
            .map(|(n, v)| format!("{}={} ", text(n), text(v)))
            .collect()
    }

    #[test]
    fn the_target_wins_and_what_was_exposed_is_renamed() {
        let exposed = [("__name__", "up"), ("job", "a"), ("zone", "1")];
        let target = [("instance", "h"), ("job", "j")];
        assert_eq!(
            merged(&exposed, &target, false),
            "__name__=up exported_job=a instance=h job=j zone=1 "
        );
        assert_eq!(
            merged(&exposed, &target, true),
            "__name__=up instance=h job=a zone=1 "
        );
    }

    #[test]
    fn a_new_name_is_one_nobody_has() {
        let exposed = [("__name__", "up"), ("exported_job", "b"), ("job", "a")];
        assert_eq!(
            merged(&exposed, &[("job", "j")], false),
            "__name__=up exported_exported_job=a exported_job=b job=j "
        );
        let target = [("exported_job", "t"), ("job", "j")];
        assert_eq!(
            merged(&[("__name__", "up"), ("job", "a")], &target, false),
            "__name__=up exported_exported_job=a exported_job=t job=j "
        );
    }

    #[test]
    fn an_empty_label_is_there_for_whoever_honors_it_and_nobody_else() {
        let exposed = [("__name__", "up"), ("job", "")];
        assert_eq!(merged(&exposed, &[("job", "j")], true), "__name__=up ");
        assert_eq!(
            merged(&exposed, &[("job", "j")], false),
            "__name__=up job=j "
        );
    }
}
