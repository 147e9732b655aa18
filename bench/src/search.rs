//! Turns verdicts on numbers into the next number to try: doubling, then halving the gap.

/// A search for the largest number that passes, in a range where those below one that passes do too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    first: usize,
    max: usize,
    /// Ends when the gap is not greater than so many percent of what passed.
    percent: usize,
    /// The largest that passed.
    passed: usize,
    /// The smallest that failed.
    failed: Option<usize>,
}

impl Search {
    /// From `first`, up to `max` and no further.
    pub(crate) fn new(first: usize, max: usize, percent: usize) -> Self {
        Self {
            first: first.clamp(1, max.max(1)),
            max: max.max(1),
            percent,
            passed: 0,
            failed: None,
        }
    }

    /// What to try next; `None` when it is known well enough.
    pub(crate) fn next(&self) -> Option<usize> {
        match (self.passed, self.failed) {
            (0, None) => Some(self.first),
            (passed, None) => (passed < self.max).then(|| (passed * 2).min(self.max)),
            (passed, Some(failed)) => {
                let gap = failed - passed;
                let is_known = gap <= 1 || gap * 100 <= passed * self.percent;
                (!is_known).then(|| passed + gap / 2)
            }
        }
    }

    /// Takes the verdict on a number that was tried.
    pub(crate) fn note(&mut self, number: usize, has_passed: bool) {
        if has_passed {
            self.passed = self.passed.max(number);
        } else {
            let failed = self.failed.map_or(number, |failed| failed.min(number));
            self.failed = Some(failed);
            // A machine is not always as fast: what passed above what fails counts no more.
            self.passed = self.passed.min(failed - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers tried where all up to `limit` pass.
    fn tried(mut search: Search, limit: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(number) = search.next() {
            search.note(number, number <= limit);
            tried.push(number);
            assert!(tried.len() < 64, "{tried:?}");
        }
        tried
    }

    #[test]
    fn it_doubles_until_one_fails_and_then_halves_the_gap() {
        assert_eq!(
            tried(Search::new(8, 100, 0), 21),
            [8, 16, 32, 24, 20, 22, 21]
        );
        assert_eq!(tried(Search::new(8, 100, 10), 21), [8, 16, 32, 24, 20, 22]);
    }

    #[test]
    fn it_never_goes_beyond_the_most() {
        assert_eq!(tried(Search::new(8, 40, 5), 1000), [8, 16, 32, 40]);
        assert_eq!(tried(Search::new(100, 40, 5), 1000), [40]);
    }

    #[test]
    fn it_goes_down_when_the_first_fails_and_ends_with_none() {
        assert_eq!(tried(Search::new(8, 40, 0), 3), [8, 4, 2, 3]);
        assert_eq!(tried(Search::new(8, 40, 0), 0), [8, 4, 2, 1]);
    }

    #[test]
    fn it_ends_wherever_the_limit_is() {
        for limit in 0..200 {
            let mut search = Search::new(16, 128, 0);
            while let Some(number) = search.next() {
                search.note(number, number <= limit);
            }
            assert_eq!(search.passed, limit.min(128));
        }
    }
}
