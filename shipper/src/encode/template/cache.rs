//! Turns the first series of a run into what is remembered of it.
//!
//! The bytes of templates are in files (`chunks`); a slot on the heap says where.
//!
//! # Invariants
//! - `bytes` is what all slots and all files take, dead bytes included, and never more than the limit. A
//!   bit per series comes on top.
//! - Of no chunk more than a third is dead, unless there is trouble with files: what lives in it is moved, or
//!   dropped where there is no room.
//!
//! # Limits
//! - A hand goes round and removes what was not used since it was there last. Lookups move it
//!   ([`STEP_PRICE`]), so slowly that a round takes some thirty intervals: targets that are scraped
//!   rarely keep their templates. It is faster where there is no room, yet slow enough that series too
//!   many for the cache do not push each other out before they are used again: as many as fit stay.
//! - Moving takes the memory of what is moved, a chunk at most, for that moment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;

use foldhash::fast::RandomState;
use wal::SeriesRef;

use super::chunks::{Chunks, Piece};
use super::fragment::{Fragment, PLACE_BYTES};

/// What a hit and a miss pay for the way of the hand, and what it costs to the next slot in use: with
/// hits only, a round takes as many intervals as it takes hits for a step.
const HIT_PAYS: usize = 8;
const MISS_PAYS: usize = 2;
const STEP_PRICE: usize = 256;
/// The same where something found no room.
const STEP_PRICE_FULL: usize = 64;

/// Of a word of `starts`.
const BITS: usize = u64::BITS as usize;

/// A chunk of which more than one of so many bytes is dead is emptied: always, and where there is no room.
/// To move what lives takes far less than to build it.
const DEAD_ONE_OF: usize = 3;
const DEAD_ONE_OF_FULL: usize = 16;

/// Of a ref where it is kept.
const REF_BYTES: usize = 4;

/// What a slot takes beside its template: itself and its entry in the map, twice because both grow
/// by doubling.
pub(super) const SLOT_BYTES: usize = 2 * (size_of::<Option<Slot>>() + 16);

/// What a template says, wherever its bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'a> {
    /// The series, little-endian; empty if their refs follow each other.
    pub(super) refs: &'a [[u8; REF_BYTES]],
    pub(super) fragment: Fragment<'a>,
}

impl Contents<'_> {
    /// Bytes in a file.
    fn bytes(&self) -> usize {
        let parts = self.parts();
        parts.iter().map(|part| part.len()).sum()
    }

    /// As they are put; [`Template::contents`] takes them apart.
    fn parts(&self) -> [&[u8]; 3] {
        let Fragment { bytes, places, .. } = self.fragment;
        [places.as_flattened(), self.refs.as_flattened(), bytes]
    }
}

/// A run that is sent without encoding it again.
#[derive(Debug)]
pub(super) struct Template {
    piece: Piece,
    series: u32,
    refs: u32,
    plain_bytes: u32,
    /// A hash of the labels.
    pub(super) labels_hash: u64,
    /// The generation of refs for which the labels are known to be those.
    pub(super) generation: Option<u64>,
}

impl Template {
    /// What it says.
    #[inline]
    pub(super) fn contents<'c>(&self, chunks: &'c Chunks) -> Contents<'c> {
        let bytes = chunks.get(self.piece);
        let (places, bytes) = bytes.split_at(self.series as usize * PLACE_BYTES);
        let (refs, bytes) = bytes.split_at(self.refs as usize * REF_BYTES);
        Contents {
            refs: refs.as_chunks().0,
            fragment: Fragment {
                bytes,
                places: places.as_chunks().0,
                plain_bytes: self.plain_bytes,
            },
        }
    }
}

/// Why a template is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotKept {
    /// All that may be taken is taken.
    Full,
    /// There is trouble with files.
    Disk,
}

/// What is remembered of the runs that begin with one series.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) first: SeriesRef,
    /// A hash of the sequence that was seen last, if there was no template for it.
    pub(super) sighting: Option<u64>,
    /// There is no right template for that sequence.
    pub(super) is_refused: bool,
    /// The last samples did not fit because of a NaN.
    pub(super) was_nan: bool,
    /// Used, or seen, since the hand was here.
    is_recent: bool,
    template: Option<Template>,
}

impl Slot {
    fn new(first: SeriesRef) -> Self {
        Self {
            first,
            sighting: None,
            is_refused: false,
            was_nan: false,
            is_recent: true,
            template: None,
        }
    }

    /// This sequence was seen, and is not known to be worth a template.
    pub(super) fn saw(&mut self, sequence: u64) {
        self.sighting = Some(sequence);
        self.is_refused = false;
        self.is_recent = true;
    }
}

/// What is remembered of all runs.
pub(super) struct Cache {
    by_first: HashMap<SeriesRef, usize, RandomState>,
    /// A bit per ref: whether a template begins with that series. Asked for every sample that is not
    /// in a template.
    starts: Vec<u64>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    chunks: Chunks,
    slots_bytes: usize,
    bytes_max: usize,
    hand: usize,
    paid: usize,
    /// Something found no room since the hand removed something.
    is_full: bool,
    evicted: u64,
}

impl Cache {
    /// An empty one with its files in this directory.
    pub(super) fn new(dir: &Path, bytes_max: usize) -> Self {
        Self {
            by_first: HashMap::default(),
            starts: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            chunks: Chunks::new(dir, bytes_max),
            slots_bytes: 0,
            bytes_max,
            hand: 0,
            paid: 0,
            is_full: false,
            evicted: 0,
        }
    }

    /// Memory and space taken.
    pub(super) fn bytes(&self) -> usize {
        self.slots_bytes + self.file_bytes()
    }

    /// Space taken in files.
    pub(super) fn file_bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// Why there is no file for templates, if there is none.
    pub(super) fn trouble(&self) -> Option<&io::Error> {
        self.chunks.trouble()
    }

    /// Whether it is time to build a template: not every time while there is no file for it.
    pub(super) fn may_try(&mut self) -> bool {
        self.chunks.may_try()
    }

    /// Templates removed because they were not used, ever.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The slot of runs that begin with this series.
    pub(super) fn find(&mut self, first: SeriesRef) -> Option<&mut Slot> {
        let slot = self.by_first.get(&first)?;
        self.slots[*slot].as_mut()
    }

    /// The template that begins with this series, and where its bytes are.
    pub(super) fn template(&mut self, first: SeriesRef) -> Option<(&mut Template, &Chunks)> {
        let slot = self.by_first.get(&first)?;
        let template = self.slots[*slot].as_mut()?.template.as_mut()?;
        Some((template, &self.chunks))
    }

    /// Whether a template begins with this series.
    pub(super) fn is_start(&self, first: SeriesRef) -> bool {
        let word = self.starts.get(first.index() / BITS);
        word.is_some_and(|word| word >> (first.index() % BITS) & 1 != 0)
    }

    fn set_start(&mut self, first: SeriesRef) {
        let word = first.index() / BITS;
        if self.starts.len() <= word {
            self.starts.resize(word + 1, 0);
        }
        self.starts[word] |= 1 << (first.index() % BITS);
    }

    fn unset_start(&mut self, first: SeriesRef) {
        if let Some(word) = self.starts.get_mut(first.index() / BITS) {
            *word &= !(1 << (first.index() % BITS));
        }
    }

    /// The slot's template was used as it was.
    pub(super) fn hit(&mut self, first: SeriesRef) {
        if let Some(slot) = self.find(first) {
            slot.is_recent = true;
            slot.was_nan = false;
            slot.sighting = None;
        }
        self.pay(HIT_PAYS);
    }

    /// Nothing that was remembered could be used.
    pub(super) fn miss(&mut self) {
        self.pay(MISS_PAYS);
    }

    /// The slot of a run, a new one if there is none; `None` if there is no room.
    pub(super) fn slot(&mut self, first: SeriesRef) -> Option<&mut Slot> {
        if !self.by_first.contains_key(&first) && !self.has_room(SLOT_BYTES) {
            return None;
        }
        let slot = match self.by_first.entry(first) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                self.slots_bytes += SLOT_BYTES;
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    self.slots.len() - 1
                });
                self.slots[slot] = Some(Slot::new(first));
                *entry.insert(slot)
            }
        };
        self.slots[slot].as_mut()
    }

    /// Keeps a template, instead of the one that its slot has. The hash is of the labels it was built with,
    /// the generation that of the refs.
    pub(super) fn keep(
        &mut self,
        first: SeriesRef,
        contents: Contents<'_>,
        (labels_hash, generation): (u64, Option<u64>),
    ) -> Result<(), NotKept> {
        self.drop_template(first);
        if self.slot(first).is_none() || !self.make_room(contents.bytes()) {
            return Err(NotKept::Full);
        }
        let piece = self.chunks.put(&contents.parts()).ok_or(NotKept::Disk)?;
        let template = Template {
            piece,
            series: low_u32(contents.fragment.places.len()),
            refs: low_u32(contents.refs.len()),
            plain_bytes: contents.fragment.plain_bytes,
            labels_hash,
            generation,
        };
        if let Some(slot) = self.find(first) {
            slot.template = Some(template);
            slot.is_recent = true;
            slot.was_nan = false;
            slot.sighting = None;
        }
        self.set_start(first);
        Ok(())
    }

    /// Forgets the template that begins with this series.
    pub(super) fn drop_template(&mut self, first: SeriesRef) {
        let template = self.find(first).and_then(|slot| slot.template.take());
        self.unset_start(first);
        if let Some(template) = template {
            self.chunks.bury(template.piece);
            self.tidy();
        }
    }

    /// Whether so many more bytes fit.
    fn has_room(&mut self, bytes: usize) -> bool {
        let has_room = self.bytes() + bytes <= self.bytes_max;
        self.is_full |= !has_room;
        has_room
    }

    /// Whether a template of so many bytes may find room: worth building it.
    pub(super) fn may_have_room(&mut self, bytes: usize) -> bool {
        let may = self.fits(bytes) || self.sparse(DEAD_ONE_OF_FULL).is_some();
        self.is_full |= !may;
        may
    }

    fn fits(&self, bytes: usize) -> bool {
        self.bytes() + self.chunks.more_bytes(bytes) <= self.bytes_max
    }

    /// Whether there is room for a template of so many bytes, at the cost of moving others together.
    fn make_room(&mut self, bytes: usize) -> bool {
        if !self.fits(bytes)
            && let Some(chunk) = self.sparse(DEAD_ONE_OF_FULL)
        {
            self.empty(chunk);
        }
        let has_room = self.fits(bytes);
        self.is_full |= !has_room;
        has_room
    }

    /// Empties a chunk of which too much is dead.
    fn tidy(&mut self) {
        if let Some(chunk) = self.sparse(DEAD_ONE_OF) {
            self.empty(chunk);
        }
    }

    /// A chunk to empty; none while there is trouble, and thus nothing to move to.
    fn sparse(&self, one_of: usize) -> Option<usize> {
        match self.trouble() {
            Some(_) => None,
            None => self.chunks.deadest(one_of),
        }
    }

    /// Gives back the space of a chunk; its templates are moved, or dropped if there is no room.
    fn empty(&mut self, chunk: usize) {
        let mut bytes = Vec::with_capacity(self.chunks.live_bytes(chunk));
        let mut moved = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let template = slot.as_ref().and_then(|slot| slot.template.as_ref());
            if let Some(template) = template.filter(|template| template.piece.is_in(chunk)) {
                bytes.extend_from_slice(self.chunks.get(template.piece));
                moved.push((at, template.piece.len()));
            }
        }
        self.chunks.remove(chunk);
        let together_bytes = self.chunks.together_bytes();
        let (mut moved, mut bytes) = (&*moved, &*bytes);
        while let Some((_, first_len)) = moved.first() {
            let mut len = *first_len;
            let fits = |(_, next_len): &&(usize, usize)| {
                let fits = len + next_len <= together_bytes;
                len += if fits { *next_len } else { 0 };
                fits
            };
            let count = 1 + moved.iter().skip(1).take_while(fits).count();
            let (slots, now);
            (slots, moved) = moved.split_at(count);
            (now, bytes) = bytes.split_at(len);
            self.move_together(slots, now);
        }
    }

    /// Puts the bytes of some slots' templates behind each other in one call.
    fn move_together(&mut self, slots: &[(usize, usize)], bytes: &[u8]) {
        let may_put = self.fits(bytes.len()) && self.chunks.may_try();
        let mut rest = may_put.then(|| self.chunks.put(&[bytes])).flatten();
        for (at, len) in slots {
            let Some(slot) = &mut self.slots[*at] else {
                continue;
            };
            let parts = rest.map(|rest| rest.split_at(*len));
            rest = parts.map(|(_, behind)| behind);
            if let (Some((piece, _)), Some(template)) = (parts, &mut slot.template) {
                template.piece = piece;
            } else {
                slot.template = None;
                let first = slot.first;
                self.unset_start(first);
            }
        }
    }

    /// Moves the hand as far as lookups have paid for.
    fn pay(&mut self, paid: usize) {
        self.paid += paid;
        let price = if self.is_full {
            STEP_PRICE_FULL
        } else {
            STEP_PRICE
        };
        if self.paid < price || self.slots.is_empty() {
            return;
        }
        self.paid = 0;
        for _ in 0..self.slots.len() {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            match &mut self.slots[at] {
                Some(slot) if slot.is_recent => {
                    slot.is_recent = false;
                    return;
                }
                Some(_) => self.remove(at),
                None => {}
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(slot) = self.slots[at].take() else {
            return;
        };
        self.by_first.remove(&slot.first);
        self.unset_start(slot.first);
        self.slots_bytes -= SLOT_BYTES;
        self.free.push(at);
        self.is_full = false;
        if let Some(template) = slot.template {
            self.evicted += 1;
            self.chunks.bury(template.piece);
            self.tidy();
        }
    }
}

/// Of lengths that a run bounds.
fn low_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
