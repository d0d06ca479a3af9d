//! What a scrape of all default collectors allocates once it has seen the host.

use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use rustok_obsd::host::{Host, Settings};
use std::sync::Arc;
use test_support::allocations;

#[test]
fn a_scrape_in_steady_state_allocates_for_no_sample() {
    let exposition = Exposition::new();
    exposition.register(Part::Node, Arc::new(Host::new(&Settings::default())));
    let mut scratch = Scratch::default();
    let mut scrape = || {
        let text = exposition.render_into(&mut scratch, &Scrape::default(), Format::Text, false);
        text.split(|byte| *byte == b'\n').filter(|line| line.first().is_some_and(|first| *first != b'#')).count()
    };
    for _ in 0..3 {
        scrape();
    }
    // Other threads of the test program allocate, too: the quietest scrape tells.
    let (samples, least) = (0..10)
        .map(|_| {
            let before = allocations();
            let samples = scrape();
            (samples, allocations() - before)
        })
        .min_by_key(|(_, allocated)| *allocated)
        .expect("scrapes");
    println!("{samples} samples, {least} allocations");
    assert!(samples > 300, "{samples} samples");
    assert!(least * 2 < samples as u64, "{least} allocations for {samples} samples");
}
