//! Turns the samples of a request, by the numbers of a front, into samples of one store.
//!
//! What its tenant may not send is refused before it is defined.
//!
//! # Invariants
//! - Order is kept: what comes out is what came in, without what was dropped.
//! - After an error nothing is remembered that was not defined.

use std::collections::HashSet;
use std::ops::Range;

use wal::{NewSeries, RecordKind, Sample, SeriesGuard, SeriesRef};

use super::{Front, Made, Rules};
use crate::decode::labels::{Reason, check_made, shown};
use crate::decode::{Batch, NotAllowed, RecordAt, Refusals};
use crate::tenants::Pass;

/// Most stages of a path: what each drops is counted apart.
pub const STAGES_MAX: usize = 16;

/// What a front series is in a store.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum What {
    #[default]
    Unknown,
    /// Its ref there, with the name of its record.
    Series(SeriesRef, u64),
    /// Rules dropped it, those of the stage of this number.
    Dropped(u8),
    /// To be defined: its place in the list of those.
    Pending(u32),
    Refused(Reason),
}

/// What a front series is in a store, and for which labels that holds.
#[derive(Clone, Copy, Default, Debug)]
struct Outcome {
    identity: u64,
    what: What,
}

/// What every front series became in one store.
#[derive(Default, Debug)]
pub(crate) struct Derived {
    outcomes: Vec<Outcome>,
}

impl Derived {
    /// What this front series is, if that is known and still so.
    #[inline]
    pub(crate) fn known(&self, number: u32, identity: u64, store: &SeriesGuard<'_>) -> What {
        match self.outcomes.get(number as usize) {
            Some(outcome) if outcome.identity == identity => match outcome.what {
                What::Series(series, record)
                    if store.record(series) != record || !store.confirm(series) =>
                {
                    What::Unknown
                }
                what => what,
            },
            _ => What::Unknown,
        }
    }

    /// Remembers what a front series is.
    pub(crate) fn remember(&mut self, number: u32, identity: u64, what: What) {
        let at = number as usize;
        if at >= self.outcomes.len() {
            self.outcomes.resize(at + 1, Outcome::default());
        }
        if let Some(outcome) = self.outcomes.get_mut(at) {
            *outcome = Outcome { identity, what };
        }
    }
}

/// What one store gets of a request, and buffers on the way there; owned by a shard thread, reused
/// from request to request and store to store.
#[derive(Default, Debug)]
pub(crate) struct Mapped {
    pub(crate) samples: Vec<Sample>,
    pub(crate) records: Vec<RecordAt>,
    /// Refused by what the rules made of them.
    pub(crate) refused: Refusals,
    arena: Vec<u8>,
    canonical: Vec<u8>,
    pending: Vec<Pending>,
    /// Front series whose tenant may not send them in this request.
    not_admitted: HashSet<u32>,
    dropped: [u64; STAGES_MAX],
    /// The last front series that was refused.
    last_refused: SeriesRef,
    known: (u64, u64),
}

/// A series to be defined.
#[derive(Debug)]
struct Pending {
    number: u32,
    identity: u64,
    hash: u64,
    labels: Range<usize>,
    /// Its ref, once it is defined.
    series: SeriesRef,
}

impl Mapped {
    /// Gives memory back after an unusual request.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.clear();
        self.samples.shrink_to(bytes_max / size_of::<Sample>());
        self.records.shrink_to(bytes_max / size_of::<RecordAt>());
        self.arena.clear();
        self.arena.shrink_to(bytes_max);
        self.pending.clear();
        self.pending.shrink_to(bytes_max / size_of::<Pending>());
    }

    fn clear(&mut self) {
        self.samples.clear();
        self.records.clear();
        self.refused = Refusals::default();
        self.dropped = [0; STAGES_MAX];
        self.last_refused = SeriesRef::NONE;
    }

    /// Maps a request; new series are defined in the store.
    ///
    /// # Errors
    /// The store could not define them.
    pub(crate) fn map(
        &mut self,
        (front, batch): (&impl Front, &Batch),
        (derived, rules): (&mut Derived, &mut Rules),
        store: &SeriesGuard<'_>,
        mut pass: Option<Pass<'_>>,
    ) -> Result<(), wal::Error> {
        self.arena.clear();
        self.pending.clear();
        self.known = (0, 0);
        self.not_admitted.clear();
        self.map_known((front, batch), (derived, rules), (store, &mut pass));
        if !self.pending.is_empty() {
            self.define(derived, store)?;
            if let Some(pass) = pass.take() {
                pass.settle(self.pending.iter().map(|pending| pending.series));
            }
            let known = self.known;
            self.map_known((front, batch), (derived, rules), (store, &mut None));
            self.known = known;
        }
        let is_counted = |record: &&RecordAt| record.kind != RecordKind::Metadata;
        let items = batch.samples.len() + batch.records.iter().filter(is_counted).count();
        rules.count(items as u64, &self.dropped, self.known);
        Ok(())
    }

    /// Maps what is known, and finds out about the rest.
    fn map_known(
        &mut self,
        (front, batch): (&impl Front, &Batch),
        (derived, rules): (&mut Derived, &mut Rules),
        (store, pass): (&SeriesGuard<'_>, &mut Option<Pass<'_>>),
    ) {
        self.clear();
        let mut last = (SeriesRef::NONE, What::Unknown);
        for sample in &batch.samples {
            if sample.series != last.0 {
                let what = self.look_up(sample.series, front, (derived, rules), (store, pass));
                last = (sample.series, what);
            }
            if let What::Series(series, _) = last.1 {
                self.samples.push(Sample { series, ..*sample });
            } else {
                self.left_out(last, front);
            }
        }
        for record in &batch.records {
            let mut record = record.clone();
            if !record.series.is_none() {
                let what = self.look_up(record.series, front, (derived, rules), (store, pass));
                let What::Series(series, _) = what else {
                    self.left_out((record.series, what), front);
                    continue;
                };
                record.series = series;
            }
            self.records.push(record);
        }
    }

    #[inline]
    fn look_up(
        &mut self,
        number: SeriesRef,
        front: &impl Front,
        (derived, rules): (&mut Derived, &mut Rules),
        (store, pass): (&SeriesGuard<'_>, &mut Option<Pass<'_>>),
    ) -> What {
        let (number, identity) = (number.get(), front.identity(number.get()));
        let known = derived.known(number, identity, store);
        if known != What::Unknown {
            self.known.0 += 1;
            // What is pending was asked for already.
            return match known {
                What::Pending(_) => known,
                known => self.admitted((number, known), front, pass),
            };
        }
        self.known.1 += 1;
        let what = self.find_out((number, identity), front, rules, store);
        let admitted = self.admitted((number, what), front, pass);
        if admitted != what && matches!(what, What::Pending(_)) {
            // Not remembered: it may come another time.
            self.pending.pop();
        } else {
            derived.remember(number, identity, what);
        }
        admitted
    }

    /// The same, unless its tenant may not send it.
    #[inline]
    fn admitted(
        &mut self,
        (number, what): (u32, What),
        front: &impl Front,
        pass: &mut Option<Pass<'_>>,
    ) -> What {
        if pass.is_none() && self.not_admitted.is_empty() {
            return what;
        }
        self.ask((number, what), front, pass)
    }

    #[cold]
    fn ask(
        &mut self,
        (number, what): (u32, What),
        front: &impl Front,
        pass: &mut Option<Pass<'_>>,
    ) -> What {
        let refused = What::Refused(Reason::TenantSeriesLimit);
        if self.not_admitted.contains(&number) {
            return refused;
        }
        let is_admitted = match (what, pass.as_mut()) {
            (What::Series(series, _), Some(pass)) => pass.may_send(series),
            (What::Pending(_), Some(pass)) => pass.may_define(),
            _ => true,
        };
        if is_admitted {
            return what;
        }
        self.canonical.clear();
        if let (Some(pass), Ok(())) = (pass, front.labels(number, &mut self.canonical)) {
            pass.refused(&self.canonical, 1);
        }
        self.not_admitted.insert(number);
        refused
    }

    /// Runs the rules and looks for the series they make.
    #[cold]
    fn find_out(
        &mut self,
        (number, identity): (u32, u64),
        front: &impl Front,
        rules: &mut Rules,
        store: &SeriesGuard<'_>,
    ) -> What {
        self.canonical.clear();
        if let Err(reason) = front.labels(number, &mut self.canonical) {
            return What::Refused(reason);
        }
        let made = match rules.apply(&self.canonical) {
            Made::Dropped(stage) => return What::Dropped(stage),
            Made::Labels(made) => made,
        };
        if let Err(reason) = check_made(made) {
            return What::Refused(reason);
        }
        let hash = store.hash(made);
        if let Some(series) = store.find(hash, made) {
            return What::Series(series, store.record(series));
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(made);
        self.pending.push(Pending {
            number,
            identity,
            hash,
            labels: start..self.arena.len(),
            series: SeriesRef::NONE,
        });
        What::Pending(u32::try_from(self.pending.len() - 1).unwrap_or(u32::MAX))
    }

    /// Defines what is pending. What fails is forgotten.
    fn define(&mut self, derived: &mut Derived, store: &SeriesGuard<'_>) -> Result<(), wal::Error> {
        let labels = |range: &Range<usize>| self.arena.get(range.clone()).unwrap_or_default();
        let mut new: Vec<NewSeries<'_>> = self
            .pending
            .iter()
            .map(|pending| NewSeries {
                hash: pending.hash,
                labels: labels(&pending.labels),
                series: SeriesRef::NONE,
            })
            .collect();
        let defined = store.define(&mut new);
        let defined_as: Vec<SeriesRef> = new.iter().map(|new| new.series).collect();
        for (pending, series) in self.pending.iter_mut().zip(defined_as) {
            pending.series = series;
            let what = match defined {
                Ok(()) => What::Series(series, store.record(series)),
                Err(_) => What::Unknown,
            };
            derived.remember(pending.number, pending.identity, what);
        }
        defined
    }

    /// Counts a sample or record that does not go on.
    fn left_out(&mut self, (number, what): (SeriesRef, What), front: &impl Front) {
        match what {
            What::Dropped(stage) => {
                if let Some(count) = self.dropped.get_mut(usize::from(stage)) {
                    *count += 1;
                }
            }
            What::Refused(reason) if self.last_refused == number => self.refused.add_item(reason),
            What::Refused(reason) => {
                self.last_refused = number;
                self.canonical.clear();
                let is_shown = self.refused.is_empty()
                    && front.labels(number.get(), &mut self.canonical).is_ok();
                let shown = if is_shown {
                    shown(&self.canonical)
                } else {
                    String::new()
                };
                self.refused.add(NotAllowed { reason, shown }, 1);
            }
            // Mapped again once it is defined.
            What::Pending(_) => {}
            What::Series(..) | What::Unknown => debug_assert!(false, "looked up before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use wal::{Store, StoreOptions};

    use super::*;

    #[test]
    fn an_outcome_holds_for_its_labels_and_its_record_only() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 64 << 10,
            ring_bytes: 64 << 10,
            series_chunk_bytes: 1 << 20,
            series_max: 10,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let table = store.series().guard();
        let labels = labels::canonical(&[("__name__", "up")]);
        let mut new = [NewSeries {
            hash: table.hash(&labels),
            labels: &labels,
            series: SeriesRef::NONE,
        }];
        table.define(&mut new).unwrap();
        let (series, record) = (new[0].series, table.record(new[0].series));
        let mut derived = Derived::default();
        derived.remember(3, 7, What::Series(series, record));
        assert_eq!(derived.known(3, 7, &table), What::Series(series, record));
        assert_eq!(derived.known(3, 8, &table), What::Unknown, "other labels");
        assert_eq!(derived.known(2, 7, &table), What::Unknown);
        assert_eq!(derived.known(99, 7, &table), What::Unknown);
        derived.remember(3, 7, What::Series(series, record + 1));
        assert_eq!(derived.known(3, 7, &table), What::Unknown, "another record");
        derived.remember(3, 7, What::Series(SeriesRef::new(5), 0));
        assert_eq!(derived.known(3, 7, &table), What::Unknown, "no such series");
        derived.remember(3, 7, What::Dropped(2));
        assert_eq!(derived.known(3, 7, &table), What::Dropped(2));
    }
}
