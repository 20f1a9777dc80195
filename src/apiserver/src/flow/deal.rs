//! Shuffle sharding: a flow is dealt a hand of queues, so that it shares all of them with few others. Pure.

/// The queues that a flow may wait in: `hand` different numbers below `deck`, always the same for one hash.
pub fn deal(hash: u64, deck: u32, hand: u32) -> impl Iterator<Item = u32> {
    let hand = hand.min(deck) as usize;
    let mut dealt = Vec::with_capacity(hand);
    let mut rest = hash;
    for taken in 0..hand as u32 {
        let left = u64::from(deck - taken);
        // Below `deck`, which is a u32.
        let mut card = (rest % left) as u32;
        rest /= left;
        // The card's number among those that are left becomes its number among all.
        let mut sorted: Vec<u32> = dealt.clone();
        sorted.sort_unstable();
        for lower in sorted {
            card += u32::from(card >= lower);
        }
        dealt.push(card);
    }
    dealt.into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_different_cards(hash in any::<u64>(), deck in 1u32..200, hand in 0u32..12) {
            let mut cards: Vec<u32> = deal(hash, deck, hand).collect();
            prop_assert_eq!(cards.len(), hand.min(deck) as usize);
            prop_assert!(cards.iter().all(|card| *card < deck));
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), hand.min(deck) as usize);
        }
    }

    #[test]
    fn all_cards_are_dealt_alike() {
        let mut seen = [0u32; 16];
        for hash in 0..16_000u64 {
            deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 16, 4).for_each(|card| seen[card as usize] += 1);
        }
        assert!(seen.iter().all(|count| (3600..4400).contains(count)), "{seen:?}");
    }
}
