//! Turns the first series of a run into what is remembered of it.
//!
//! # Invariants
//! - `bytes` is what all slots take, and never more than the limit. A bit per series comes on top.
//!
//! # Limits
//! - A hand goes round and removes what was not used since it was there last. Lookups move it
//!   ([`STEP_PRICE`]), so slowly that a round takes some thirty intervals: targets that are scraped
//!   rarely keep their templates. It is faster where there is no room, yet slow enough that series too
//!   many for the cache do not push each other out before they are used again: as many as fit stay.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use wal::SeriesRef;

use super::fragment::Fragment;

/// What a hit and a miss pay for the way of the hand, and what it costs to the next slot in use: with
/// hits only, a round takes as many intervals as it takes hits for a step.
const HIT_PAYS: usize = 8;
const MISS_PAYS: usize = 2;
const STEP_PRICE: usize = 256;
/// The same where something found no room.
const STEP_PRICE_FULL: usize = 64;

/// Of a word of `starts`.
const BITS: usize = u64::BITS as usize;

/// What a slot takes beside its template: itself and its entry in the map, twice because both grow
/// by doubling.
pub(super) const SLOT_BYTES: usize = 2 * (size_of::<Option<Slot>>() + 16);

/// A run that is sent without encoding it again.
#[derive(Debug)]
pub(super) struct Template {
    /// The series; empty if their refs follow each other.
    pub(super) refs: Box<[SeriesRef]>,
    pub(super) fragment: Fragment,
    /// A hash of the labels.
    pub(super) labels_hash: u64,
    /// The generation of refs for which the labels are known to be those.
    pub(super) generation: Option<u64>,
}

impl Template {
    fn heap_bytes(&self) -> usize {
        self.fragment.heap_bytes() + size_of_val(&*self.refs)
    }
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

    pub(super) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    pub(super) fn template_mut(&mut self) -> Option<&mut Template> {
        self.template.as_mut()
    }

    /// This sequence was seen, and is not known to be worth a template.
    pub(super) fn saw(&mut self, sequence: u64) {
        self.sighting = Some(sequence);
        self.is_refused = false;
        self.is_recent = true;
    }

    fn bytes(&self) -> usize {
        SLOT_BYTES + self.template.as_ref().map_or(0, Template::heap_bytes)
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
    bytes: usize,
    bytes_max: usize,
    hand: usize,
    paid: usize,
    /// Something found no room since the hand removed something.
    is_full: bool,
    evicted: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            by_first: HashMap::default(),
            starts: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            bytes_max,
            hand: 0,
            paid: 0,
            is_full: false,
            evicted: 0,
        }
    }

    /// Memory taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
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
                self.bytes += SLOT_BYTES;
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

    /// Keeps a template, instead of the one that its slot has. False if there is no room.
    pub(super) fn keep(&mut self, first: SeriesRef, template: Template) -> bool {
        self.drop_template(first);
        if self.slot(first).is_none() || !self.has_room(template.heap_bytes()) {
            return false;
        }
        self.bytes += template.heap_bytes();
        if let Some(slot) = self.find(first) {
            slot.template = Some(template);
            slot.is_recent = true;
            slot.was_nan = false;
            slot.sighting = None;
        }
        self.set_start(first);
        true
    }

    /// Forgets the template that begins with this series.
    pub(super) fn drop_template(&mut self, first: SeriesRef) {
        let template = self.find(first).and_then(|slot| slot.template.take());
        self.unset_start(first);
        self.bytes -= template.map_or(0, |template| template.heap_bytes());
    }

    /// Whether so many more bytes fit.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        let has_room = self.bytes + bytes <= self.bytes_max;
        self.is_full |= !has_room;
        has_room
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
        self.bytes -= slot.bytes();
        self.evicted += u64::from(slot.template.is_some());
        self.free.push(at);
        self.is_full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE_BYTES: usize = 100;

    fn series(number: u32) -> SeriesRef {
        SeriesRef::new(number)
    }

    fn template() -> Template {
        Template {
            refs: Box::new([]),
            fragment: Fragment {
                bytes: vec![0; TEMPLATE_BYTES].into(),
                places: Box::new([]),
                plain_bytes: 0,
            },
            labels_hash: 0,
            generation: None,
        }
    }

    #[test]
    fn bytes_are_those_of_what_is_kept() {
        let mut cache = Cache::new(1 << 20);
        assert!(cache.keep(series(1), template()));
        assert!(cache.keep(series(1), template()), "instead of the other");
        assert!(cache.slot(series(2)).is_some());
        assert_eq!(cache.bytes(), 2 * SLOT_BYTES + TEMPLATE_BYTES);
        cache.drop_template(series(1));
        assert_eq!(cache.bytes(), 2 * SLOT_BYTES);
        assert!(!cache.is_start(series(1)));
    }

    #[test]
    fn what_is_not_used_for_long_is_removed() {
        let mut cache = Cache::new(1 << 20);
        for number in 0..10 {
            assert!(cache.keep(series(number), template()));
        }
        let intervals_per_round = STEP_PRICE / HIT_PAYS;
        for interval in 0..3 * intervals_per_round {
            (1..10).for_each(|number| cache.hit(series(number)));
            let is_kept = cache.is_start(series(0));
            assert!(is_kept || interval >= intervals_per_round, "{interval}");
        }
        assert!(!cache.is_start(series(0)));
        assert!((1..10).all(|number| cache.is_start(series(number))));
        assert_eq!(cache.evicted(), 1);
        assert_eq!(cache.bytes(), 9 * (SLOT_BYTES + TEMPLATE_BYTES));
    }

    #[test]
    fn too_many_runs_in_turn_leave_those_that_fit() {
        let mut cache = Cache::new(100 * (SLOT_BYTES + TEMPLATE_BYTES));
        let mut hits = 0;
        for interval in 0..50 {
            for number in (0..200).map(series) {
                if cache.is_start(number) {
                    cache.hit(number);
                    hits += u32::from(interval >= 40);
                } else {
                    cache.miss();
                    cache.keep(number, template());
                }
            }
        }
        assert!(hits >= 900, "{hits} of 2000, and half would fit");
        assert!(cache.bytes() <= 100 * (SLOT_BYTES + TEMPLATE_BYTES));
    }
}
