//! Turns the completed part of the ring into durable bytes and wakes who waits for them.
//!
//! Group commit without a timer: while one sync is in flight, everything that arrives goes with the
//! next. Runs as a task of an ingest shard on io_uring, or as a thread where that is forbidden; the
//! steps are the same code, only [`CommitIo`] differs.
//!
//! # Invariants
//! - Series records are synced before the first frame that may name them is written.
//! - Segments are written and synced oldest first; `durable` moves only after the sync of all of them.
//!
//! # Failure
//! A failed write or sync poisons the store: what the sync covered may or may not be on disk, so
//! nothing is acknowledged any more, every waiter gets the error, and the process is expected to end
//! and recover. The file's descriptor is not used again.
//!
//! # Threads
//! `durable` has this one writer (Release); readers load it with Acquire.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use crate::fs::{Disk, DiskFile};
use crate::header::FILE_HEADER_BYTES;
use crate::segment::Segment;
use crate::stats::StoreStats;
use crate::store::Shared;
use crate::sys::RingPart;
use crate::{Error, Position};

/// How the committer reaches the disk.
trait CommitIo {
    /// Writes one completed part of the ring.
    async fn write(&mut self, segment: &Segment, part: RingPart, offset: u64) -> io::Result<()>;
    /// fdatasync.
    async fn sync(&mut self, file: &DiskFile) -> io::Result<()>;
}

/// The blocking engine, through the disk seam.
#[derive(Debug)]
struct PortableIo {
    disk: Arc<dyn Disk>,
}

impl CommitIo for PortableIo {
    async fn write(&mut self, segment: &Segment, part: RingPart, offset: u64) -> io::Result<()> {
        self.disk
            .write_all_at(&segment.file, part.ring.part(part.part), offset)
    }

    async fn sync(&mut self, file: &DiskFile) -> io::Result<()> {
        self.disk.sync(file)
    }
}

/// The io_uring engine; keeps the descriptor of the file in use.
#[derive(Debug, Default)]
struct UringIo {
    open: Option<(u64, UringFile)>,
}

struct UringFile(tokio_uring::fs::File);

impl std::fmt::Debug for UringFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UringFile")
    }
}

fn uring_file(file: &File) -> io::Result<tokio_uring::fs::File> {
    Ok(tokio_uring::fs::File::from_std(file.try_clone()?))
}

impl UringIo {
    fn segment_file(&mut self, segment: &Segment) -> io::Result<&tokio_uring::fs::File> {
        let id = segment.header.id;
        let file = match self.open.take() {
            Some((open, file)) if open == id => file,
            _ => UringFile(uring_file(segment.file.file())?),
        };
        Ok(&self.open.insert((id, file)).1.0)
    }
}

impl CommitIo for UringIo {
    async fn write(&mut self, segment: &Segment, part: RingPart, offset: u64) -> io::Result<()> {
        self.segment_file(segment)?
            .write_all_at(part, offset)
            .await
            .0
    }

    async fn sync(&mut self, file: &DiskFile) -> io::Result<()> {
        uring_file(file.file())?.sync_data().await
    }
}

/// Writes and syncs what writers complete; there is one per store.
#[derive(Debug)]
pub struct Committer {
    shared: Arc<Shared>,
    /// Arena offset up to which series records are synced.
    series_synced: u64,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let series_synced = shared.series.written();
        Self {
            shared,
            series_synced,
        }
    }

    /// Commits until the store is closed; call inside `tokio_uring::start`.
    pub async fn run_uring(self) {
        self.run(UringIo::default()).await;
    }

    /// Commits on a thread of its own until the store is closed.
    ///
    /// # Errors
    /// What the system said to the new thread.
    pub fn spawn_thread(self) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let disk = self.shared.disk.clone();
        thread::Builder::new()
            .name("wal-committer".to_owned())
            .spawn(move || runtime.block_on(self.run(PortableIo { disk })))
    }

    /// Commits what is complete now, blocking; for callers that drive the store by hand.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the disk failed.
    pub fn commit_now(&mut self) -> Result<Position, Error> {
        let mut io = PortableIo {
            disk: self.shared.disk.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(Error::io("start a runtime for", &self.shared.dir))?;
        let completed = self.shared.tracker.completed();
        if completed > self.shared.durable.load(Ordering::Acquire) {
            runtime
                .block_on(self.commit(&mut io, completed))
                .inspect_err(|e| {
                    self.shared.poison(e.to_string());
                })?;
        }
        self.shared.check_open()?;
        Ok(self.shared.durable_position())
    }

    async fn run(mut self, mut io: impl CommitIo) {
        loop {
            let closing = self.shared.is_closing();
            let completed = self.shared.tracker.completed();
            if completed > self.shared.durable.load(Ordering::Acquire) {
                if let Err(e) = self.commit(&mut io, completed).await {
                    tracing::error!(error = %e, "a commit failed: nothing more is acknowledged");
                    self.shared.poison(e.to_string());
                    break;
                }
            } else if closing && completed == self.shared.tracker.head() {
                break;
            } else {
                self.shared.commit_wanted.notified().await;
            }
        }
    }

    /// Makes everything before `completed` durable.
    async fn commit(&mut self, io: &mut impl CommitIo, completed: u64) -> Result<(), Error> {
        let start = self.shared.clock.monotonic();
        self.sync_series(io).await?;
        let segments = &self.shared.segments;
        let mut from = self.shared.durable.load(Ordering::Acquire);
        while from < completed {
            let id = from / segments.segment_bytes();
            let segment_end = (id + 1) * segments.segment_bytes();
            let to = completed.min(segment_end);
            let first = from.max(id * segments.segment_bytes() + FILE_HEADER_BYTES as u64);
            if first < to {
                let segment = segments.get(id).ok_or_else(|| {
                    Error::Poisoned(format!("segment {id} is gone while it is written"))
                })?;
                self.write_range(io, &segment, first..to).await?;
                let sync = io.sync(&segment.file).await;
                sync.map_err(Error::io("sync", segment.file.path()))?;
                StoreStats::add(&self.shared.stats.written_bytes, to - first);
            }
            from = to;
        }
        self.shared
            .stats
            .sync_seconds
            .observe(self.shared.clock.monotonic() - start);
        StoreStats::add(&self.shared.stats.commits, 1);
        self.shared.advance_durable(completed);
        Ok(())
    }

    /// Writes `range` of the log out of the ring.
    async fn write_range(
        &self,
        io: &mut impl CommitIo,
        segment: &Segment,
        range: std::ops::Range<u64>,
    ) -> Result<(), Error> {
        let ring = &self.shared.ring;
        let in_ring = range.start - self.shared.ring_start.load(Ordering::Acquire);
        let mut offset = range.start % segment.header.file_bytes;
        for part in ring.parts(in_ring, range.end - range.start) {
            if part.1 > 0 {
                let bytes = RingPart {
                    ring: ring.clone(),
                    part,
                };
                let written = io.write(segment, bytes, offset).await;
                written.map_err(Error::io("write", segment.file.path()))?;
                offset += part.1 as u64;
            }
        }
        Ok(())
    }

    async fn sync_series(&mut self, io: &mut impl CommitIo) -> Result<(), Error> {
        let written = self.shared.series.written();
        if written > self.series_synced {
            for chunk in self
                .shared
                .series
                .chunks_between(self.series_synced, written)
            {
                let sync = io.sync(&chunk.file).await;
                sync.map_err(Error::io("sync", chunk.file.path()))?;
            }
            self.series_synced = written;
        }
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.committer_ended();
    }
}
