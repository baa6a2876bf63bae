//! Pure: how many objects the next page of a kind asks for.
//!
//! Large pages spare requests. But a page is held in memory as a whole, here and on the server, and
//! what the server cannot give in time with 500 objects it will not give when it is asked for the same
//! again. So a page shrinks when it is heavy, slow, refused or not answered at all, and grows back
//! when pages are light and quick.

use std::time::Duration;

/// Objects on the first page of a kind. Larger pages cost the API server memory, smaller ones requests.
const FIRST: u32 = 500;

/// What a page should weigh at most. A run holds a few at a time, so this bounds its memory.
const HEAVY: usize = 4 << 20;

/// A page that takes so long comes near to the time-out of a request.
const SLOW: Duration = Duration::from_secs(5);

/// Only pages below this grow.
const QUICK: Duration = Duration::from_secs(1);

/// What became of one request for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Page {
        bytes: usize,
        took: Duration,
    },
    /// More bytes than the client takes.
    TooLarge,
    /// The server asks for patience, or failed.
    Busy,
    /// No complete answer in time.
    Unanswered,
}

/// At least one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u32);

impl Default for PageSize {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl PageSize {
    /// Of a request for a single object, such as a head.
    pub const ONE: Self = Self(1);

    pub fn limit(self) -> u32 {
        self.0
    }

    #[must_use]
    pub fn after(self, outcome: Outcome) -> Self {
        let Self(limit) = self;
        let next = match outcome {
            Outcome::TooLarge | Outcome::Unanswered => limit / 8,
            Outcome::Busy => limit / 2,
            Outcome::Page { bytes, .. } if bytes > HEAVY => {
                // Never below one object, never more than before.
                let fits = u64::from(limit) * HEAVY as u64 / bytes as u64;
                u32::try_from(fits).unwrap_or(limit)
            }
            Outcome::Page { took, .. } if took >= SLOW => limit / 2,
            // Twice as many would still be light.
            Outcome::Page { bytes, took } if bytes <= HEAVY / 2 && took < QUICK => limit * 2,
            Outcome::Page { .. } => limit,
        };
        Self(next.clamp(1, FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_page_shrinks_with_trouble_and_grows_with_ease() {
        let page = |bytes, ms| Outcome::Page { bytes, took: Duration::from_millis(ms) };
        for (name, before, outcome, after) in [
            ("an ordinary page", 500, page(MIB, 100), 500),
            ("it never exceeds the first", 300, page(MIB, 100), 500),
            ("light and quick", 60, page(MIB, 100), 120),
            ("light, but not quick", 60, page(MIB, 2000), 60),
            ("quick, but twice as many would be heavy", 60, page(3 * MIB, 100), 60),
            ("heavy", 500, page(16 * MIB, 100), 125),
            ("a little heavy", 500, page(5 * MIB, 100), 400),
            ("heavy objects one by one", 1, page(5 * MIB, 100), 1),
            ("slow", 500, page(MIB, 6000), 250),
            ("slow and a single object", 1, page(MIB, 6000), 1),
            ("heavy and slow", 400, page(8 * MIB, 6000), 200),
            ("too large", 500, Outcome::TooLarge, 62),
            ("not answered", 500, Outcome::Unanswered, 62),
            ("not answered, and few already", 3, Outcome::Unanswered, 1),
            ("busy", 500, Outcome::Busy, 250),
            ("busy, and a single object", 1, Outcome::Busy, 1),
        ] {
            assert_eq!(PageSize(before).after(outcome), PageSize(after), "{name}");
        }
    }

    #[test]
    fn a_kind_of_the_largest_objects_settles_below_the_limit_and_comes_back() {
        let weighs = |size: PageSize, each: usize| Outcome::Page {
            bytes: size.limit() as usize * each,
            took: Duration::from_millis(100),
        };
        let mut size = PageSize::default();
        for _ in 0..20 {
            size = size.after(weighs(size, MIB));
        }
        assert!((2..=4).contains(&size.limit()), "{size:?}");
        for _ in 0..20 {
            size = size.after(weighs(size, 1024));
        }
        assert_eq!(size, PageSize::default());
    }
}
