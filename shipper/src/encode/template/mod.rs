//! Turns runs of series that come again and again into body bytes without encoding them again.
//!
//! In steady state the same series go out in the same order every interval, and only values and
//! timestamps change. So a run of neighbouring series is kept as the snappy elements of its messages,
//! and a request is those with the samples patched in. It says, byte for byte, what the plain encoder
//! says.
//!
//! | file | turns |
//! |---|---|
//! | `cache` | the first series of a run into what is remembered of it |
//! | `chunks` | bytes of templates into pieces of files |
//! | `builder` | the series of a run into a fragment (`elements`: snappy's) |
//! | `prover` | a fragment into the certainty that it is right |
//! | `fragment` | a fragment and samples into bytes: the patch |
//! | `rounds` | series with several samples into elements: no template, and no search either |
//! | `body` | elements and plain messages into one body |
//! | `counters` | what became of runs into numbers |
//!
//! A run begins where the batch does or where the run before ends, and ends where a known one begins,
//! at a gap between refs ([`GAP_MIN`]), or at [`RUN_MAX`]. It gets a template the second time in a row
//! that the same sequence of refs is seen. A sample that does not fit (a value with more bytes, a
//! timestamp that is not its neighbour's any more) has the run built again with room for such samples,
//! for good; only a NaN is left to the plain encoder once, as stale markers are rarely followed by
//! anything.
//!
//! # Invariants
//! - No template is used that was not proved.
//! - No template is used for other labels than it was proved with: the labels are looked at again, by a
//!   64-bit hash with a random key, whenever refs may name other series (`generation`).
//! - Series with several samples in a row, also across the end of a run, are never patched into a
//!   template: they share one message (`rounds`).
//!
//! # Failure
//! - Without a file for its bytes (`chunks`) no template is kept, and everything is encoded: said once
//!   when it begins for an endpoint and once when it is over, counted as [`Miss::Disk`].
//!
//! # Limits
//! - Memory and files for templates are bounded by bytes; see `cache`. The builder and the prover keep a few
//!   hundred kilobytes, or what one run takes ([`builder::PLAIN_BYTES_MAX`]).

mod body;
mod builder;
mod cache;
mod chunks;
mod counters;
mod elements;
mod fragment;
mod prover;
mod rounds;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

pub(super) use body::Body;
use builder::Builder;
use cache::{Cache, Contents, NotKept};
pub use counters::{Miss, TemplateCounts, TemplateStats};
use foldhash::quality::RandomState;
use fragment::{Fragment, Misfit, TIMESTAMP_BYTES};
use prover::Prover;
use rounds::Rounds;
use wal::{Sample, SeriesRef};

use labels::wire::varint_len;

/// Bytes for the templates of one endpoint, nearly all in files: 1.5 million series. All its encoders share it.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 64 << 20;

/// The shortest run worth a template: the labels of the first series are never compressed.
const RUN_MIN: usize = 16;
/// The longest: an absent series, or the end of a batch, costs the whole run.
const RUN_MAX: usize = 128;
/// From so many series on a run ends at a gap between refs, which is where a target ends.
const GAP_MIN: usize = 64;

/// About what a series takes, to ask for room before a template is built.
const SERIES_BYTES: usize = 48;

/// What became of the first samples of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// So many are in the body.
    Done(usize),
    /// So many are the plain encoder's.
    Plain(usize),
}

/// The templates of one encoder.
pub(super) struct Templates {
    cache: Cache,
    builder: Builder,
    prover: Prover,
    rounds: Rounds,
    hasher: RandomState,
    stats: Arc<TemplateStats>,
    /// What the endpoint's numbers do not have yet.
    counts: TemplateCounts,
    /// What they had last.
    counted: TemplateCounts,
    /// There is no file for templates, and that was said.
    is_troubled: bool,
}

/// The labels of the series of a batch.
pub(super) struct Labels<F> {
    pub(super) of: F,
    /// The generation of refs they are of; none where templates are not to be used.
    pub(super) generation: Option<u64>,
}

impl Templates {
    pub(super) fn new(dir: &Path, bytes_max: usize, stats: Arc<TemplateStats>) -> Self {
        Self {
            cache: Cache::new(dir, bytes_max),
            builder: Builder::new(),
            prover: Prover::default(),
            rounds: Rounds::default(),
            hasher: RandomState::default(),
            stats,
            counts: TemplateCounts::default(),
            counted: TemplateCounts::default(),
            is_troubled: false,
        }
    }

    /// Puts the first samples into the body, if there is a template for them or it is time to build
    /// one. There must be a sample.
    pub(super) fn next<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        samples: &[Sample],
        labels: &Labels<F>,
        body: &mut Body,
    ) -> Result<Step, snap::Error> {
        let first = samples[0].series;
        if samples.get(1).is_some_and(|next| next.series == first) {
            return self.put_rounds(samples, labels, body);
        }
        let Some((template, chunks)) = self.cache.template(first) else {
            return self.missed(Miss::New, samples, labels, body);
        };
        let contents = template.contents(chunks);
        let Some(run) = contents.run_of(samples) else {
            return self.missed(Miss::Sequence, samples, labels, body);
        };
        if template.generation != labels.generation {
            if template.labels_hash != labels_hash(&self.hasher, run, labels) {
                self.cache.drop_template(first);
                return self.missed(Miss::New, samples, labels, body);
            }
            template.generation = labels.generation;
        }
        match put(contents.fragment, run, body)? {
            Ok(()) => {
                self.counts.hits += run.len() as u64;
                self.cache.hit(first);
                Ok(Step::Done(run.len()))
            }
            Err(misfit) => self.misfit(misfit, run, labels, body),
        }
    }

    /// The endpoint's numbers are told what happened.
    pub(super) fn count(&mut self) {
        let evicted = self.cache.evicted();
        self.counts.evicted = evicted - self.counted.evicted;
        self.counts.bytes = self.cache.bytes() as u64;
        self.counts.file_bytes = self.cache.file_bytes() as u64;
        self.stats.add(&self.counts, &self.counted);
        self.counted = std::mem::take(&mut self.counts);
        self.counted.evicted = evicted;
        self.say_trouble();
    }

    /// Says that there is no file for templates, or again: the first and the last of an endpoint's
    /// encoders do.
    fn say_trouble(&mut self) {
        let error = self.cache.trouble();
        if error.is_some() == self.is_troubled {
            return;
        }
        self.is_troubled = error.is_some();
        match error {
            Some(error) if self.stats.trouble_begins() => {
                tracing::warn!(%error, "no file for templates: requests are encoded without");
            }
            None if self.stats.trouble_ends() => tracing::info!("templates have files again"),
            _ => {}
        }
    }

    fn plain(&mut self, reason: Miss, samples: usize) -> Step {
        self.counts.miss(reason, samples);
        Step::Plain(samples)
    }

    /// The first series has several samples, and so may those behind it.
    fn put_rounds<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        samples: &[Sample],
        labels: &Labels<F>,
        body: &mut Body,
    ) -> Result<Step, snap::Error> {
        let put = self.rounds.put(samples, &labels.of, body)?;
        if put > 0 {
            self.counts.miss(Miss::Unsuited, put);
            return Ok(Step::Done(put));
        }
        let first = samples[0].series;
        let is_first = |sample: &&Sample| sample.series == first;
        Ok(self.plain(Miss::Unsuited, samples.iter().take_while(is_first).count()))
    }

    /// No template can be used: one is built if the run is what it was last time.
    fn missed<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        reason: Miss,
        samples: &[Sample],
        labels: &Labels<F>,
        body: &mut Body,
    ) -> Result<Step, snap::Error> {
        self.cache.miss();
        let run = &samples[..self.run_len(samples)];
        if run.len() < RUN_MIN || !run.iter().all(has_usual_timestamp) {
            return Ok(self.plain(Miss::Unsuited, run.len()));
        }
        let sequence = sequence_hash(&self.hasher, run);
        let Some(slot) = self.cache.slot(run[0].series) else {
            return Ok(self.plain(Miss::Full, run.len()));
        };
        if slot.sighting != Some(sequence) {
            slot.saw(sequence);
            return Ok(self.plain(reason, run.len()));
        }
        if slot.is_refused {
            return Ok(self.plain(Miss::Unsuited, run.len()));
        }
        self.build(reason, run, labels, body)
    }

    /// The samples do not fit into the run's template.
    fn misfit<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        misfit: Misfit,
        run: &[Sample],
        labels: &Labels<F>,
        body: &mut Body,
    ) -> Result<Step, snap::Error> {
        self.cache.miss();
        if !run.iter().all(has_usual_timestamp) {
            return Ok(self.plain(Miss::Unsuited, run.len()));
        }
        let reason = match misfit {
            Misfit::Values => Miss::Values,
            Misfit::Timestamps => Miss::Timestamps,
        };
        if misfit == Misfit::Values
            && let Some((template, chunks)) = self.cache.template(run[0].series)
            && template.contents(chunks).fragment.fits_but_for_nan(run)
            && let Some(slot) = self.cache.find(run[0].series)
            && !slot.was_nan
        {
            slot.was_nan = true;
            return Ok(self.plain(reason, run.len()));
        }
        self.build(reason, run, labels, body)
    }

    /// Builds, proves, keeps and uses a template, which allows what an earlier one had to.
    fn build<'a, F: Fn(SeriesRef) -> &'a [u8]>(
        &mut self,
        reason: Miss,
        run: &[Sample],
        labels: &Labels<F>,
        body: &mut Body,
    ) -> Result<Step, snap::Error> {
        let first = run[0].series;
        if run
            .iter()
            .any(|sample| (labels.of)(sample.series).is_empty())
        {
            return Ok(self.plain(Miss::Unsuited, run.len()));
        }
        if !(self.cache).may_have_room(run.len() * SERIES_BYTES) {
            return Ok(self.plain(Miss::Full, run.len()));
        }
        if !self.cache.may_try() {
            return Ok(self.plain(Miss::Disk, run.len()));
        }
        let before = self.cache.template(first);
        let before = before.map(|(template, chunks)| template.contents(chunks));
        let is_of =
            |before: &Contents<'_>| before.run_of(run).is_some_and(|of| of.len() == run.len());
        let before = before.filter(is_of).map(|before| before.fragment);
        let fragment = self.builder.build(run, &labels.of, before);
        let series = run.iter().map(|sample| sample.series);
        let is_right =
            |fragment: &Fragment<'_>| self.prover.is_right(*fragment, series, &labels.of);
        let Some(fragment) = fragment.filter(is_right) else {
            return Ok(self.refuse(run));
        };
        self.counts.built += 1;
        if put(fragment, run, body)?.is_err() {
            return Ok(self.refuse(run));
        }
        let refs = listed(run);
        let refs = &*refs;
        let of = (labels_hash(&self.hasher, run, labels), labels.generation);
        let kept = self.cache.keep(first, Contents { refs, fragment }, of);
        let is_disk = kept == Err(NotKept::Disk);
        (self.counts).miss(if is_disk { Miss::Disk } else { reason }, run.len());
        Ok(Step::Done(run.len()))
    }

    /// There is no right template for this run, and none is tried before the run changes.
    fn refuse(&mut self, run: &[Sample]) -> Step {
        self.counts.refused += 1;
        let first = run[0].series;
        self.cache.drop_template(first);
        let sequence = sequence_hash(&self.hasher, run);
        if let Some(slot) = self.cache.find(first) {
            slot.sighting = Some(sequence);
            slot.is_refused = true;
        }
        self.plain(Miss::Unsuited, run.len())
    }

    /// How many of the first samples are one run, for which there is no template.
    fn run_len(&self, samples: &[Sample]) -> usize {
        let mut len = 1;
        while len < samples.len().min(RUN_MAX) {
            let (last, next) = (samples[len - 1].series, samples[len].series);
            let is_gap = !follows(last, next);
            if is_gap && len >= GAP_MIN || last == next || self.cache.is_start(next) {
                break;
            }
            len += 1;
        }
        // the last one shares its message with what comes next
        let shares = samples
            .get(len)
            .is_some_and(|next| next.series == samples[len - 1].series);
        len - usize::from(shares)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        self.stats.add(&TemplateCounts::default(), &self.counted);
        if self.is_troubled {
            self.stats.trouble_ends();
        }
    }
}

impl Contents<'_> {
    /// The first samples, if they are of the series of this template and of no other.
    fn run_of<'s>(&self, samples: &'s [Sample]) -> Option<&'s [Sample]> {
        let (run, rest) = samples.split_at_checked(self.fragment.places.len())?;
        let is_equal = if self.refs.is_empty() {
            are_consecutive(run)
        } else {
            let refs = run.iter().map(|sample| sample.series.get().to_le_bytes());
            refs.eq(self.refs.iter().copied())
        };
        let shares = rest
            .first()
            .is_some_and(|next| next.series == run[run.len() - 1].series);
        (is_equal && !shares).then_some(run)
    }
}

/// Writes a fragment with these samples to the body, if they fit.
fn put(
    fragment: Fragment<'_>,
    run: &[Sample],
    body: &mut Body,
) -> Result<Result<(), Misfit>, snap::Error> {
    let patched = fragment.patch(run, body.room(fragment.room_bytes())?);
    if patched.is_ok() {
        body.took(fragment.element_bytes(), u64::from(fragment.plain_bytes));
    }
    Ok(patched)
}

fn has_usual_timestamp(sample: &Sample) -> bool {
    varint_len(sample.timestamp_ms.cast_unsigned()) == TIMESTAMP_BYTES
}

fn follows(series: SeriesRef, next: SeriesRef) -> bool {
    next.get() == series.get().wrapping_add(1)
}

fn are_consecutive(run: &[Sample]) -> bool {
    let first = run[0].series.get();
    // without a branch per sample
    let differences = (0_u32..)
        .zip(run)
        .map(|(number, sample)| first.wrapping_add(number) ^ sample.series.get());
    differences.fold(0, |all, difference| all | difference) == 0
}

/// The series of a run whose refs do not follow each other, as they are kept.
fn listed(run: &[Sample]) -> Vec<[u8; 4]> {
    if are_consecutive(run) {
        return Vec::new();
    }
    let refs = run.iter().map(|sample| sample.series.get().to_le_bytes());
    refs.collect()
}

fn sequence_hash(hasher: &RandomState, run: &[Sample]) -> u64 {
    let mut hasher = hasher.build_hasher();
    for sample in run {
        hasher.write_u32(sample.series.get());
    }
    hasher.finish()
}

fn labels_hash<'a, F: Fn(SeriesRef) -> &'a [u8]>(
    hasher: &RandomState,
    run: &[Sample],
    labels: &Labels<F>,
) -> u64 {
    let mut hasher = hasher.build_hasher();
    for sample in run {
        let labels = (labels.of)(sample.series);
        hasher.write_usize(labels.len());
        hasher.write(labels);
    }
    hasher.finish()
}
