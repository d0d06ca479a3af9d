//! Learns templates from paths.
//!
//! Reads: paths that the target knew. Yields: one template for all paths that differ in their values only. A tree with
//! one level a segment; a value goes to the child of its kind, a word to its own child, and where more than
//! [`Learner::WORDS`] words were seen in one place they become `{param}`, for good. Costs: a look-up walks the tree and
//! allocates nothing; memory is bounded by the cap on names, since each branch ends in one.

use super::segment::{Kind, classify};
use super::{Route, Source};
use rustc_hash::FxHashMap;

#[derive(Debug, Default)]
pub(super) struct Learner {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    words: FxHashMap<Box<[u8]>, Node>,
    values: Vec<(Kind, Node)>,
    /// Words are values here.
    collapsed: bool,
    /// The rest of the path is `{*rest}`.
    rest: Option<Route>,
    route: Option<Route>,
}

impl Learner {
    /// Words in one place. RusToK's `/api` has some thirty.
    const WORDS: usize = 64;
    /// Segments; what is behind them is `{*rest}`.
    const DEPTH: usize = 12;

    /// The template of a path, where it was learned.
    pub(super) fn find(&self, path: &[u8]) -> Option<&Route> {
        let mut node = &self.root;
        for (index, segment) in segments(path).enumerate() {
            if index == Self::DEPTH {
                return node.rest.as_ref();
            }
            node = match node.kind(segment, index) {
                Some(kind) => node.value(kind)?,
                None => node.words.get(segment)?,
            };
        }
        node.route.as_ref()
    }

    /// The template of a path, learned where it was not.
    pub(super) fn learn(&mut self, path: &[u8]) -> Route {
        let mut template = String::new();
        let mut node = &mut self.root;
        for (index, segment) in segments(path).enumerate() {
            template.push('/');
            if index == Self::DEPTH {
                template.push_str("{*rest}");
                return learned(&mut node.rest, &template);
            }
            if node.words.len() >= Self::WORDS
                && node.kind(segment, index).is_none()
                && !node.words.contains_key(segment)
            {
                node.collapsed = true;
                node.words = FxHashMap::default();
            }
            if let Some(kind) = node.kind(segment, index) {
                template.push_str(kind.template());
                let place = node.values.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
                    node.values.push((kind, Node::default()));
                    node.values.len() - 1
                });
                node = &mut node.values[place].1;
            } else {
                template.push_str(&String::from_utf8_lossy(segment));
                node = node.words.entry(segment.into()).or_default();
            }
        }
        if template.is_empty() {
            template.push('/');
        }
        learned(&mut node.route, &template)
    }
}

impl Node {
    /// The kind of child that a segment goes to, `None` for a word's own.
    fn kind(&self, segment: &[u8], index: usize) -> Option<Kind> {
        classify(segment, index == 0).or_else(|| self.collapsed.then_some(Kind::Param))
    }

    fn value(&self, kind: Kind) -> Option<&Self> {
        self.values.iter().find(|(known, _)| *known == kind).map(|(_, node)| node)
    }
}

fn learned(place: &mut Option<Route>, template: &str) -> Route {
    place.get_or_insert_with(|| Route { template: template.into(), source: Source::Learned }).clone()
}

/// Segments of a path; empty ones name nothing.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty())
}
