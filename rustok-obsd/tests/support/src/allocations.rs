//! Counts a thread's allocations.
//!
//! Reads: calls of the allocator. Yields: their number. Costs: a thread-local addition per allocation.
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
}

/// The system's allocator, counting.
pub struct Counting;

fn count() {
    // A thread that ends may allocate after its locals are gone.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations of this thread so far, where [`Counting`] is the global allocator.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}
