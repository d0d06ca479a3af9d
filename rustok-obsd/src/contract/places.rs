//! Which services have a name of their own in a recorder; all others are `~other`.
//!
//! Reads: the names of targets, and whose they are. Yields: a place for a name, or none. Costs: a look-up by the name when
//! a target comes or goes; a walk over all names once a second, and only while a target waits for a place.
//!
//! Nobody can fill the places for others. A quarter is kept for users that are trusted. The rest is shared by the users that
//! are not, by the rule of [`crate::budget`]: one of them alone gets half of it. A place whose last target ended
//! [`KEPT`] ago goes to who waits for one: by then its last values were scraped. What Prometheus sees then: the series
//! of that service end, as those of a target that went.

use super::recorder::Behind;
use super::series::OTHER;
use crate::budget::{Budget, Store};
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// The service of exchanges whose target is not known.
pub(super) const UNKNOWN_SERVICE: &str = "unknown_service";
/// Places beside those that are counted: `~other` and [`UNKNOWN_SERVICE`].
pub(super) const FIXED: usize = 2;
/// A service keeps its place so long after its last target ended.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// Between two times that places are given to others: each makes all series anew.
const SELDOM: Duration = Duration::from_secs(60);

struct Place {
    index: usize,
    behind: Behind,
    targets: usize,
    /// When its last target ended.
    left: Option<Instant>,
}

impl Place {
    fn is_left(&self, now: Instant) -> bool {
        self.targets == 0 && self.left.is_some_and(|left| now.saturating_duration_since(left) >= KEPT)
    }
}

/// The places of one recorder.
pub(super) struct Places {
    most: usize,
    places: FxHashMap<String, Place>,
    /// What users that are not trusted hold.
    strangers: Budget,
    /// A target found no place since the last time that places were given to others.
    wanted: bool,
    given: Option<Instant>,
}

impl Places {
    /// So many, and those that are fixed.
    pub(super) fn new(most: usize) -> Self {
        let strangers = Budget::with_limit(Store::Series, most - most / 4);
        Self { most, places: FxHashMap::default(), strangers, wanted: false, given: None }
    }

    /// Index of the service of a name that has a place.
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.index)
    }

    /// Index of the service of a name, or of `~other`; else the name that is to be given a place.
    pub(super) fn seat<'a>(&mut self, name: &'a str, behind: Behind) -> Result<usize, &'a str> {
        if let Some(index) = self.get(name) {
            return Ok(index);
        }
        let name = if self.may_have(name, behind) { name } else { OTHER };
        self.get(name).ok_or(name)
    }

    /// Whether a name that has no place may have one; where not, somebody waits from now on.
    pub(super) fn may_have(&mut self, name: &str, behind: Behind) -> bool {
        if is_fixed(name) {
            return true;
        }
        let counted = self.places.keys().filter(|name| !is_fixed(name)).count();
        let fits = counted < self.most
            && match behind {
                Behind::Trusted => true,
                Behind::Stranger(user) => self.strangers.charge(user, 1),
            };
        self.wanted |= !fits;
        fits
    }

    /// Gives a name the place that it may have.
    pub(super) fn give(&mut self, name: &str, index: usize, behind: Behind) {
        // Nobody was there yet, and nobody may come.
        let left = Some(Instant::now());
        self.places.insert(name.to_owned(), Place { index, behind, targets: 0, left });
    }

    /// The user that a service is charged to, if it is not a trusted one's.
    pub(super) fn user(&self, name: &str) -> Option<u32> {
        self.places.get(name)?.behind.user().filter(|_| !is_fixed(name))
    }

    /// A target of this name began. True: the service is a trusted user's from now on.
    pub(super) fn join(&mut self, name: &str, behind: Behind) -> bool {
        let Some(place) = self.places.get_mut(name) else { return false };
        place.targets += 1;
        if behind == Behind::Trusted
            && let Behind::Stranger(user) = place.behind
            && !is_fixed(name)
        {
            place.behind = behind;
            self.strangers.release(user, 1);
            return true;
        }
        false
    }

    /// A target of this name ended.
    pub(super) fn leave(&mut self, name: &str) {
        if let Some(place) = self.places.get_mut(name) {
            place.targets = place.targets.saturating_sub(1);
            if place.targets == 0 {
                place.left = Some(Instant::now());
            }
        }
    }

    /// Somebody waits for a place, and one can be given.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wanted
            && self.given.is_none_or(|given| now.saturating_duration_since(given) >= SELDOM)
            && self.places.iter().any(|(name, place)| !is_fixed(name) && place.is_left(now))
    }

    /// Gives up what was left, and numbers the rest anew, in this order. No target counts: each is to join again.
    pub(super) fn renew(&mut self, now: Instant) -> Vec<String> {
        (self.given, self.wanted) = (Some(now), false);
        let mut kept = Vec::new();
        for (name, mut place) in std::mem::take(&mut self.places) {
            if !is_fixed(&name) && place.is_left(now) {
                if let Behind::Stranger(user) = place.behind {
                    self.strangers.release(user, 1);
                }
                continue;
            }
            place.targets = 0;
            kept.push((name, place));
        }
        kept.sort_unstable_by_key(|(_, place)| place.index);
        let names = kept.iter().map(|(name, _)| name.clone()).collect();
        for (index, (name, place)) in kept.into_iter().enumerate() {
            self.places.insert(name, Place { index, ..place });
        }
        names
    }
}

fn is_fixed(name: &str) -> bool {
    name == OTHER || name == UNKNOWN_SERVICE
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOG: Behind = Behind::Stranger(1000);
    const OTHER_USER: Behind = Behind::Stranger(1001);

    /// Names of one user that find a place, of so many; each has a target.
    fn fill(places: &mut Places, prefix: &str, behind: Behind, count: usize) -> usize {
        let names = (0..count).map(|number| format!("{prefix}{number}"));
        let admit = |name: &String| {
            let fits = places.may_have(name, behind);
            if fits {
                places.give(name, 0, behind);
                places.join(name, behind);
            }
            fits
        };
        names.filter(admit).count()
    }

    #[test]
    fn users_that_are_not_trusted_have_shares_and_a_quarter_is_kept_for_those_that_are() {
        let mut places = Places::new(128);
        assert_eq!(fill(&mut places, "hog", HOG, 500), 48, "half of three quarters");
        assert_eq!(fill(&mut places, "other", OTHER_USER, 500), 24, "half of what is left of them");
        assert_eq!(
            (2000..3000).map(|user| fill(&mut places, &user.to_string(), Behind::Stranger(user), 100)).sum::<usize>(),
            23
        );
        assert_eq!(fill(&mut places, "trusted", Behind::Trusted, 500), 33);
        assert!(places.may_have(UNKNOWN_SERVICE, HOG) && places.may_have(OTHER, HOG), "fixed");
    }

    #[test]
    fn a_name_that_a_trusted_user_has_as_well_is_none_of_the_others_share() {
        let mut places = Places::new(8);
        assert_eq!(fill(&mut places, "hog", HOG, 100), 3);
        assert!(places.join("hog0", Behind::Trusted) && !places.join("hog0", Behind::Trusted));
        assert_eq!((places.user("hog0"), places.user("hog1")), (None, Some(1000)));
        assert_eq!(fill(&mut places, "more", HOG, 100), 1);
    }

    #[test]
    fn what_was_left_long_ago_is_given_to_who_waits_and_not_sooner() {
        let (mut places, start) = (Places::new(4), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(fill(&mut places, "old", Behind::Trusted, 10), 4);
        ["old1", "old2"].iter().for_each(|name| places.leave(name));
        assert!(!places.is_due(at(599)) && places.is_due(at(601)), "somebody waits since old4");
        assert_eq!(places.renew(at(601)).len(), 2);
        assert!(places.get("old1").is_none() && places.get("old0").is_some());
        assert!(!places.is_due(at(10_000)), "nobody waits any more");
        assert_eq!(fill(&mut places, "new", Behind::Trusted, 3), 2);
        assert!(!places.is_due(at(602)), "not that often");
    }
}
