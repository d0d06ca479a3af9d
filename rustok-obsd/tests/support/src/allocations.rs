//! Counts a thread's allocations, and the bytes that it holds.
//!
//! Reads: calls of the allocator. Yields: their number, and bytes. Costs: some thread-local additions per allocation.
//!
//! ```
//! #[global_allocator]
//! static COUNTING: test_support::Counting = test_support::Counting;
//!
//! let before = test_support::allocations();
//! drop(std::hint::black_box(vec![1]));
//! assert_eq!(test_support::allocations() - before, 1);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Of this thread: the test harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// What this thread allocated less what it freed, and the most of that.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counting.
pub struct Counting;

fn count() {
    // A thread that ends may allocate after its locals are gone.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

fn hold(more: usize, less: usize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now + more as i64 - less as i64;
        held.set((now, most.max(now)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(0, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        hold(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations of this thread so far, where [`Counting`] is the global allocator.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// Bytes that this thread allocated and did not free, where [`Counting`] is the global allocator, and the most there were
/// since [`held_anew`].
#[must_use]
pub fn held() -> (i64, i64) {
    HELD.get()
}

/// Forgets the most that was held.
pub fn held_anew() {
    let (now, _) = HELD.get();
    HELD.set((now, now));
}
