//! Tenants, as RusToK resolves them: `X-Tenant-ID` holds a UUID or a slug; missing means the default tenant; unknown
//! is 404. Answers of the database are cached, positive ones for 300 s and negative ones for 60 s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use uuid::Uuid;

use super::App;
use super::db::Db;
use super::entity::tenant;
use super::error::{Answer, ApiError};
use super::observe::Entry;
use example_common::seed::DEFAULT_TENANT;

const KEPT: usize = 1024;

/// The tenant of a request.
#[derive(Clone, Copy, Debug)]
pub struct Tenant(pub Uuid);

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(DEFAULT_TENANT)))
    }
}

/// Header value → tenant id where there is one, and until when that holds.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<String, (Option<Uuid>, Instant)>>);

impl Cache {
    fn get(&self, name: &str, now: Instant) -> Option<Option<Uuid>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(_, until)| now < *until).map(|(id, _)| *id)
    }

    fn put(&self, name: String, id: Option<Uuid>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(name, (id, now + Duration::from_secs(if id.is_some() { 300 } else { 60 })));
    }
}

/// The layer around the API.
///
/// # Errors
/// 404 for an unknown tenant, 400 for a header that is not text, 500 where the database fails.
pub async fn resolve(State(app): State<App>, db: Db, mut request: Request, next: Next) -> Answer<Response> {
    let id = match request.headers().get("x-tenant-id") {
        None => DEFAULT_TENANT,
        Some(name) => {
            let name = name.to_str().map_err(|_| ApiError(StatusCode::BAD_REQUEST, "X-Tenant-ID is not text"))?;
            let known = app.tenants.get(name, Instant::now());
            let found = match known {
                Some(found) => found,
                None => look_up(&app, &db, name.to_owned()).await?,
            };
            found.ok_or(ApiError(StatusCode::NOT_FOUND, "unknown tenant"))?
        }
    };
    if let Some(entry) = request.extensions().get::<Arc<Entry>>() {
        entry.tenant(&id);
    }
    request.extensions_mut().insert(Tenant(id));
    Ok(next.run(request).await)
}

async fn look_up(app: &App, db: &Db, name: String) -> Answer<Option<Uuid>> {
    let column = match Uuid::parse_str(&name) {
        Ok(id) => tenant::Column::Id.eq(id),
        Err(_) => tenant::Column::Slug.eq(&*name),
    };
    let id = tenant::Entity::find().filter(column).one(db).await?.map(|row| row.id);
    app.tenants.put(name, id, Instant::now());
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_answer_is_forgotten_sooner_than_a_positive_one() {
        let (cache, now) = (Cache::default(), Instant::now());
        cache.put("acme".to_owned(), Some(DEFAULT_TENANT), now);
        cache.put("nobody".to_owned(), None, now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(cache.get("nobody", later(59)), Some(None));
        assert_eq!(cache.get("nobody", later(60)), None);
        assert_eq!(cache.get("acme", later(299)), Some(Some(DEFAULT_TENANT)));
        assert_eq!(cache.get("acme", later(300)), None);
    }

    #[test]
    fn the_cache_stays_bounded_under_invented_names() {
        let (cache, now) = (Cache::default(), Instant::now());
        for n in 0..10 * KEPT {
            cache.put(n.to_string(), None, now);
        }
        assert!(cache.0.lock().expect("lock").len() <= KEPT);
    }
}
