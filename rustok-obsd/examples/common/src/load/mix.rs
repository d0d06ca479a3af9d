//! What to send next: every route of the shop, each with the answer that is due.
//!
//! Pure: reads a generator and what this connection has created, yields an [`Action`].

mod causal;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::Method;
use uuid::Uuid;

use super::rng::Rng;
use crate::seed::{self, LOCALES, NODES, POSTS, PRODUCTS};

/// Which traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// Every route and every oddity of HTTP.
    All,
    /// `GET /hello` alone, nothing but HTTP.
    Hello,
    /// Plain reads and writes on REST and GraphQL.
    Crud,
    /// Statements in other tasks, cancelled, failing and outliving their request; on every server.
    Causal,
    /// The same without what is cancelled, fails or outlives its request: statements can be counted exactly.
    Database,
    /// `GET /api/commerce/products/{id}` alone, two statements each.
    Two,
}

impl Mix {
    /// Whether it is for measuring what a request costs: no headers of ours, no connection but the kept ones.
    #[must_use]
    pub const fn plain(self) -> bool {
        matches!(self, Self::Hello | Self::Two)
    }
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// One request on the kept connection.
    Request(Step),
    /// Several on a fresh connection, written at once.
    Pipeline(Vec<Step>),
    /// On a fresh connection, its head in several segments.
    Split(Step),
    /// On a fresh connection, HTTP/1.0 without keep-alive.
    Http10(Step),
    /// An upload that waits for `100 Continue`.
    Expect(Step),
    /// Upgrade, a few messages, close.
    WebSocket(Step),
    /// A request that we give up.
    Abort(Abort, Step),
}

/// How to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Close while the handler works.
    Waiting,
    /// Close in the middle of the head.
    Head,
    /// Close in the middle of the upload.
    Upload,
    /// Close in the middle of the download.
    Download,
    /// Close our sending side alone, and read on.
    HalfClose,
}

/// One request and the answer that is due.
#[derive(Clone, Debug)]
pub struct Step {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: Cow<'static, str>,
    /// The route that should match.
    pub route: Option<&'static str>,
    /// The status that should come.
    pub status: u16,
    /// Headers beyond those that every request has.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Body.
    pub payload: Payload,
}

/// A request's body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// None.
    None,
    /// With `Content-Length`.
    Sized(Bytes),
    /// Chunked.
    Chunked(Vec<Bytes>),
}

impl Step {
    fn new(method: Method, target: impl Into<Cow<'static, str>>, route: Option<&'static str>, status: u16) -> Self {
        Self { method, target: target.into(), route, status, headers: Vec::new(), payload: Payload::None }
    }

    fn get(target: impl Into<Cow<'static, str>>, route: &'static str) -> Self {
        Self::new(Method::GET, target, Some(route), 200)
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn json(mut self, body: impl Into<Bytes>) -> Self {
        self.payload = Payload::Sized(body.into());
        self.header("content-type", "application/json")
    }

    /// Path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// `GET /hello`.
    #[must_use]
    pub fn hello() -> Self {
        Self::get("/hello", "/hello")
    }
}

const NODES_ROUTE: &str = "/api/content/nodes";
const NODE: &str = "/api/content/nodes/{id}";
const PRODUCT: &str = "/api/commerce/products/{id}";
const POST: &str = "/api/blog/posts/{id}";

/// Chooses for one connection slot.
pub struct Chooser {
    rng: Rng,
    mix: Mix,
    /// Nodes that we created and not yet deleted.
    created: Vec<String>,
}

impl Chooser {
    /// Nodes that a slot keeps before it deletes some.
    const KEPT: usize = 20;

    /// A chooser with a sequence of its own.
    #[must_use]
    pub fn new(mix: Mix, rng: Rng) -> Self {
        Self { rng, mix, created: Vec::new() }
    }

    /// Notes the `Location` of a created node.
    pub fn created(&mut self, location: String) {
        self.created.push(location);
    }

    /// The next thing to do.
    pub fn choose(&mut self) -> Action {
        match self.mix {
            Mix::Hello => Action::Request(Step::hello()),
            Mix::Crud => Action::Request(self.crud()),
            Mix::Causal => self.causal(),
            Mix::Database => Action::Request(self.database()),
            Mix::Two => Action::Request(self.two()),
            Mix::All => match self.rng.below(1000) {
                0..500 => Action::Request(self.crud()),
                500..700 => Action::Request(self.pages()),
                700..800 => Action::Request(self.odd()),
                800..920 => Action::Request(self.failing()),
                920..960 => Action::Request(self.bodies()),
                960..970 => {
                    let steps = 2 + self.rng.below(7);
                    Action::Pipeline((0..steps).map(|_| self.short_get()).collect())
                }
                970..980 => Action::Split(if self.rng.one_in(2) { self.short_get() } else { self.upload(4096) }),
                980..984 => Action::Http10(self.short_get()),
                984..990 => Action::Expect(self.upload(200_000)),
                990..996 => Action::WebSocket(Step::get("/api/graphql/ws", "/api/graphql/ws").status(101)),
                _ => self.abort(),
            },
        }
    }

    /// A tenant, and the header that names it: none, slug or id.
    fn tenant(&mut self) -> (usize, Option<Cow<'static, str>>) {
        match self.rng.below(8) {
            0 => (1, Some("acme".into())),
            1 => (1, Some(seed::tenant_id(1).to_string().into())),
            2 => (0, Some("default".into())),
            _ => (0, None),
        }
    }

    /// A step for a tenant's row.
    fn of_tenant(&mut self, step: impl FnOnce(usize, &mut Rng) -> Step) -> Step {
        let (tenant, name) = self.tenant();
        let step = step(tenant, &mut self.rng);
        match name {
            Some(name) => step.header("x-tenant-id", name),
            None => step,
        }
    }

    fn crud(&mut self) -> Step {
        match self.rng.below(100) {
            0..8 => self
                .of_tenant(|_, rng| Step::get(format!("/api/content/nodes?limit={}", 1 + rng.below(50)), NODES_ROUTE)),
            8..30 => self.of_tenant(|tenant, rng| {
                Step::get(format!("/api/content/nodes/{}", seed::node_id(tenant, rng.below(NODES))), NODE)
            }),
            30..55 => self.product(Method::GET),
            55..62 => self.of_tenant(|_, _| Step::get("/api/commerce/products", "/api/commerce/products")),
            62..67 => self.of_tenant(|_, _| Step::get("/api/blog/posts?limit=5&q=%D0%BF", "/api/blog/posts")),
            67..77 => self.of_tenant(|tenant, rng| {
                Step::get(format!("/api/blog/posts/{}", seed::post_id(tenant, rng.below(POSTS))), POST)
            }),
            77..87 => self.graphql(),
            87..92 => self.of_tenant(|tenant, rng| {
                let path = format!("/api/content/nodes/{}", seed::node_id(tenant, rng.below(NODES)));
                Step::new(Method::PUT, path, Some(NODE), 200)
                    .json(r#"{"kind":"page","title":"Changed","body":"Changed by a test"}"#)
            }),
            92..95 if !self.created.is_empty() => self.delete(),
            _ if self.created.len() >= Self::KEPT => self.delete(),
            _ => Step::new(Method::POST, NODES_ROUTE, Some(NODES_ROUTE), 201)
                .json(r#"{"kind":"article","title":"New","body":"Made by a test"}"#),
        }
    }

    fn delete(&mut self) -> Step {
        let path = self.created.pop().unwrap_or_default();
        Step::new(Method::DELETE, path, Some(NODE), 204)
    }

    fn product(&mut self, method: Method) -> Step {
        self.of_tenant(|tenant, rng| {
            let path = format!("/api/commerce/products/{}", seed::product_id(tenant, rng.below(PRODUCTS)));
            Step::new(method, path, Some(PRODUCT), 200)
        })
    }

    fn graphql(&mut self) -> Step {
        let body = match self.rng.below(10) {
            0 => r#"{"query":"mutation { createNode(title: \"G\", body: \"By GraphQL\") { id } }"}"#.to_owned(),
            1 => r#"{"query":"{ noSuchField }"}"#.to_owned(),
            2..6 => r#"{"query":"{ products(limit: 5) { id title price } }"}"#.to_owned(),
            _ => {
                let [a, b] = [(); 2].map(|()| seed::node_id(0, self.rng.below(NODES)));
                format!(r#"{{"query":"{{ a: node(id: \"{a}\") {{ title }} b: node(id: \"{b}\") {{ id kind }} }}"}}"#)
            }
        };
        Step::new(Method::POST, "/api/graphql", Some("/api/graphql"), 200).json(body)
    }

    fn pages(&mut self) -> Step {
        let n = self.rng.below(POSTS);
        let locale = LOCALES[n as usize % LOCALES.len()];
        match self.rng.below(10) {
            0..3 => Step::get(format!("/api/v1/{locale}/pages/post-{n}"), "/api/v1/{locale}/pages/{slug}"),
            3 => Step::get(
                format!("/api/v1/{locale}/categories/shoes/pages/red-{n}"),
                "/api/v1/{locale}/categories/{category}/pages/{slug}",
            ),
            4..6 => Step::get(
                format!("/store/products/{}", seed::product_id(0, self.rng.below(PRODUCTS))),
                "/store/products/{id}",
            ),
            6 => Step::get(format!("/store/{locale}/carts/{n:x}%20x"), "/store/{locale}/carts/{cart}"),
            7 => match self.rng.below(4) {
                0 => Step::get("/store", "/store/"),
                // What axum's MatchedPath says: the route "/store/" of `nest_service`, then "/" of the inner router.
                1 => Step::get("/store/", "/store//"),
                2 => Step::get("/store/no/such/page/here", "/store/*").status(404),
                _ => Step::get("/assets", "/assets"),
            },
            8 => match self.rng.below(4) {
                0 => Step::get("/assets/app.js", "/assets/*"),
                1 => Step::get("/assets/css/site.css?v=3", "/assets/*"),
                2 => Step::get("/assets/", "/assets/"),
                _ => Step::get("/assets/missing.png", "/assets/*").status(404),
            },
            _ => match self.rng.below(3) {
                0 => Step::get("/health", "/health"),
                1 => Step::get("/health/ready", "/health/ready"),
                _ => Step::hello(),
            },
        }
    }

    /// Statuses other than 200 that are no errors.
    fn odd(&mut self) -> Step {
        match self.rng.below(5) {
            0 => {
                let id = seed::post_id(0, self.rng.below(POSTS));
                Step::get(format!("/api/blog/posts/{id}"), POST)
                    .status(304)
                    .header("if-none-match", seed::post_etag(id))
            }
            1 => Step::get("/api/empty", "/api/empty").status(204),
            2 => self.product(Method::HEAD),
            3 => Step::get(format!("/old/products/{}", self.rng.below(1000)), "/old/products/{id}").status(308),
            _ => Step::get("/api/dashboard", "/api/dashboard"),
        }
    }

    fn failing(&mut self) -> Step {
        let unknown = Uuid::from_u128(u128::from(self.rng.next_u64()));
        match self.rng.below(12) {
            0 => Step::new(Method::GET, format!("/no/such/{unknown}"), None, 404),
            1 => Step::new(Method::GET, "/api/v1/de", None, 404),
            2 => Step::new(Method::POST, "/nothing", None, 404).json("{}"),
            3 => Step::get(format!("/api/commerce/products/{unknown}"), PRODUCT).status(404),
            4 => Step::get("/api/content/nodes/not-a-uuid", NODE).status(400),
            5 => Step::get("/api/commerce/products", "/api/commerce/products")
                .status(404)
                .header("x-tenant-id", "nobody"),
            6 => Step::new(Method::DELETE, "/api/commerce/products", Some("/api/commerce/products"), 405),
            7 => Step::new(Method::OPTIONS, "/hello", Some("/hello"), 405),
            8 => Step::get("/api/fail/internal", "/api/fail/internal").status(500),
            9 => Step::get("/api/fail/unavailable", "/api/fail/unavailable").status(503),
            10 => Step::get("/api/fail/sql", "/api/fail/sql").status(500),
            _ => Step::new(Method::POST, NODES_ROUTE, Some(NODES_ROUTE), 422).json(r#"{"kind":"page"}"#),
        }
    }

    fn bodies(&mut self) -> Step {
        match self.rng.below(6) {
            0 => Step::get(format!("/api/slow/{}", 1 + self.rng.below(30)), "/api/slow/{ms}"),
            1 => Step::get(format!("/api/export/{}", self.rng.below(4096)), "/api/export/{kib}"),
            2 => Step::get(format!("/api/stream/{}", self.rng.below(20)), "/api/stream/{chunks}"),
            3 => self.upload(2 << 20),
            4 => {
                let chunks = 1 + self.rng.below(20);
                let mut step = self.upload(0);
                let chunk = |rng: &mut Rng| Bytes::from(vec![b'c'; 1 + rng.below(30_000) as usize]);
                step.payload = Payload::Chunked((0..chunks).map(|_| chunk(&mut self.rng)).collect());
                step
            }
            _ => {
                let id = seed::product_id(0, self.rng.below(PRODUCTS));
                Step::get(format!("/api/relay/{id}"), "/api/relay/{id}")
            }
        }
    }

    fn upload(&mut self, most: u32) -> Step {
        let mut step = Step::new(Method::POST, "/api/upload", Some("/api/upload"), 200);
        step.payload = Payload::Sized(vec![b'u'; self.rng.below(most + 1) as usize].into());
        step
    }

    /// Answers that are short and have a length.
    fn short_get(&mut self) -> Step {
        match self.rng.below(6) {
            0 => Step::hello(),
            1 => self.product(Method::GET),
            2 => self.pages(),
            3 => Step::get("/api/empty", "/api/empty").status(204),
            4 => Step::new(Method::GET, "/no/such/page", None, 404),
            _ => Step::get("/api/slow/2", "/api/slow/{ms}"),
        }
    }

    fn abort(&mut self) -> Action {
        let (abort, step) = match self.rng.below(5) {
            0 => (Abort::Waiting, Step::get("/api/slow/300", "/api/slow/{ms}")),
            1 => (Abort::Head, Step::hello()),
            2 => {
                let mut step = self.upload(0);
                step.payload = Payload::Sized(vec![b'a'; 1 << 20].into());
                (Abort::Upload, step)
            }
            3 => (Abort::Download, Step::get("/api/export/16384", "/api/export/{kib}")),
            _ => (Abort::HalfClose, Step::get("/api/slow/20", "/api/slow/{ms}")),
        };
        Action::Abort(abort, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_long_run_reaches_every_route_every_status_and_every_special() {
        let mut chooser = Chooser::new(Mix::All, Rng::new(1, 0));
        let (mut routes, mut statuses, mut specials) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for n in 0..20_000 {
            let action = chooser.choose();
            specials.insert(format!("{action:?}").split('(').next().expect("a name").to_owned());
            if let Action::Request(step) = action {
                routes.insert(step.route);
                statuses.insert(step.status);
                if step.status == 201 {
                    chooser.created(format!("/api/content/nodes/{n}"));
                }
            }
        }
        assert_eq!(specials.len(), 7, "{specials:?}");
        assert_eq!(routes.len(), 32, "{routes:?}");
        let all = [200, 201, 204, 304, 308, 400, 404, 405, 422, 500, 503];
        assert_eq!(statuses, BTreeSet::from(all));
    }

    #[test]
    fn a_seed_repeats_its_requests() {
        let targets = |seed| {
            let mut chooser = Chooser::new(Mix::All, Rng::new(seed, 3));
            (0..200).map(|_| format!("{:?}", chooser.choose())).collect::<Vec<_>>()
        };
        assert_eq!(targets(5), targets(5));
        assert_ne!(targets(5), targets(6));
    }
}
