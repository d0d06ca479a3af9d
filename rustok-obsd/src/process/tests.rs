//! Groups on a made-up procfs.
