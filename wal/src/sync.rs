//! Turns the completed part of the ring into durable bytes and wakes who waits for them.
//!
//! Group commit: while one sync is in flight, everything that arrives goes with the next, which waits a
//! little for those that were answered just now and send again (`gather`). Runs as a task of an ingest
//! shard on io_uring, or as a thread where that is forbidden; the steps are the same code, only
//! [`CommitIo`] differs.
//!
//! # Invariants
//! - Series records are synced before the first frame that may name them is written.
//! - Segments are written and synced oldest first; `durable` moves only after the sync of all of them.
//!
//! # Failure
//! After a failed write or sync nothing may be assumed of what it covered, and a second sync of the
//! same file may succeed without having written it. So the file is sealed where it was last known to
//! be durable, its descriptor is never used again, and the frames, which are still in the ring, go to
//! a fresh file of the same segment. Series records go to a fresh chunk in the same way. Where that
//! fails too the store stalls: appends are refused, waiters get [`Error::Full`], what is durable goes
//! on being read, and it is tried again every [`RETRY`] until the device works.
//!
//! Only what cannot be written again poisons the store: series records that the failed device has
//! already taken back.
//!
//! # Threads
//! `durable` has this one writer (Release); readers load it with Acquire.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::chunk::Chunk;
use crate::frame::{FrameHeader, Stamp};
use crate::fs::{Disk, DiskFile};
use crate::gather::{Gather, Waiting};
use crate::header::FILE_HEADER_BYTES;
use crate::segment::{Begin, FileKey, Segment};
use crate::series::SeriesTable;
use crate::stats::StoreStats;
use crate::store::{Shared, Stall};
use crate::sys::RingPart;
use crate::{Error, Mark, Position};

/// `statfs`, `f_type`: ext4 and those before it (`linux/magic.h`).
const EXT4_MAGIC: rustix::fs::FsWord = 0xef53;
/// Between two tries of a device that fails.
const RETRY: Duration = Duration::from_millis(500);

/// How the committer reaches the disk.
trait CommitIo {
    /// Writes one completed part of the ring.
    async fn write(&mut self, segment: &Segment, part: RingPart, offset: u64) -> io::Result<()>;
    /// Makes durable what was written to the segment.
    async fn sync_written(&mut self, segment: &Segment) -> io::Result<()>;
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

    async fn sync_written(&mut self, segment: &Segment) -> io::Result<()> {
        self.disk.sync(&segment.file)
    }

    async fn sync(&mut self, file: &DiskFile) -> io::Result<()> {
        self.disk.sync(file)
    }
}

/// The io_uring engine; keeps a descriptor of the file in use.
///
/// Each call is work for one of the kernel's threads, and waking that, and being woken by it, is a good
/// part of what a commit costs. So on ext4 the descriptor is one whose writes are durable when they return
/// (`O_DSYNC`, the same as fdatasync behind each): one call and not two. Other file systems (xfs, btrfs) take
/// buffered writes at once, on the thread that asks, which would then wait for the device itself.
#[derive(Debug, Default)]
struct UringIo {
    open: Option<Writable>,
}

#[derive(Debug)]
struct Writable {
    key: FileKey,
    file: UringFile,
    /// Whether a write is durable when it returns.
    is_synced: bool,
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

/// The same file once more, with writes that are durable when they return. By descriptor: its name may
/// lead elsewhere by now.
fn synced_file(file: &File) -> io::Result<File> {
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    let durably = OFlags::DSYNC.bits().cast_signed();
    OpenOptions::new()
        .write(true)
        .custom_flags(durably)
        .open(itself)
}

/// Whether a write to this descriptor is durable when it returns. Asked of the system: an acknowledgement
/// depends on it.
fn is_synced(file: &File) -> bool {
    rustix::fs::fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DSYNC))
}

impl Writable {
    fn open(segment: &Segment) -> io::Result<Self> {
        let file = segment.file.file();
        let is_ext4 = rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type == EXT4_MAGIC);
        // None where there is no /proc.
        let synced = is_ext4.then(|| synced_file(file).ok()).flatten();
        let file = match synced {
            Some(synced) => synced,
            None => file.try_clone()?,
        };
        Ok(Self {
            key: segment.key(),
            is_synced: is_synced(&file),
            file: UringFile(tokio_uring::fs::File::from_std(file)),
        })
    }
}

impl UringIo {
    fn writable(&mut self, segment: &Segment) -> io::Result<&Writable> {
        let key = segment.key();
        let open = match self.open.take().filter(|open| open.key == key) {
            Some(open) => open,
            None => Writable::open(segment)?,
        };
        Ok(self.open.insert(open))
    }
}

impl CommitIo for UringIo {
    async fn write(&mut self, segment: &Segment, part: RingPart, offset: u64) -> io::Result<()> {
        let file = &self.writable(segment)?.file.0;
        file.write_all_at(part, offset).await.0
    }

    async fn sync_written(&mut self, segment: &Segment) -> io::Result<()> {
        let writable = self.writable(segment)?;
        match writable.is_synced {
            true => Ok(()),
            false => writable.file.0.sync_data().await,
        }
    }

    async fn sync(&mut self, file: &DiskFile) -> io::Result<()> {
        uring_file(file.file())?.sync_data().await
    }
}

/// Writes and syncs what writers complete; there is one per store.
#[derive(Debug)]
pub struct Committer {
    shared: Arc<Shared>,
    gather: Gather,
    /// What the last commit could not write.
    failed: Option<Failed>,
}

/// What needs a fresh file.
#[derive(Debug)]
enum Failed {
    Segment(u64),
    Chunk(Arc<Chunk>),
}

fn gone(id: u64) -> Error {
    Error::Poisoned(format!("segment {id} is gone while it is written"))
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            gather: Gather::default(),
            failed: None,
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
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
            .enable_time()
            .build()
            .map_err(Error::io("start a runtime for", &self.shared.dir))?;
        let completed = self.shared.tracker.completed();
        if completed > self.shared.durable.load(Ordering::Acquire) {
            runtime.block_on(self.commit_or_stall(&mut io, completed))?;
        }
        self.shared.check_open()?;
        self.roll_over_if_wanted();
        Ok(self.shared.durable_position())
    }

    async fn run(mut self, mut io: impl CommitIo) {
        loop {
            let closing = self.shared.is_closing();
            let appended = self.appended();
            let completed = self.shared.tracker.completed();
            if completed > self.shared.durable.load(Ordering::Acquire) {
                if !closing && self.waits_for_more(appended).await {
                    continue;
                }
                let result = self.commit_or_stall(&mut io, completed).await;
                let now = self.shared.clock.monotonic();
                self.gather.committed((appended, self.appended()), now);
                if let Err(error) = result {
                    if closing || error.is_poisoned() {
                        tracing::error!(%error, "what was not acknowledged is not kept");
                        break;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            } else if closing && completed == self.shared.tracker.head() {
                break;
            } else {
                self.roll_over_if_wanted();
                self.shared.commit_wanted.notified().await;
            }
        }
    }

    /// Requests appended so far.
    fn appended(&self) -> u64 {
        self.shared.stats.appends.load(Ordering::Relaxed)
    }

    /// Waits for the next request, or no longer, if so many are not enough for a commit; whether it did.
    async fn waits_for_more(&mut self, appended: u64) -> bool {
        let durable = self.shared.durable.load(Ordering::Acquire);
        let waiting = Waiting {
            appended,
            bytes: self.shared.tracker.head().saturating_sub(durable),
            ring_bytes: self.shared.ring.bytes(),
        };
        let Some(wait) = self.gather.wait(waiting, self.shared.clock.monotonic()) else {
            return false;
        };
        let next = self.shared.commit_wanted.notified();
        if tokio::time::timeout(wait, next).await.is_err() {
            self.gather.give_up();
        }
        true
    }

    /// Makes everything before `completed` durable, in fresh files if need be.
    ///
    /// # Errors
    /// The device takes nothing now: the store is stalled, and the next call tries again.
    async fn commit_or_stall(
        &mut self,
        io: &mut impl CommitIo,
        completed: u64,
    ) -> Result<(), Error> {
        // What failed the last time and could not be replaced then must not be used again.
        let mut result = self.replace_failed();
        if result.is_ok() {
            result = self.commit(io, completed).await;
            if let (Err(error), true) = (&result, self.failed.is_some()) {
                tracing::error!(%error, "a commit failed: going on in a fresh file");
                result = match self.replace_failed() {
                    Ok(()) => self.commit(io, completed).await,
                    Err(error) => Err(error),
                };
            }
        }
        match &result {
            Ok(()) => self.shared.set_stall(Stall::Commit, None),
            Err(error) if error.is_poisoned() => self.shared.poison(error.to_string()),
            Err(error) => self
                .shared
                .set_stall(Stall::Commit, Some(error.to_string())),
        }
        result
    }

    /// Makes fresh files for what failed.
    fn replace_failed(&mut self) -> Result<(), Error> {
        match self.failed.take() {
            None => Ok(()),
            Some(Failed::Chunk(chunk)) => {
                let rescued = self.shared.series.rescue(&chunk);
                if rescued.is_err() {
                    self.failed = Some(Failed::Chunk(chunk));
                }
                rescued
            }
            Some(Failed::Segment(id)) => self.continue_segment(id).inspect_err(|_| {
                self.failed = Some(Failed::Segment(id));
            }),
        }
    }

    /// Goes on in the next segment although this one has room, if the keeper wants that and nothing
    /// is under way.
    fn roll_over_if_wanted(&mut self) {
        if !self.shared.roll_wanted.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.roll_over() {
            tracing::warn!(%error, "cannot roll over early");
        }
    }

    /// Nothing can be appended meanwhile: one small write and its sync.
    fn roll_over(&mut self) -> Result<(), Error> {
        let Shared {
            segments,
            clock,
            disk,
            ..
        } = &*self.shared;
        let mut reserve = self.shared.reserve.lock();
        let at = Position::new(reserve.head);
        let id = segments.id_of(at);
        let segment = segments.get(id).ok_or_else(|| gone(id))?;
        let is_idle = self.shared.durable_position() == at && at > segment.first();
        if !is_idle || reserve.salt_of(id + 1).is_err() {
            return Ok(());
        }
        let stamp = Stamp {
            durable: at,
            appended_ms: clock.unix_ms(),
        };
        let end = FrameHeader::end(at, segment.header.salt, reserve.records, stamp).encode();
        if segment.end().bytes_since(at) >= end.len() as u64 {
            let written = disk
                .write_all_at(&segment.file, &end, segment.offset_of(at))
                .and_then(|()| disk.sync(&segment.file));
            if let Err(source) = written {
                self.failed = Some(Failed::Segment(id));
                drop(reserve);
                self.replace_failed()?;
                return Err(Error::io("end", segment.file.path())(source));
            }
        }
        let head = segment.end().plus(FILE_HEADER_BYTES as u64).get();
        self.shared.skip_to(&mut reserve, head);
        drop(reserve);
        segments.give_back_rest(&segment, at.plus(end.len() as u64));
        Ok(())
    }

    /// Lets a segment go on in a fresh file from the durable watermark on.
    fn continue_segment(&self, id: u64) -> Result<(), Error> {
        let Shared {
            segments, clock, ..
        } = &*self.shared;
        let failed = segments.get(id).ok_or_else(|| gone(id))?;
        let position = self.shared.durable_position().max(failed.first());
        let fresh = segments.prepare(Begin {
            id,
            generation: failed.header.generation + 1,
            salt: failed.header.salt,
            previous_end: Some(Mark {
                position,
                records: 0,
            }),
            now_ms: clock.unix_ms(),
        })?;
        let (from, to) = (failed.file.path().display(), fresh.file.path().display());
        tracing::warn!(%from, %to, %position, "the segment goes on in a fresh file");
        if failed.header.generation > 0 && failed.first() == position {
            // Nothing in it was ever durable. Kept, every try of a bad device would cost a file.
            segments.remove(&failed)?;
        }
        Ok(())
    }

    /// Makes everything before `completed` durable; on failure what is durable until then is.
    async fn commit(&mut self, io: &mut impl CommitIo, completed: u64) -> Result<(), Error> {
        let start = self.shared.clock.monotonic();
        self.sync_series(io).await?;
        let segments = &self.shared.segments;
        let mut from = self.shared.durable.load(Ordering::Acquire);
        while from < completed {
            let id = from / segments.segment_bytes();
            let segment = segments.get(id).ok_or_else(|| gone(id))?;
            let to = completed.min(segment.end().get());
            let first = from.max(segment.first().get());
            if first < to {
                let mut written = self.write_range(io, &segment, first..to).await;
                if written.is_ok() {
                    let synced = io.sync_written(&segment).await;
                    written = synced.map_err(Error::io("sync", segment.file.path()));
                }
                if written.is_err() {
                    self.failed = Some(Failed::Segment(id));
                }
                written?;
                StoreStats::add(&self.shared.stats.written_bytes, to - first);
            }
            self.shared.advance_durable(to);
            from = to;
        }
        let took = self.shared.clock.monotonic() - start;
        self.shared.stats.sync_seconds.observe(took);
        StoreStats::add(&self.shared.stats.commits, 1);
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

    /// Syncs the chunks that hold records not yet synced.
    async fn sync_series(&mut self, io: &mut impl CommitIo) -> Result<(), Error> {
        let series = &self.shared.series;
        while let Some(unsynced) = series.next_unsynced() {
            let file = &unsynced.chunk.file;
            if let Err(source) = io.sync(file).await {
                self.failed = Some(Failed::Chunk(unsynced.chunk.clone()));
                return Err(Error::io("sync", file.path())(source));
            }
            SeriesTable::synced(unsynced);
        }
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.committer_ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_durable_writes_gets_them_and_nobody_else() {
        let file = tempfile::tempfile().unwrap();
        assert!(is_synced(&synced_file(&file).unwrap()));
        assert!(!is_synced(&file));
        assert!(!is_synced(&file.try_clone().unwrap()));
    }
}
