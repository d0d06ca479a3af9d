//! Interfaces by sysfs: what netlink does not tell, or all.
//!
//! Reads: attributes below `class/net`. Yields: [`Unlinked`], or whole [`Device`]s. Costs: an open file per attribute.

use super::{Device, OPER_STATES, OPER_UP, PROPERTIES};
use crate::config::collector::Pattern;
use crate::host::netlink::Identity;
use crate::host::{CollectError, attribute};
use std::fs;
use std::path::Path;

/// What netlink does not tell.
#[derive(Debug, Default)]
pub struct Unlinked {
    /// `addr_assign_type`.
    pub address_type: Option<i64>,
    /// `dev_id`.
    pub id: Option<i64>,
    /// `name_assign_type`.
    pub name_type: Option<i64>,
    /// Mbit/s.
    pub speed: Option<i64>,
    /// `half`, `full`, `unknown`; empty where the interface has none.
    pub duplex: String,
}

impl Unlinked {
    /// Of the interface in `folder`.
    pub fn read(folder: &Path) -> Self {
        let integer = |name| integer(&folder.join(name));
        Self {
            address_type: integer("addr_assign_type"),
            id: integer("dev_id"),
            name_type: integer("name_assign_type"),
            speed: integer("speed"),
            duplex: attribute(&folder.join("duplex")).unwrap_or_default(),
        }
    }
}

/// Decimal, or hexadecimal behind `0x`.
fn integer(path: &Path) -> Option<i64> {
    let text = attribute(path)?;
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// All interfaces, by their attributes alone.
pub fn devices(class: &Path, ignored: &Pattern) -> Result<Vec<Device>, CollectError> {
    let entries = fs::read_dir(class).map_err(|source| CollectError::read(class, source))?;
    let mut devices = Vec::new();
    for entry in entries.flatten() {
        let (name, folder) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        // `bonding_masters` is a file.
        if ignored.matches(&name) || !folder.is_dir() {
            continue;
        }
        let mut device = Device::new();
        for (value, (attribute, _)) in device.values.iter_mut().zip(PROPERTIES) {
            *value = integer(&folder.join(attribute));
        }
        let text = |name: &str| attribute(&folder.join(name)).unwrap_or_default();
        let state = text("operstate");
        let state = OPER_STATES.iter().position(|known| *known == state).unwrap_or_default() as u8;
        device.up = state == OPER_UP;
        device.unlinked.duplex = text("duplex");
        device.identity = Identity {
            name,
            address: text("address"),
            broadcast: text("broadcast"),
            alias: text("ifalias"),
            oper_state: state,
            flags: integer(&folder.join("flags")).and_then(|flags| flags.try_into().ok()).unwrap_or_default(),
            ..Identity::default()
        };
        device.describe();
        devices.push(device);
    }
    Ok(devices)
}
