//! Learns templates from paths, and keeps what users type out of them.
//!
//! Reads: paths that the target answered. Yields: one template for all paths that differ in their values only. Costs: a
//! look-up walks the path once and allocates nothing; memory has a budget ([`super::budget`]).
//!
//! A segment is a fixed part of a template if it is a word of APIs ([`super::words`]), and a parameter otherwise, from its
//! first sight. Another word becomes a fixed part when the target has shown that it is one: in [`LEARNED`] answered
//! requests, with [`NEIGHBOURS`] different values beside it, in a place where few different words are seen and no new one was
//! lately. There are two such places:
//!
//! - behind a value (`/users/17/frobs`): the values before it differ;
//! - at the beginning, for a plural before a value that is one by its form (`/api/frobs/17`): the values behind it differ.
//!
//! Nowhere else: behind a collection (`/users/alice`) stands a name. Where more than [`WORDS`] words were seen, words are
//! values, and stay parameters for as long as the place is used. Words are learned from left to right, [`DEEPEST`] at most in
//! a path: so a series changes its name once for each of them, and once back where that was an error.
//! What was not seen for [`AGE`] is forgotten.

use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use super::budget::Share;
use super::segment::{Kind, classify};
use super::words::{Parent, is_learnable, is_plural, is_word};
use super::{Route, Source};

/// Answered requests that make a word, and those that the place saw since its last new word.
pub(super) const LEARNED: u32 = 100;
/// Different values beside a word.
pub(super) const NEIGHBOURS: u32 = 16;
/// Different words of a place.
pub(super) const WORDS: u32 = 16;
/// Learned words in one template.
const DEEPEST: usize = 2;
/// Segments; what is behind them is `{*rest}`.
const DEPTH: usize = 12;
/// Places where words are learned.
const PLACES: usize = 64;
/// What was not seen for so long is forgotten, and looked for so often.
const AGE: u64 = 24 * 3600 * SECOND;
const AGING: u64 = 3600 * SECOND;
/// A template that was not used for so long makes room for another one; a place for another place.
const IDLE: u64 = 60 * SECOND;
const IDLE_PLACE: u64 = 600 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// What an entry costs beside its text.
const ENTRY: usize = 96;

/// What the learner took up and gave up; goes up only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Words that became fixed parts.
    pub words: u64,
    /// Words that were not seen for a day.
    pub aged_words: u64,
    /// Places whose words turned out to be values.
    pub opened_places: u64,
    /// Words that found no place to be learned in.
    pub refused_places: u64,
    /// Templates that made room.
    pub reclaimed_routes: u64,
    /// Requests whose template found no room.
    pub refused_routes: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Learner {
    templates: FxHashMap<Arc<str>, Template>,
    /// By the template of what stands before it.
    places: FxHashMap<Box<str>, Place>,
    /// The template of the path at hand.
    template: String,
    share: Share,
    pub(super) counts: Learned,
    next_aging: u64,
    /// Before that there is nothing to reclaim.
    next_reclaim: u64,
    next_place: u64,
}

#[derive(Debug)]
struct Template {
    route: Route,
    used: u64,
}

#[derive(Debug, Default)]
struct Place {
    words: Vec<Word>,
    /// A bit for each hash of a word that was ever seen.
    seen: u128,
    /// Requests since the last new word.
    quiet: u32,
    /// Words are values here.
    open: bool,
    used: u64,
}

#[derive(Debug)]
struct Word {
    text: Box<str>,
    requests: u32,
    /// A bit for each hash of a value beside it.
    beside: u64,
    learned: bool,
    used: u64,
}

/// What a word is in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Learned,
    /// It may yet be learned.
    Candidate,
    /// It will not.
    Value,
}

impl Learner {
    pub(super) fn sharing(share: Share) -> Self {
        Self { share, ..Self::default() }
    }

    /// Templates known.
    pub(super) fn len(&self) -> usize {
        self.templates.len()
    }

    /// The route of a path, where its template is known. `answered`: the target showed that the path is one of its own.
    pub(super) fn find(&mut self, path: &[u8], answered: bool, now: u64) -> Option<Route> {
        if now >= self.next_aging {
            self.age(now);
        }
        self.walk(path, answered, now);
        let template = self.templates.get_mut(self.template.as_str())?;
        template.used = now;
        Some(template.route.clone())
    }

    /// Takes up the template that was looked for last and not found; `None` where there is no room.
    pub(super) fn take_up(&mut self, now: u64) -> Option<Route> {
        let bytes = self.template.len() + ENTRY;
        while !self.share.take(bytes) {
            if !self.reclaim(now, IDLE) {
                return None;
            }
        }
        let template: Arc<str> = self.template.as_str().into();
        let route = Route { template: Arc::clone(&template), source: Source::Learned };
        self.templates.insert(template, Template { route: route.clone(), used: now });
        Some(route)
    }

    /// Gives up the template that was not used for longest, if that is `idle` ns or more.
    pub(super) fn reclaim(&mut self, now: u64, idle: u64) -> bool {
        if idle > 0 && now < self.next_reclaim {
            return false;
        }
        let oldest = self.templates.iter().min_by_key(|(_, template)| template.used);
        let Some((name, used)) = oldest.map(|(name, template)| (Arc::clone(name), template.used)) else { return false };
        if now.saturating_sub(used) < idle {
            self.next_reclaim = used.saturating_add(idle);
            return false;
        }
        self.templates.remove(&name);
        self.share.give(name.len() + ENTRY);
        self.counts.reclaimed_routes += 1;
        true
    }

    /// The same for any template that was not used for a minute.
    pub(super) fn reclaim_idle(&mut self, now: u64) -> bool {
        self.reclaim(now, IDLE)
    }

    /// Leaves the path's template in [`Self::template`].
    fn walk(&mut self, path: &[u8], answered: bool, now: u64) {
        self.template.clear();
        let (mut parent, mut before, mut learned, mut settled) = (Parent::Namespace, &b""[..], 0, true);
        let mut segments = segments(path).enumerate().peekable();
        while let Some((index, segment)) = segments.next() {
            if index == DEPTH {
                self.template.push_str("/{*rest}");
                return;
            }
            let kind = if is_word(segment, parent) { None } else { Some(classify(segment, index == 0)) };
            let standing = match kind {
                None => Standing::Learned,
                Some(Some(_)) => Standing::Value,
                Some(None) => {
                    let next = segments.peek().map(|(_, next)| *next);
                    let may = settled && learned < DEEPEST;
                    let beside = self.beside(segment, parent, before, next).filter(|_| may);
                    beside.map_or(Standing::Value, |beside| self.standing(segment, beside, answered, now))
                }
            };
            settled &= standing != Standing::Candidate;
            self.template.push('/');
            match (standing, kind) {
                (Standing::Learned, _) => {
                    self.template.extend(segment.iter().map(|byte| char::from(*byte)));
                    learned += usize::from(kind.is_some());
                    parent = parent.after(segment);
                }
                (_, Some(Some(Kind::Locale))) if index == 0 => self.template.push_str(Kind::Locale.template()),
                (_, kind) => {
                    let kind = kind.flatten().unwrap_or(Kind::Param);
                    self.template.push_str(kind.template());
                    parent = Parent::Value;
                }
            }
            before = segment;
        }
        if self.template.is_empty() {
            self.template.push('/');
        }
    }

    /// The hash of the value beside a word that could be learned where it stands.
    fn beside(&self, word: &[u8], parent: Parent, before: &[u8], next: Option<&[u8]>) -> Option<u64> {
        let value = match parent {
            Parent::Value => before,
            Parent::Namespace if is_plural(word) => next.filter(|next| {
                let kind = classify(next, false);
                !is_word(next, Parent::Bearing) && matches!(kind, Some(Kind::Id | Kind::Uuid | Kind::Hash | Kind::Date))
            })?,
            _ => return None,
        };
        is_learnable(word).then(|| hash(value))
    }

    /// What a word is in the place behind [`Self::template`], after this sight of it.
    fn standing(&mut self, word: &[u8], beside: u64, answered: bool, now: u64) -> Standing {
        let Self { places, template, share, counts, .. } = self;
        let Some(place) = places.get_mut(template.as_str()) else {
            return if answered && self.admit_place(now) {
                self.standing(word, beside, answered, now)
            } else {
                Standing::Value
            };
        };
        let known = place.words.iter_mut().find(|known| known.text.as_bytes() == word);
        if !answered {
            return match known {
                Some(known) if known.learned => Standing::Learned,
                Some(_) => Standing::Candidate,
                None => Standing::Value,
            };
        }
        place.used = now;
        if place.open {
            return Standing::Value;
        }
        place.quiet = place.quiet.saturating_add(1);
        if let Some(known) = known {
            known.used = now;
            known.requests = known.requests.saturating_add(1);
            known.beside |= 1 << (beside % 64);
            let ripe = known.requests >= LEARNED && known.beside.count_ones() >= NEIGHBOURS;
            if !known.learned && ripe && place.quiet >= LEARNED {
                known.learned = true;
                counts.words += 1;
            }
            return if known.learned { Standing::Learned } else { Standing::Candidate };
        }
        place.quiet = 0;
        place.seen |= 1 << (hash(word) % 128);
        if place.seen.count_ones() > WORDS || place.words.len() >= WORDS as usize {
            place.open = true;
            counts.opened_places += 1;
            share.give(place.words.iter().map(Word::bytes).sum());
            place.words = Vec::new();
            return Standing::Value;
        }
        let text = String::from_utf8_lossy(word).into();
        let word = Word { text, requests: 1, beside: 1 << (beside % 64), learned: false, used: now };
        if !share.take(word.bytes()) {
            counts.refused_places += 1;
            return Standing::Value;
        }
        place.words.push(word);
        Standing::Candidate
    }

    #[cold]
    fn admit_place(&mut self, now: u64) -> bool {
        if self.places.len() >= PLACES && now >= self.next_place {
            let oldest = self.places.iter().min_by_key(|(_, place)| place.used);
            let oldest = oldest.map(|(name, place)| (name.clone(), place.used));
            match oldest {
                Some((name, used)) if now.saturating_sub(used) >= IDLE_PLACE => self.forget_place(&name),
                Some((_, used)) => self.next_place = used.saturating_add(IDLE_PLACE),
                None => {}
            }
        }
        if self.places.len() >= PLACES || !self.share.take(self.template.len() + ENTRY) {
            self.counts.refused_places += 1;
            return false;
        }
        self.places.insert(self.template.as_str().into(), Place { used: now, ..Place::default() });
        true
    }

    fn forget_place(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.share.give(name.len() + ENTRY + place.words.iter().map(Word::bytes).sum::<usize>());
        }
    }

    /// Forgets what was not seen for a day.
    #[cold]
    fn age(&mut self, now: u64) {
        self.next_aging = now.saturating_add(AGING);
        let Self { templates, places, share, counts, .. } = self;
        let old = |used: u64| now.saturating_sub(used) >= AGE;
        templates.retain(|name, template| {
            let keep = !old(template.used);
            if !keep {
                share.give(name.len() + ENTRY);
                counts.reclaimed_routes += 1;
            }
            keep
        });
        places.retain(|name, place| {
            place.words.retain(|word| {
                let keep = !old(word.used);
                if !keep {
                    share.give(word.bytes());
                    counts.aged_words += u64::from(word.learned);
                }
                keep
            });
            let keep = !old(place.used);
            if !keep {
                share.give(name.len() + ENTRY + place.words.iter().map(Word::bytes).sum::<usize>());
            }
            keep
        });
    }
}

impl Word {
    fn bytes(&self) -> usize {
        self.text.len() + ENTRY
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish() >> 32
}

/// Segments of a path; empty ones name nothing.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty())
}

#[cfg(test)]
#[path = "learner_tests.rs"]
mod tests;
