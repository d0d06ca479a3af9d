//! The tables, as sea-orm entities. All are in the schema `shop`.

macro_rules! entity {
    ($(#[$doc:meta])* $name:ident $table:literal { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        pub mod $name {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, serde::Serialize)]
            #[sea_orm(schema_name = "shop", table_name = $table)]
            pub struct Model {
                #[sea_orm(primary_key, auto_increment = false)]
                pub id: Uuid,
                $(pub $field: $type,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

entity! {
    /// Tenants; `slug` is unique.
    tenant "tenants" { slug: String }
}
entity! {
    /// Content nodes.
    node "nodes" { tenant_id: Uuid, kind: String, title: String, body: String, version: i32 }
}
entity! {
    /// Products; prices in cents.
    product "products" { tenant_id: Uuid, sku: String, title: String, price: i64, stock: i32 }
}
entity! {
    /// Blog posts.
    post "posts" { tenant_id: Uuid, locale: String, slug: String, title: String, body: String }
}
entity! {
    /// The outbox, written in the transaction of the change that it tells of.
    event "sys_events" { event_type: String, payload: String, status: String }
}
