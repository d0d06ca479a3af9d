//! Words of APIs, which are a part of a route wherever they stand.
//!
//! Reads: a segment, and what stands before it. Yields: whether it is such a word. Costs: a binary search or three.
//!
//! In the list is what many APIs have as a fixed part of their paths: things, actions, states. Not in it are given names, and
//! words that are given names, too; a word that is missing is a parameter until it was learned
//! ([`super::learner`]). As a list it is fixed: nobody can teach it anything.

/// What stands before a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// Nothing, or only what says which API this is: `/api/v1`.
    Namespace,
    /// A word that a value may follow: a collection (`users`), or one that takes a name (`blog`, `verify`).
    Bearing,
    /// Another word.
    Word,
    /// A value.
    Value,
}

impl Parent {
    /// What a word is for the next segment.
    pub(super) fn after(self, word: &[u8]) -> Self {
        if self == Self::Namespace && (is_version(word) || has(&NAMESPACES, word)) {
            Self::Namespace
        } else if has(&BEARING, word) || is_plural(word) {
            Self::Bearing
        } else {
            Self::Word
        }
    }
}

/// Whether a segment is a fixed part of a route at first sight: a word of the list, a version, a well-known file, or, where no
/// title or name is to be expected, two or three words of the list joined (`change-password`).
pub(super) fn is_word(segment: &[u8], parent: Parent) -> bool {
    if has(&WORDS, segment) || has(&FILES, segment) || is_version(segment) {
        return true;
    }
    matches!(parent, Parent::Namespace | Parent::Word)
        && (1..=2).contains(&segment.iter().filter(|byte| is_separator(**byte)).count())
        && segment.split(|byte| is_separator(*byte)).all(|part| has(&WORDS, part))
}

/// Whether a segment could be learned: letters that can be spoken, in at most three parts. A random token is none.
pub(super) fn is_learnable(segment: &[u8]) -> bool {
    let spoken = |part: &[u8]| {
        let vowel = |byte: &u8| b"aeiouy".contains(byte);
        (2..=15).contains(&part.len())
            && part.iter().all(u8::is_ascii_lowercase)
            && part.iter().any(vowel)
            && part.split(vowel).all(|consonants| consonants.len() <= 4)
            && !part.windows(3).any(|three| three[0] == three[1] && three[1] == three[2])
    };
    (3..=24).contains(&segment.len())
        && segment.iter().filter(|byte| is_separator(**byte)).count() <= 2
        && segment.split(|byte| is_separator(*byte)).all(spoken)
}

/// Whether a word has the form of a plural, as collections have.
pub(super) fn is_plural(word: &[u8]) -> bool {
    word.len() >= 4 && word.ends_with(b"s") && ![b"ss", b"us", b"is"].iter().any(|end| word.ends_with(*end))
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

/// `v1`, `v12`.
const fn is_version(segment: &[u8]) -> bool {
    match segment {
        [b'v', a] => a.is_ascii_digit(),
        [b'v', a, b] => a.is_ascii_digit() && b.is_ascii_digit(),
        _ => false,
    }
}

fn has(list: &[&str], word: &[u8]) -> bool {
    list.binary_search_by(|known| known.as_bytes().cmp(word)).is_ok()
}

/// Words that say which API this is.
#[rustfmt::skip]
static NAMESPACES: [&str; 28] = [
    "_internal", "admin", "api", "apis", "app", "backend", "beta", "common", "core", "dev", "external", "frontend",
    "gateway", "internal", "management", "mobile", "portal", "private", "public", "rest", "rpc", "service",
    "services", "staging", "system", "tenant", "test", "web",
];

/// Words in the singular that a name or other value may follow.
#[rustfmt::skip]
static BEARING: [&str; 68] = [
    "account", "activate", "article", "author", "blog", "board", "book", "branch", "callback", "category", "channel",
    "code", "confirm", "contact", "customer", "docs", "domain", "download", "email", "event", "example", "file",
    "folder", "group", "guide", "hook", "host", "id", "invite", "item", "key", "language", "link", "locale",
    "location", "lookup", "member", "name", "news", "order", "organization", "page", "place", "playlist", "post",
    "product", "profile", "project", "redirect", "repo", "reset", "room", "search", "session", "share", "shop",
    "store", "tag", "team", "tenant", "thread", "token", "topic", "unsubscribe", "user", "username", "verify", "wiki",
];

/// Files whose names are agreed on.
#[rustfmt::skip]
static FILES: [&str; 34] = [
    "ads.txt", "api.json", "api.yaml", "apple-touch-icon.png", "asset-manifest.json", "browserconfig.xml",
    "favicon.ico", "favicon.png", "favicon.svg", "feed.xml", "humans.txt", "index.htm", "index.html", "index.php",
    "jwks.json", "manifest.json", "manifest.webmanifest", "oauth-authorization-server", "openapi.json",
    "openapi.yaml", "openapi.yml", "openid-configuration", "robots.txt", "rss.xml", "schema.graphql", "schema.json",
    "security.txt", "service-worker.js", "site.webmanifest", "sitemap.xml", "sitemap_index.xml", "sw.js",
    "swagger.json", "swagger.yaml",
];

/// See the module's head.
#[rustfmt::skip]
static WORDS: [&str; 1225] = [
    ".well-known", "2fa", "_bulk", "_health", "_internal", "_next", "_search", "_status", "about", "accept",
    "accepted", "access", "account", "accounts", "accrual", "ack", "action", "actions", "activate", "activation",
    "active", "activities", "activity", "actuator", "add", "address", "addresses", "adjust", "adjustments", "admin",
    "admins", "agent", "agents", "aggregate", "aggregations", "alert", "alerts", "all", "allocate", "analytics",
    "analyze", "announcements", "answer", "answers", "api", "apidocs", "apis", "app", "append", "application",
    "applications", "apply", "approval", "approvals", "approve", "approved", "apps", "archive", "archived",
    "archives", "article", "articles", "asset", "assets", "assign", "assignment", "assignments", "attachment",
    "attachments", "attribute", "attributes", "audit", "audits", "auth", "authenticate", "authentication", "author",
    "authorization", "authorize", "authors", "autocomplete", "availability", "available", "avatar", "avatars",
    "backend", "backup", "backups", "badge", "badges", "balance", "balances", "ban", "banner", "banners", "basket",
    "baskets", "batch", "batches", "begin", "beta", "billing", "bills", "block", "blocks", "blog", "blogs", "board",
    "boards", "book", "bookings", "bookmark", "bookmarks", "books", "branch", "branches", "brand", "brands",
    "broadcast", "browse", "bucket", "buckets", "build", "builds", "bulk", "business", "cache", "calculate",
    "calendar", "calendars", "callback", "callbacks", "campaign", "campaigns", "cancel", "cancelled", "card", "cards",
    "cart", "carts", "catalog", "catalogs", "catalogue", "categories", "category", "causal", "cdn", "certificate",
    "certificates", "challenge", "change", "changes", "channel", "channels", "charge", "charges", "charts", "chat",
    "chats", "check", "checkout", "checkouts", "checks", "chunk", "chunks", "claim", "claims", "classes", "clean",
    "clear", "client", "clients", "clone", "close", "closed", "cloud", "cluster", "clusters", "code", "codes",
    "collect", "collection", "collections", "colors", "columns", "command", "commands", "comment", "comments",
    "commerce", "commit", "commits", "common", "communities", "community", "companies", "company", "compare",
    "complete", "completed", "completions", "components", "compute", "condition", "conditions", "config", "configs",
    "configuration", "configurations", "confirm", "confirmation", "connect", "connection", "connections",
    "connectors", "consent", "console", "consumers", "contact", "contacts", "container", "containers", "content",
    "contents", "contract", "contracts", "conversation", "conversations", "convert", "copy", "core", "count",
    "counters", "countries", "country", "coupon", "coupons", "courses", "create", "created", "credentials", "credit",
    "credits", "cron", "css", "csv", "currencies", "currency", "current", "custom", "customer", "customers", "cycles",
    "daily", "dashboard", "dashboards", "data", "database", "databases", "dataset", "datasets", "date", "dates",
    "day", "deactivate", "debug", "decline", "decrement", "default", "delete", "deleted", "deliver", "deliveries",
    "delivery", "demo", "departments", "deploy", "deployment", "deployments", "deposit", "deposits", "describe",
    "design", "destroy", "detached", "detail", "details", "dev", "development", "device", "devices", "diagnostics",
    "dialogs", "diff", "digest", "directories", "directory", "disable", "disabled", "discord", "discount",
    "discounts", "discover", "discovery", "dispatch", "disputes", "divisions", "docs", "document", "documentation",
    "documents", "domain", "domains", "done", "download", "downloads", "draft", "drafts", "drop", "duplicate",
    "duplicates", "echo", "edit", "editor", "email", "emails", "embed", "embeddings", "employees", "empty", "enable",
    "enabled", "end", "endpoint", "endpoints", "engine", "enroll", "entities", "entity", "entries", "entry",
    "environment", "environments", "error", "errors", "estimate", "estimates", "evaluate", "event", "events",
    "example", "examples", "exchange", "exchanges", "exec", "execute", "executions", "exists", "expenses", "explore",
    "export", "exports", "extensions", "external", "facets", "facts", "failed", "faq", "favicon", "favorites",
    "favourites", "feature", "featured", "features", "fee", "feed", "feedback", "feeds", "fees", "fetch", "field",
    "fields", "file", "files", "filter", "filters", "finalize", "find", "finish", "flags", "flow", "flows", "flush",
    "folder", "folders", "follow", "followers", "following", "fonts", "forbidden", "forecast", "forget", "forgot",
    "form", "forms", "forum", "forums", "forward", "frontend", "fulfillment", "fulfillments", "function", "functions",
    "gallery", "gateway", "generate", "geo", "get", "gift", "gifts", "git", "global", "goals", "goods", "google",
    "grants", "graph", "graphiql", "graphql", "greet", "greeting", "group", "groups", "grpc", "guest", "guests",
    "guide", "guides", "health", "healthcheck", "healthy", "healthz", "heartbeat", "hello", "help", "hidden",
    "history", "hit", "holds", "home", "hook", "hooks", "host", "hosts", "hotels", "hourly", "icons", "id",
    "identities", "identity", "ids", "image", "images", "img", "import", "imports", "inbox", "increment", "index",
    "industries", "info", "ingest", "init", "inject", "insert", "insights", "install", "installation",
    "installations", "instance", "instances", "integration", "integrations", "interactions", "internal", "introspect",
    "inventories", "inventory", "invitation", "invitations", "invite", "invites", "invoice", "invoices", "issue",
    "issues", "item", "items", "job", "jobs", "join", "js", "json", "k8s", "key", "keys", "keyword", "keywords",
    "kinds", "knowledge", "label", "labels", "language", "languages", "last", "latest", "launch", "layout", "layouts",
    "lead", "leads", "learn", "leave", "ledger", "legal", "lessons", "level", "levels", "libraries", "library",
    "license", "licenses", "like", "likes", "limit", "limits", "line", "lines", "link", "links", "list", "listing",
    "listings", "lists", "live", "liveness", "livez", "load", "locale", "locales", "location", "locations", "lock",
    "locked", "log", "logging", "login", "logo", "logout", "logs", "lookup", "loyalty", "mail", "mailbox", "main",
    "maintenance", "manage", "management", "manager", "managers", "manifest", "manifests", "map", "maps", "mark-read",
    "market", "marketing", "marketplace", "markets", "match", "matches", "media", "meetings", "member", "members",
    "membership", "memberships", "memory", "menu", "menus", "merchant", "merchants", "merge", "message", "messages",
    "messaging", "meta", "metadata", "metric", "metrics", "mfa", "migrate", "migration", "migrations", "mine",
    "mobile", "mock", "model", "models", "moderation", "modify", "module", "modules", "monitor", "monitoring",
    "month", "monthly", "move", "movies", "multi", "music", "mutation", "my", "name", "names", "namespace",
    "namespaces", "navigation", "nearby", "network", "networks", "new", "news", "newsletter", "newsletters", "next",
    "node", "nodes", "not-found", "note", "notes", "notices", "notification", "notifications", "notify", "number",
    "numbers", "oauth", "oauth2", "object", "objects", "offer", "offers", "offices", "oidc", "onboarding", "online",
    "open", "openapi", "openid", "operation", "operations", "opportunities", "option", "options", "order", "orders",
    "organisation", "organisations", "organization", "organizations", "orgs", "origin", "other", "otp", "outbox",
    "output", "overview", "owner", "owners", "package", "packages", "page", "pages", "paid", "panel", "param",
    "params", "parse", "part", "participants", "partner", "partners", "parts", "passkeys", "password", "passwords",
    "patch", "path", "pause", "pay", "payment", "payments", "payout", "payouts", "pending", "people", "performance",
    "period", "permission", "permissions", "phone", "phones", "photo", "photos", "ping", "pipeline", "pipelines",
    "place", "places", "plan", "plans", "playlist", "playlists", "plugin", "plugins", "points", "policies", "policy",
    "poll", "polls", "pool", "pools", "portal", "position", "positions", "post", "posts", "preferences", "prepare",
    "preview", "previews", "price", "prices", "pricing", "print", "privacy", "private", "probe", "process",
    "processes", "product", "production", "products", "profile", "profiles", "programs", "progress", "project",
    "projects", "promo", "promotion", "promotions", "properties", "property", "protocol", "provider", "providers",
    "provision", "proxies", "proxy", "public", "publish", "published", "pull", "purchase", "purchases", "purge",
    "push", "put", "quantity", "queries", "query", "question", "questions", "queue", "queues", "quick", "quit",
    "quiz", "quota", "quotas", "quote", "quotes", "random", "range", "ranking", "rate", "rates", "rating", "ratings",
    "raw", "reaction", "reactions", "read", "readiness", "ready", "readyz", "rebuild", "recalculate", "receipt",
    "receipts", "receive", "recent", "recipes", "recommendations", "recommended", "reconcile", "record", "records",
    "recover", "recovery", "redeem", "redirect", "redirects", "refresh", "refund", "refunds", "regenerate", "region",
    "regions", "register", "registration", "registrations", "registry", "reindex", "reject", "related", "relations",
    "release", "releases", "reload", "remind", "reminders", "remove", "rename", "render", "renew", "reorder",
    "repair", "replace", "replay", "replies", "reply", "repo", "report", "reports", "repos", "repositories",
    "repository", "request", "requests", "resend", "reservation", "reservations", "reserve", "reset", "resize",
    "resolve", "resource", "resources", "respond", "response", "responses", "rest", "restart", "restaurants",
    "restore", "result", "results", "resume", "retrieve", "retry", "return", "returns", "revenue", "review",
    "reviews", "revision", "revisions", "revoke", "reward", "rewards", "robots", "role", "roles", "rollback", "room",
    "rooms", "root", "route", "router", "routes", "routing", "rows", "rpc", "rss", "rule", "rules", "run", "runs",
    "runtime", "s3", "sale", "sales", "sample", "samples", "sandbox", "save", "saved", "schedule", "scheduled",
    "scheduler", "schedules", "schema", "schemas", "scim", "scope", "scopes", "score", "scores", "scripts", "search",
    "seats", "secret", "secrets", "section", "sections", "secure", "security", "segment", "segments", "select",
    "sell", "seller", "sellers", "send", "sensors", "seo", "sequence", "series", "server", "servers", "service",
    "services", "session", "sessions", "set", "setting", "settings", "settle", "settlements", "setup", "share",
    "shared", "shares", "sheets", "ship", "shipment", "shipments", "shipping", "shop", "shops", "shorten", "show",
    "sign", "signature", "signatures", "signin", "signout", "signup", "simulate", "sitemap", "sites", "sizes",
    "skills", "skip", "slack", "sleep", "slots", "slow", "sms", "snapshot", "snapshots", "social", "sort", "sources",
    "spa", "spans", "spec", "specs", "sso", "staff", "stage", "staging", "stars", "start", "started", "startup",
    "stat", "state", "statement", "statements", "states", "static", "statistics", "stats", "status", "statuses",
    "stock", "stocks", "stop", "storage", "store", "stored", "stores", "stories", "stream", "streaming", "streams",
    "structure", "students", "subjects", "submission", "submissions", "submit", "subscribe", "subscriber",
    "subscribers", "subscription", "subscriptions", "success", "suggest", "suggestions", "summary", "supplier",
    "suppliers", "support", "survey", "surveys", "suspend", "swagger", "swagger-ui", "swap", "switch", "sync",
    "synced", "system", "systems", "table", "tables", "tag", "tags", "target", "targets", "task", "tasks", "tax",
    "taxes", "team", "teams", "template", "templates", "tenant", "tenants", "terminate", "terms", "test", "testing",
    "tests", "theme", "themes", "thread", "threads", "thumbnail", "thumbnails", "ticket", "tickets", "time",
    "timeline", "timelines", "timeout", "timer", "timesheets", "timezone", "timezones", "tips", "today", "toggle",
    "token", "tokens", "tomorrow", "tool", "tools", "top", "topic", "topics", "total", "totals", "totp", "trace",
    "traces", "tracing", "track", "tracker", "tracking", "tracks", "trade", "trades", "transaction", "transactions",
    "transfer", "transfers", "translate", "translations", "trash", "tree", "trending", "trigger", "triggers",
    "tutorials", "type", "types", "ui", "unban", "unblock", "undo", "unfollow", "unlike", "unlock", "unread",
    "unregister", "unseen", "unsubscribe", "up", "update", "updated", "updates", "upgrade", "upload", "uploads",
    "uptime", "url", "urls", "usage", "user", "userinfo", "username", "usernames", "users", "utils", "vacancies",
    "validate", "validation", "value", "values", "variant", "variants", "vehicles", "vendor", "vendors",
    "verification", "verify", "version", "versions", "video", "videos", "view", "viewer", "views", "visibility",
    "visit", "visits", "vote", "votes", "voucher", "vouchers", "wait", "wallet", "wallets", "warehouse", "warehouses",
    "watch", "watchers", "watchlist", "weather", "web", "webhook", "webhooks", "webinars", "websocket", "week",
    "weekly", "widget", "widgets", "wiki", "wishlist", "wishlists", "withdraw", "withdrawals", "work", "worker",
    "workers", "workflow", "workflows", "workspace", "workspaces", "world", "write", "ws", "xml", "year", "yearly",
    "yesterday", "zones",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_hold_words_of_the_list() {
        for list in [&NAMESPACES[..], &BEARING, &FILES, &WORDS] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "{list:?}");
        }
        assert!(NAMESPACES.iter().chain(&BEARING).all(|word| WORDS.contains(word)));
    }

    #[test]
    fn words_are_told_from_titles_and_names() {
        for word in ["api", "users", "search", "v1", "robots.txt", ".well-known", "change-password", "oauth2"] {
            assert!(is_word(word.as_bytes(), Parent::Namespace), "{word}");
        }
        for word in ["alice", "Users", "v123", "new-shoes-for-alice", "app.js", "", "a", "users-"] {
            assert!(!is_word(word.as_bytes(), Parent::Namespace), "{word}");
        }
        for parent in [Parent::Bearing, Parent::Value] {
            assert!(!is_word(b"new-order", parent), "a title may be made of such words");
        }
        assert_eq!(Parent::Namespace.after(b"api"), Parent::Namespace);
        assert_eq!(Parent::Word.after(b"api"), Parent::Word);
        assert_eq!([b"users".as_slice(), b"verify"].map(|word| Parent::Namespace.after(word)), [Parent::Bearing; 2]);
    }

    #[test]
    fn what_can_be_spoken_can_be_learned() {
        for word in ["frobs", "causalities", "order-frobs", "line_frobs"] {
            assert!(is_learnable(word.as_bytes()), "{word}");
        }
        for word in [
            "xkcdqwrtz",
            "Frobs",
            "frob7",
            "a",
            "aaab",
            "sdlkfj",
            "one-two-three-four",
            "frobs-",
            "qwertzuiopasdfghjklyxcvb",
        ] {
            assert!(!is_learnable(word.as_bytes()), "{word}");
        }
    }
}
