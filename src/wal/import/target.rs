//! Turns label sets and batches into durable records of a store. All use of the store is here.
//!
//! # Failure
//! - A full ring waits for the commit and goes on. Segments are prepared ahead by another thread;
//!   if none comes for [`SEGMENT_PATIENCE`], the disk or the quota is full, and the import ends.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::{Builder, Runtime};
use wal::{
    Error, NewSeries, Position, RawRecord, Sample, SeriesRef, SharedClock, Store, StoreOptions,
    Writer,
};

/// How long a segment may take to be prepared.
const SEGMENT_PATIENCE: Duration = Duration::from_secs(10);
const SEGMENT_POLL: Duration = Duration::from_millis(5);

/// A store that is written to.
#[derive(Debug)]
pub(crate) struct Target {
    store: Store,
    writer: Writer,
    committer: JoinHandle<()>,
    clock: SharedClock,
    /// Only to wait for the committer.
    runtime: Runtime,
    appended: Position,
}

impl Target {
    /// Opens or makes the store in `dir`.
    pub(crate) fn open(dir: &Path, options: StoreOptions) -> anyhow::Result<Self> {
        let clock = options.clock.clone();
        let store = match Store::open(dir, options) {
            Err(Error::Locked { path }) => bail!(
                "{} is in use by another process: stop the agent, then import",
                path.display()
            ),
            opened => opened?,
        };
        let committer = store.committer().context("the store has no committer")?;
        let committer = committer.spawn_thread().context("start the committer")?;
        let runtime = Builder::new_current_thread().enable_time().build();
        Ok(Self {
            writer: store.writer()?,
            appended: store.watermarks().durable,
            store,
            committer,
            clock,
            runtime: runtime.context("start a runtime")?,
        })
    }

    /// The refs of these canonical label sets.
    pub(crate) fn define(&self, labels: &[&[u8]]) -> anyhow::Result<Vec<SeriesRef>> {
        let table = self.store.series();
        let new = labels.iter().map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        });
        let mut new: Vec<NewSeries<'_>> = new.collect();
        // No series is given up as long as no endpoint is named.
        table.guard().define(&mut new)?;
        Ok(new.into_iter().map(|series| series.series).collect())
    }

    /// Appends a batch.
    pub(crate) fn append(
        &mut self,
        samples: &[Sample],
        raw: &[RawRecord<'_>],
    ) -> anyhow::Result<()> {
        let start = self.clock.monotonic();
        loop {
            match self.writer.append(samples, raw) {
                Ok(position) => {
                    self.appended = self.appended.max(position);
                    return Ok(());
                }
                Err(error) if error.is_full() => {
                    if self.clock.monotonic() - start > SEGMENT_PATIENCE {
                        return Err(error.into());
                    }
                    self.commit()?;
                    // The keeper has no signal for a segment that is ready.
                    let pause = async { tokio::time::sleep(SEGMENT_POLL).await };
                    self.runtime.block_on(pause);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until everything appended is durable.
    fn commit(&self) -> anyhow::Result<()> {
        let mut durable = self.store.durable();
        Ok(self.runtime.block_on(durable.reached(self.appended))?)
    }

    /// Makes everything durable and closes the store.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let committed = self.commit();
        drop(self.writer);
        self.store.close();
        if self.committer.join().is_err() {
            bail!("the committer panicked");
        }
        committed
    }
}
