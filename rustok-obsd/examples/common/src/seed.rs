//! The rows that exist from the start. Ids are computed, so that the client knows them without asking.

use uuid::{Builder, Uuid};

/// RusToK's default tenant, used where `X-Tenant-ID` is missing.
pub const DEFAULT_TENANT: Uuid = Uuid::from_u128(1);
/// Slugs of the tenants that exist; their ids are those of [`tenant_id`].
pub const TENANTS: [&str; 2] = ["default", "acme"];
/// Content nodes per tenant.
pub const NODES: u32 = 200;
/// Products per tenant.
pub const PRODUCTS: u32 = 200;
/// Blog posts per tenant.
pub const POSTS: u32 = 100;
/// Locales of posts and pages.
pub const LOCALES: [&str; 3] = ["en", "de", "pt-BR"];

/// Id of `TENANTS[tenant]`.
#[must_use]
pub fn tenant_id(tenant: usize) -> Uuid {
    if tenant == 0 { DEFAULT_TENANT } else { id(0, tenant, 0) }
}

/// Id of content node `n` of a tenant.
#[must_use]
pub fn node_id(tenant: usize, n: u32) -> Uuid {
    id(1, tenant, n)
}

/// Id of product `n` of a tenant.
#[must_use]
pub fn product_id(tenant: usize, n: u32) -> Uuid {
    id(2, tenant, n)
}

/// Id of blog post `n` of a tenant.
#[must_use]
pub fn post_id(tenant: usize, n: u32) -> Uuid {
    id(3, tenant, n)
}

/// Entity tag of a blog post.
#[must_use]
pub fn post_etag(id: Uuid) -> String {
    format!("\"{}\"", id.simple())
}

/// Looks random, as ids in real paths do: version 4, variant 1 (RFC 9562).
fn id(kind: u64, tenant: usize, n: u32) -> Uuid {
    let key = kind << 48 | (tenant as u64) << 32 | u64::from(n);
    let bits = u128::from(mix(key)) << 64 | u128::from(mix(!key));
    Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit changes about half of the output bits.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn seeded_ids_are_distinct_version_4_uuids() {
        let mut seen = HashSet::new();
        for tenant in 0..TENANTS.len() {
            assert!(seen.insert(tenant_id(tenant)));
            for n in 0..NODES {
                for id in [node_id(tenant, n), product_id(tenant, n), post_id(tenant, n)] {
                    assert_eq!((id.get_version_num(), id.get_variant() as u8), (4, 1), "{id}");
                    assert!(seen.insert(id));
                }
            }
        }
    }
}
