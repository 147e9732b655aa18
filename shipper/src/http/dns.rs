//! Turns a host name into its addresses, another one first each time.
//!
//! Many servers behind one name then all get connections; without it all go to the first address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves as the system does and rotates what it says.
#[derive(Default)]
pub(super) struct RoundRobin {
    /// Names resolved so far; shared so that it can be counted while an answer is awaited.
    turn: Arc<AtomicUsize>,
}

impl Resolve for RoundRobin {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = Arc::clone(&self.turn);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let rotated: Addrs = Box::new(rotate(found.collect(), turn).into_iter());
            Ok(rotated)
        })
    }
}

/// The addresses in an order that does not depend on the answer's, beginning with the turn's.
fn rotate(mut addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    if !addresses.is_empty() {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_turn_whatever_the_order_of_the_answer() {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 0));
        let answers = [[1, 2, 3], [3, 1, 2], [2, 3, 1], [2, 2, 1]];
        let firsts: Vec<_> = answers
            .iter()
            .enumerate()
            .map(|(turn, answer)| rotate(answer.map(address).to_vec(), turn)[0])
            .collect();
        assert_eq!(firsts, [1, 2, 3, 2].map(address));
        assert!(rotate(Vec::new(), 7).is_empty());
    }

    #[tokio::test]
    async fn a_name_is_resolved() {
        let name = "localhost".parse().unwrap();
        let mut found = RoundRobin::default().resolve(name).await.unwrap();
        assert!(found.any(|address| address.ip().is_loopback()));
    }
}
