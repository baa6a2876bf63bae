//! Pure: how many requests may be in flight, learned from the server's answers.
//!
//! Doubles each round until the server first complains, then grows by one a round and halves at
//! each complaint (as TCP does). Complaints of one round count once: thirty requests that were in
//! flight together all fail for the same reason.

#[derive(Clone, Debug)]
pub struct Governor {
    max: usize,
    limit: f64,
    /// No complaint yet: grow fast.
    starting: bool,
    /// Answers still to come that were sent before the last halving.
    ignored: usize,
}

/// Enough to find the server's rate within a second, few enough to be no burst.
const START: usize = 8;

impl Governor {
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        #[allow(clippy::cast_precision_loss)] // a number of connections
        let limit = START.min(max) as f64;
        Self { max, limit, starting: true, ignored: 0 }
    }

    pub fn limit(&self) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and max
        let limit = self.limit as usize;
        limit.clamp(1, self.max)
    }

    /// The server did what was asked, or refused it for a reason of the object.
    pub fn answered(&mut self) {
        self.ignored = self.ignored.saturating_sub(1);
        self.limit += if self.starting { 1.0 } else { 1.0 / self.limit };
        #[allow(clippy::cast_precision_loss)] // a number of connections
        let max = self.max as f64;
        self.limit = self.limit.min(max);
    }

    /// The server had too much (429, 5xx), or said nothing in time. Whether the limit was halved.
    pub fn overloaded(&mut self) -> bool {
        if self.ignored > 0 {
            self.ignored -= 1;
            return false;
        }
        self.ignored = self.limit().saturating_sub(1);
        self.starting = false;
        self.limit = (self.limit / 2.0).max(1.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reaches_the_maximum_and_stays_there() {
        let mut governor = Governor::new(32);
        assert_eq!(governor.limit(), 8);
        (0..100).for_each(|_| governor.answered());
        assert_eq!(governor.limit(), 32);
        assert_eq!(Governor::new(0).limit(), 1);
        assert_eq!(Governor::new(3).limit(), 3);
    }

    #[test]
    fn complaints_of_one_round_halve_once_and_growth_is_slow_afterwards() {
        let mut governor = Governor::new(64);
        (0..100).for_each(|_| governor.answered());
        let halved = (0..64).filter(|_| governor.overloaded()).count();
        assert_eq!(halved, 1);
        assert_eq!(governor.limit(), 32);
        governor.overloaded();
        assert_eq!(governor.limit(), 16);
        (0..16).for_each(|_| governor.answered());
        assert!((16..=17).contains(&governor.limit()));
        assert!((0..1000).filter(|_| governor.overloaded()).count() >= 5);
        assert_eq!(governor.limit(), 1);
    }
}
