//! The kernel's name and version, the host's names.
//!
//! Reads: uname(2). Yields: `node_uname_info`. Costs: one system call.

use super::{CollectError, Collector, Context, Settings, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

const INFO: Family<'static> = gauge(
    "node_uname_info",
    &["sysname", "release", "version", "machine", "nodename", "domainname"],
    "Labeled system information as provided by the uname system call.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO];

struct Uname;

/// Makes it.
pub fn make(_: &Settings) -> Box<dyn Collector> {
    Box::new(Uname)
}

impl Collector for Uname {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut names = MaybeUninit::<libc::utsname>::uninit();
        // SAFETY: the kernel fills the struct where it returns 0.
        if unsafe { libc::uname(names.as_mut_ptr()) } != 0 {
            return Err(CollectError::call("uname"));
        }
        // SAFETY: see above.
        let names = unsafe { names.assume_init() };
        let fields =
            [&names.sysname, &names.release, &names.version, &names.machine, &names.nodename, &names.domainname];
        let texts = fields.map(text);
        out.family(&INFO).put(texts.each_ref().map(AsRef::as_ref), 1u64);
        Ok(())
    }
}

fn text(field: &[c_char; 65]) -> Cow<'_, str> {
    // SAFETY: the kernel ends each field with NUL.
    unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy()
}
