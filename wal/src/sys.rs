//! Wraps the memory that needs `unsafe`: the ring, read-only maps, and lazily backed arrays.
//!
//! The only file of the workspace that may use `unsafe` outside tests. Each type carries the promise
//! that makes it sound.
#![expect(
    unsafe_code,
    reason = "raw memory shared between threads; see each type"
)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crossbeam::epoch::{self, Atomic, Guard, Owned, Shared};
use memmap2::{Mmap, MmapMut, MmapOptions, UncheckedAdvice};
use parking_lot::Mutex;

/// A ring of anonymous memory that writers fill and the committer empties.
///
/// Promise: a [`RingRange`] is handed out for disjoint ranges only (`writer.rs` does so under its
/// mutex), is written by its one owner, and read only after the tracker says it is complete; it is
/// not handed out again before the committer has released it.
#[derive(Debug)]
pub(crate) struct Ring {
    start: NonNull<u8>,
    mask: u64,
    /// Bytes from the start on that may have memory behind them.
    touched: AtomicU64,
    memory: MmapMut,
}

/// Of an idle ring so much stays.
const KEPT_BYTES: u64 = 1 << 20;
/// So much is given back at a time: that takes a fraction of a millisecond.
const GIVEN_BACK_BYTES: u64 = 1 << 20;

// SAFETY: all access goes through `write` and `read`, whose ranges never overlap in time; see the
// type's promise.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

/// The right to write `bytes` bytes from `position` (counted from the ring's start) on, once.
#[derive(Debug)]
pub(crate) struct RingRange {
    position: u64,
    bytes: u64,
}

impl RingRange {
    /// Claims a range. Only the reservation in `writer.rs` may call this.
    pub(crate) const fn claim(position: u64, bytes: u64) -> Self {
        Self { position, bytes }
    }
}

impl Ring {
    /// # Errors
    /// What the system said to the mapping.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        assert!(
            bytes.is_power_of_two(),
            "ring size is validated to be a power of two"
        );
        let mut memory = MmapMut::map_anon(bytes)?;
        let start = NonNull::new(memory.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            mask: bytes as u64 - 1,
            touched: AtomicU64::new(0),
            memory,
        })
    }

    /// The first so many bytes were used since it began at its start.
    pub(crate) fn used(&self, bytes: u64) {
        if bytes > self.touched.load(Ordering::Relaxed) {
            self.touched.store(bytes, Ordering::Relaxed);
        }
    }

    /// Gives the memory beyond the first [`KEPT_BYTES`] back to the system, a part at a time. Nothing may
    /// be in the ring: the caller holds the reservation, and everything appended is durable.
    pub(crate) fn give_back(&self) {
        let touched = self.touched.load(Ordering::Relaxed);
        if touched <= KEPT_BYTES {
            return;
        }
        let from = touched.min(self.bytes()).saturating_sub(GIVEN_BACK_BYTES);
        let from = from.max(KEPT_BYTES) & !(GIVEN_BACK_BYTES - 1);
        let index = usize::try_from(from).unwrap_or(usize::MAX);
        let len = self.ring_len() - index;
        // SAFETY: nobody reads or writes the range now, and what is read before it is written again
        // is not part of any frame: it reads as zeros.
        let given = unsafe {
            self.memory
                .unchecked_advise_range(UncheckedAdvice::DontNeed, index, len)
        };
        if given.is_ok() {
            self.touched.store(from, Ordering::Relaxed);
        }
    }

    /// Bytes that may have memory behind them.
    #[cfg(test)]
    pub(crate) fn touched_bytes(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// Bytes the ring holds.
    pub(crate) const fn bytes(&self) -> u64 {
        self.mask + 1
    }

    /// Copies `bytes` to `offset` inside a claimed range.
    pub(crate) fn write(&self, range: &RingRange, offset: u64, bytes: &[u8]) {
        assert!(
            offset + bytes.len() as u64 <= range.bytes,
            "write beyond the claimed range"
        );
        let at = self.index(range.position + offset);
        let first = bytes.len().min(self.ring_len() - at);
        let (head, rest) = bytes.split_at(first);
        // SAFETY: `at` is inside the ring.
        let start = unsafe { self.start.add(at) };
        // SAFETY: `at + first <= ring length`; the range is this owner's alone.
        unsafe { start.copy_from_nonoverlapping(slice_start(head), head.len()) }
        // SAFETY: wraps to the start; `rest` is shorter than the claimed range, which fits the ring.
        unsafe {
            self.start
                .copy_from_nonoverlapping(slice_start(rest), rest.len());
        }
    }

    /// The completed bytes `[position, position + bytes)`, in up to two parts. The committer calls
    /// this for what the tracker says is complete and it has not released yet.
    pub(crate) fn parts(&self, position: u64, bytes: u64) -> [(usize, usize); 2] {
        assert!(bytes <= self.bytes(), "read beyond the ring");
        let at = self.index(position);
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let first = len.min(self.ring_len() - at);
        [(at, first), (0, len - first)]
    }

    /// The bytes of one part.
    pub(crate) fn part(&self, (at, len): (usize, usize)) -> &[u8] {
        assert!(at + len <= self.ring_len(), "read beyond the ring");
        // SAFETY: inside the ring.
        let start = unsafe { self.start.add(at) };
        // SAFETY: inside the ring; complete, so nobody writes it until it is released.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    fn ring_len(&self) -> usize {
        usize::try_from(self.bytes()).unwrap_or(usize::MAX)
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position & self.mask).unwrap_or(usize::MAX)
    }
}

fn slice_start(bytes: &[u8]) -> NonNull<u8> {
    NonNull::from(bytes).cast()
}

/// A completed part of the ring that the kernel reads while io_uring writes it out.
#[derive(Debug)]
pub(crate) struct RingPart {
    pub(crate) ring: Arc<Ring>,
    pub(crate) part: (usize, usize),
}

// SAFETY: the ring's memory does not move and lives as long as the Arc; the bytes are complete.
unsafe impl tokio_uring::buf::IoBuf for RingPart {
    fn stable_ptr(&self) -> *const u8 {
        self.ring.part(self.part).as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.part.1
    }

    fn bytes_total(&self) -> usize {
        self.part.1
    }
}

/// Maps a whole file read-only.
///
/// Promise: the log never shrinks a file, and never writes below a watermark that readers respect.
///
/// # Errors
/// What the system said.
pub(crate) fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: see the promise above. Another process is kept out by the store's lock, or reads
    // (`inspect`) what it found to check, which its owner never writes again.
    unsafe { Mmap::map(file) }
}

/// Lets go of the memory behind a read-only map of a file: what is asked for again comes back from the
/// page cache.
pub(crate) fn let_go(map: &Mmap) {
    // SAFETY: the map is of a file and nobody writes through it, so its pages come back as they were.
    let advised = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
    // Only a hint: without it the dead stay in memory until the kernel wants it.
    drop(advised);
}

/// A zeroed array of atomics whose pages take memory only once touched.
#[derive(Debug)]
pub(crate) struct LazyArray {
    start: NonNull<AtomicU32>,
    len: usize,
    _memory: MmapMut,
}

// SAFETY: only shared references to atomics are handed out.
unsafe impl Send for LazyArray {}
// SAFETY: as above.
unsafe impl Sync for LazyArray {}

impl LazyArray {
    /// # Errors
    /// What the system said to the reservation of address space.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let bytes = len * size_of::<AtomicU32>();
        let mut memory = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        let start = NonNull::new(memory.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start: start.cast(),
            len,
            _memory: memory,
        })
    }

    /// The elements.
    pub(crate) const fn as_slice(&self) -> &[AtomicU32] {
        // SAFETY: page-aligned, zeroed (a valid AtomicU32), `len` elements long, and only ever
        // accessed through atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// A place for a value that readers use while its owner takes it away.
///
/// Promise: what [`EpochCell::get`] returned stays valid as long as its guard, because `take` leaves
/// dropping it to the collector.
#[derive(Debug)]
pub(crate) struct EpochCell<T>(Atomic<T>);

impl<T: Send + Sync + 'static> EpochCell<T> {
    pub(crate) fn empty() -> Self {
        Self(Atomic::null())
    }

    /// The value, for as long as the guard is held.
    #[inline]
    pub(crate) fn get<'g>(&self, guard: &'g Guard) -> Option<&'g T> {
        let shared = self.0.load(Ordering::Acquire, guard);
        // SAFETY: null or put by `put`, and not dropped before all guards of its time are gone.
        unsafe { shared.as_ref() }
    }

    /// Puts a value into an empty cell.
    pub(crate) fn put(&self, value: T) {
        let guard = epoch::pin();
        let before = self.0.swap(Owned::new(value), Ordering::AcqRel, &guard);
        assert!(before.is_null(), "the cell is empty");
    }

    /// Empties the cell; the value is dropped when no guard of this time is left, on any thread.
    pub(crate) fn take(&self) {
        let guard = epoch::pin();
        let value = self.0.swap(Shared::null(), Ordering::AcqRel, &guard);
        if !value.is_null() {
            // SAFETY: it is in no cell any more and this is the only place that destroys it.
            unsafe { guard.defer_destroy(value) }
        }
        guard.flush();
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the cell; what it holds is in no other.
        drop(unsafe { std::mem::take(&mut self.0).try_into_owned() });
    }
}

/// What the handler of SIGBUS says; null before there is a store.
static BUS_MESSAGE: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Lets the process end with one clear line when a mapped file in `dir` cannot be read (a series chunk,
/// or one without a name): a bad sector, or a file that somebody has cut. The next start reads with
/// plain calls, which answer with an error instead, and recovers the rest.
pub(crate) fn explain_bus_errors(dir: &Path) {
    static DIRS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut dirs = DIRS.lock();
    let dir = dir.display().to_string();
    if dirs.contains(&dir) {
        return;
    }
    dirs.push(dir);
    let message = format!(
        "error: a mapped file (of series, or one without a name) in {} cannot be read (SIGBUS): the \
         device fails or the file was cut; the next start recovers what can be read\n",
        dirs.join(" or ")
    );
    // Never freed: the handler may be reading the one before.
    BUS_MESSAGE.store(Box::into_raw(Box::new(message)), Ordering::Release);
    if dirs.len() == 1 {
        // SAFETY: a zeroed sigaction is a valid one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = end_with_bus_message;
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: the handler only does what is allowed in one.
        let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        if set != 0 {
            tracing::warn!("cannot handle SIGBUS: a bad sector ends the process without a message");
        }
    }
}

extern "C" fn end_with_bus_message(_: libc::c_int) {
    let message = BUS_MESSAGE.load(Ordering::Acquire);
    // SAFETY: null, or a string that is never freed nor changed.
    if let Some(message) = unsafe { message.as_ref() } {
        // SAFETY: write(2) is allowed in a signal handler; the bytes are the string's.
        unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    }
    // SAFETY: allowed in a signal handler.
    unsafe { libc::_exit(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wraps_around_the_ring_is_read_back_in_two_parts() {
        let ring = Ring::new(1 << 16).unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        for start in [0, (1 << 16) - 50, (5 << 16) - 1, (1 << 40) + 7] {
            let range = RingRange::claim(start, 200);
            ring.write(&range, 0, &bytes[..120]);
            ring.write(&range, 120, &bytes[120..]);
            let read = ring.parts(start, 200).map(|part| ring.part(part).to_vec());
            assert_eq!(read.concat(), bytes, "from {start}");
        }
    }

    #[test]
    #[should_panic(expected = "beyond the claimed range")]
    fn writing_beyond_the_claimed_range_is_a_bug() {
        let ring = Ring::new(1 << 16).unwrap();
        ring.write(&RingRange::claim(0, 8), 4, &[0; 8]);
    }
}
