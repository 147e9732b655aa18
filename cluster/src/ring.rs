//! Turns the names of agents into the owner of every key.
//!
//! Each name has [`TOKENS`] places on the circle of all 64-bit numbers; a key belongs to the name whose
//! place is the next one at or after it. Who agrees about the names agrees about every key, without a word.
//!
//! # Invariants
//! - The places of a name depend on nothing but the name: who comes takes keys, who goes leaves keys, and
//!   no key moves between two who stay.
//! - Two names at the same place: the smaller name is first there.

use std::hash::Hasher;
use std::sync::Arc;

use twox_hash::XxHash64;

/// Places of each name.
pub const TOKENS: usize = 512;

/// The places of a name, in the order they are drawn.
///
/// An XXH64 state of seed 0 takes the name, then one byte at a time, counting; each of its digests on the
/// way is a place.
fn tokens(name: &str) -> impl Iterator<Item = u64> {
    let mut state = XxHash64::with_seed(0);
    state.write(name.as_bytes());
    (0..=u8::MAX).cycle().take(TOKENS).map(move |count| {
        state.write(&[count]);
        state.finish()
    })
}

/// Who owns what.
#[derive(Debug, Default)]
pub struct Ring {
    names: Vec<Arc<str>>,
    /// Places and the index of the name each belongs to, in their order.
    places: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring of these names; one that comes twice counts once.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut names: Vec<Arc<str>> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let mut places = Vec::with_capacity(names.len().saturating_mul(TOKENS));
        for (name, index) in names.iter().zip(0..) {
            places.extend(tokens(name).map(|token| (token, index)));
        }
        // Indexes are in the order of the names.
        places.sort_unstable();
        Self { names, places }
    }

    /// The owner of `key`; none where nobody is.
    #[must_use]
    pub fn owner(&self, key: u64) -> Option<&Arc<str>> {
        let at = self.places.partition_point(|(token, _)| *token < key);
        let (_, index) = self.places.get(at).or_else(|| self.places.first())?;
        self.names.get(usize::try_from(*index).ok()?)
    }

    /// Each name and how much of all keys is its own; together 1.
    #[must_use]
    pub fn shares(&self) -> Vec<(Arc<str>, f64)> {
        let mut widths = vec![0_u128; self.names.len()];
        // The first place reaches back over zero to the last one.
        let mut before = self.places.last().map_or(0, |(token, _)| *token);
        for (token, index) in &self.places {
            let width = match token.wrapping_sub(before) {
                // The only place there is.
                0 if self.places.len() == 1 => 1 << 64,
                width => u128::from(width),
            };
            if let Some(sum) = usize::try_from(*index)
                .ok()
                .and_then(|at| widths.get_mut(at))
            {
                *sum += width;
            }
            before = *token;
        }
        let all = 2.0_f64.powi(64);
        let shares = widths.iter().map(|width| *width as f64 / all);
        self.names.iter().cloned().zip(shares).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(names: &[&str]) -> Ring {
        Ring::new(names.iter().map(|name| Arc::from(*name)))
    }

    fn hash(text: &str) -> u64 {
        XxHash64::oneshot(0, text.as_bytes())
    }

    /// Computed by the formula with another implementation of the hash (Python's `xxhash`).
    #[test]
    fn places_are_those_of_the_formula() {
        for (name, want) in [
            (
                "a",
                [
                    0xe513_e02c_9916_7f96,
                    0xc084_c209_1ef0_3bc9,
                    0x754d_75ce_c337_dae0,
                    0x4839_32d9_ed59_e9de,
                    0x857b_9b53_ae5a_3fea,
                ],
            ),
            (
                "node-1",
                [
                    0x8285_c688_22be_c59a_u64,
                    0xb965_569b_efb3_1f56,
                    0xa8ee_e9a7_971b_b91c,
                    0x70ed_1d3a_368e_12cc,
                    0x7de2_ad3f_47d2_2bc9,
                ],
            ),
            (
                "penstock-0.penstock-cluster",
                [
                    0xd598_64e3_4e38_d474,
                    0x6f89_d3fa_8dbe_2db1,
                    0xf292_7276_8402_981e,
                    0xb0d5_fb6d_c5a5_f2f3,
                    0x9e2d_aba6_270a_e4c4,
                ],
            ),
        ] {
            let all: Vec<u64> = tokens(name).collect();
            assert_eq!(all.len(), TOKENS);
            let found = [0, 1, 255, 256, 511].map(|at| all[at]);
            assert_eq!(found, want, "{name}");
        }
    }

    /// As above.
    #[test]
    fn owners_are_those_of_the_formula() {
        let ring = ring(&["node-3", "node-1", "node-2"]);
        let owner = |key| &**ring.owner(key).unwrap();
        for (key, want) in [
            (hash(""), "node-1"),
            (hash("a"), "node-1"),
            (hash("target-1"), "node-1"),
            (hash("target-2"), "node-1"),
            (hash("up{job=x}"), "node-3"),
            (0, "node-2"),
            (1, "node-2"),
            (1 << 63, "node-3"),
            (u64::MAX, "node-2"),
            // At a place, and right behind it.
            (0x0028_f388_32f1_d85b, "node-2"),
            (0x0028_f388_32f1_d85c, "node-1"),
            (0x002b_edde_8895_a634, "node-1"),
            (0x002b_edde_8895_a635, "node-2"),
            // The last place, and over the end.
            (0xfff7_e053_d1a1_84a5, "node-2"),
        ] {
            assert_eq!(owner(key), want, "{key:#x}");
        }
        let mut counts = [0; 3];
        for number in 0..1000_u64 {
            let name = owner(hash(&number.to_string()));
            counts[usize::from(name.as_bytes()[5] - b'1')] += 1;
        }
        assert_eq!(counts, [322, 354, 324]);
    }

    #[test]
    fn shares_are_those_of_the_formula_and_add_up() {
        let shares = ring(&["node-1", "node-2", "node-3"]).shares();
        let want = [0.317_289_885, 0.348_093_163, 0.334_616_952];
        for ((name, share), want) in shares.iter().zip(want) {
            assert!((share - want).abs() < 1e-9, "{name}: {share}");
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        let alone = ring(&["x"]).shares();
        assert!((alone[0].1 - 1.0).abs() < 1e-12);
        assert!(ring(&[]).shares().is_empty());
    }

    #[test]
    fn nobody_owns_a_key_of_an_empty_ring() {
        assert_eq!(ring(&[]).owner(7), None);
        assert_eq!(ring(&["x", "x"]).owner(7).map(|name| &**name), Some("x"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Only keys of who comes or goes move, and those are about one in N.
        #[test]
        fn who_comes_takes_its_share_and_nothing_else_moves(
            count in 1_usize..20,
            salt in any::<u32>(),
            keys in proptest::collection::vec(any::<u64>(), 500),
        ) {
            let name = |number: usize| Arc::<str>::from(format!("node-{salt}-{number}"));
            let before = Ring::new((0..count).map(name));
            let after = Ring::new((0..=count).map(name));
            let newcomer = name(count);
            let mut moved = 0;
            for key in &keys {
                let (old, new) = (before.owner(*key).unwrap(), after.owner(*key).unwrap());
                if old != new {
                    prop_assert_eq!(new, &newcomer);
                    moved += 1;
                }
            }
            // 512 places of each: the share of one differs from 1/N by some 5 %; with what 500 keys vary by.
            let fair = keys.len() as f64 / (count as f64 + 1.0);
            prop_assert!(f64::from(moved) < fair * 1.3 + 5.0 * fair.sqrt(), "{moved} of {fair}");
            let share = after.shares().into_iter().find(|(name, _)| *name == newcomer).unwrap().1;
            prop_assert!((share * (count as f64 + 1.0) - 1.0).abs() < 0.3, "{share}");
        }
    }
}
