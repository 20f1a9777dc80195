//! How many seats each priority level has: its own by its shares, and what levels lend and borrow. Pure.

/// A level as it is configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Out of the sum of all.
    pub shares: u32,
    /// Of its own seats, how many others may take, in percent.
    pub lendable_percent: u32,
    /// Of its own seats, how many more it may take; `None`: all that there are.
    pub borrowing_percent: Option<u32>,
}

/// The seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// Its own.
    pub nominal: u32,
    /// What it keeps in any case.
    pub lower: u32,
    /// What it never exceeds.
    pub upper: u32,
}

/// The seats of all levels, of so many that the server has.
pub fn divide(total: u32, claims: &[Claim]) -> Vec<Seats> {
    let sum = claims.iter().map(|claim| u64::from(claim.shares)).sum::<u64>().max(1);
    let of = |claim: &Claim| {
        let nominal = (u64::from(total) * u64::from(claim.shares)).div_ceil(sum) as u32;
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let upper = claim.borrowing_percent.map_or(total.max(nominal), |more| nominal.saturating_add(percent(more)));
        Seats { nominal, lower: nominal.saturating_sub(percent(claim.lendable_percent)), upper }
    };
    claims.iter().map(of).collect()
}

/// How many seats each level may take now, given how many it wanted of late. Who wants little lends; what is lent goes to who wants more.
pub fn lend(seats: &[Seats], wanted: &[u32]) -> Vec<u32> {
    let total: u32 = seats.iter().map(|seats| seats.nominal).sum();
    let floor = |seats: &Seats, wanted: u32| seats.lower.max(wanted.min(seats.nominal));
    let at = |factor: f64| -> Vec<u32> {
        let given = |(seats, wanted): (&Seats, &u32)| {
            let floor = floor(seats, *wanted);
            let target = f64::from(floor.max(*wanted).max(1)) * factor;
            (target.floor() as u32).clamp(floor, seats.upper.max(floor))
        };
        seats.iter().zip(wanted).map(given).collect()
    };
    let sum = |limits: &[u32]| limits.iter().map(|limit| u64::from(*limit)).sum::<u64>();
    // The largest factor that all together can be served with.
    let (mut low, mut high) = (0.0, f64::from(total.max(1)) + 1.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if sum(&at(middle)) <= u64::from(total) { low = middle } else { high = middle }
    }
    at(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Claim {
        Claim { shares, lendable_percent, borrowing_percent }
    }

    #[test]
    fn shares_are_upstreams() {
        // The suggested levels on a server of 600 seats.
        let claims =
            [(5, 0), (20, 50), (10, 0), (40, 25), (30, 33), (40, 50), (100, 90), (0, 0)].map(|(shares, lend)| claim(shares, lend, None));
        let seats = divide(600, &claims);
        let nominal: Vec<u32> = seats.iter().map(|seats| seats.nominal).collect();
        assert_eq!(nominal, [13, 49, 25, 98, 74, 98, 245, 0]);
        assert_eq!((seats[6].lower, seats[6].upper, seats[0].lower), (24, 600, 13));
        assert_eq!(divide(600, &[claim(1, 50, Some(20))]), [Seats { nominal: 600, lower: 300, upper: 720 }]);
    }

    #[test]
    fn who_wants_more_gets_what_others_do_not_use() {
        let seats = divide(100, &[claim(1, 50, None), claim(1, 50, Some(20))]);
        assert_eq!(lend(&seats, &[0, 0]), [50, 50]);
        let busy = lend(&seats, &[200, 0]);
        assert!(busy[0] >= 74 && busy[1] >= 25, "{busy:?}");
        let other = lend(&seats, &[0, 200]);
        assert_eq!(other[1], 60, "its bound");
        assert_eq!(lend(&seats, &[200, 200]), [50, 50], "nobody lends what it wants itself");
    }

    proptest! {
        #[test]
        fn nobody_loses_what_it_keeps(
            levels in proptest::collection::vec((0u32..100, 0u32..=100, proptest::option::of(0u32..300), 0u32..1000), 1..9)
        ) {
            let claims: Vec<Claim> = levels.iter().map(|(shares, lend, borrow, _)| claim(*shares, *lend, *borrow)).collect();
            let wanted: Vec<u32> = levels.iter().map(|(_, _, _, wanted)| *wanted).collect();
            let seats = divide(600, &claims);
            let limits = lend(&seats, &wanted);
            let total: u32 = seats.iter().map(|seats| seats.nominal).sum();
            prop_assert!(limits.iter().sum::<u32>() <= total);
            for ((seats, limit), wanted) in seats.iter().zip(&limits).zip(&wanted) {
                prop_assert!(*limit >= seats.lower && *limit <= seats.upper.max(seats.nominal));
                prop_assert!(*limit >= (*wanted).min(seats.nominal), "a level has its own when it wants it");
            }
        }
    }
}
