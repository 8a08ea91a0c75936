//! What has to hold between values, beyond each one's type.

use std::path::Path;

use super::{Config, Sse, StoreKind};
use crate::engine::Verify;
use crate::model::caller::MediaTypes;
use crate::model::{KeyTemplate, SpaceName};

/// The first thing that is wrong: the key, and what would be right.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    server(config)?;
    tls(config)?;
    base_paths(config)?;
    config.auth.check()?;
    paths(config)?;
    store(config)?;
    uploads(config)?;
    direct_and_objects(config)?;
    spaces(config)?;
    rate_limits(config)?;
    log_and_prune(config)
}

pub(super) type Checked = Result<(), (&'static str, String)>;

pub(super) fn ensure(holds: bool, key: &'static str, remedy: impl Into<String>) -> Checked {
    if holds {
        Ok(())
    } else {
        Err((key, remedy.into()))
    }
}

fn server(config: &Config) -> Checked {
    let server = &config.server;
    ensure(
        server.listen != server.admin_listen || server.listen.port() == 0,
        "server.admin_listen",
        "has to differ from server.listen",
    )?;
    let url = server.public_url.as_str();
    ensure(
        url.is_empty() || is_http_origin(url),
        "server.public_url",
        "has to be empty, or http:// or https:// with a host and without a slash at the end",
    )?;
    for origin in &server.cors_origins {
        ensure(
            is_origin(origin),
            "server.cors_origins",
            wrong_origin(origin),
        )?;
    }
    for (key, value) in [
        ("server.head_timeout_secs", server.head_timeout_secs),
        ("server.body_stall_secs", server.body_stall_secs),
        ("server.max_connections", server.max_connections as u64),
    ] {
        ensure(value >= 1, key, "has to be at least 1")?;
    }
    ensure(
        (8192..=16 << 20).contains(&server.max_header_bytes),
        "server.max_header_bytes",
        "has to be between 8192 and 16777216",
    )?;
    ensure(
        (16..=10_000).contains(&server.max_headers),
        "server.max_headers",
        "has to be between 16 and 10000",
    )
}

fn is_origin(origin: &str) -> bool {
    origin == "*" || is_http_origin(origin)
}

fn wrong_origin(origin: &str) -> String {
    format!(
        "{origin:?} has to be \"*\", or scheme and host as in \"https://example.org\", without a slash at the end"
    )
}

fn tls(config: &Config) -> Checked {
    let tls = &config.tls;
    let named = |path: &Path| !path.as_os_str().is_empty();
    ensure(
        tls.is_on() == named(&tls.key_file),
        if tls.is_on() {
            "tls.key_file"
        } else {
            "tls.cert_file"
        },
        "has to be set too; or set neither, and there is no TLS",
    )?;
    ensure(
        tls.is_on() || !named(&tls.client_ca_file),
        "tls.client_ca_file",
        "goes with tls.cert_file and tls.key_file only",
    )?;
    for (key, value) in [
        ("tls.reload_secs", tls.reload_secs),
        ("tls.handshake_timeout_secs", tls.handshake_timeout_secs),
    ] {
        ensure(value >= 1, key, "has to be at least 1")?;
    }
    Ok(())
}

/// Scheme and authority, and perhaps a path, of visible ASCII: it goes into header fields.
fn is_http_origin(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.ends_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
            && !rest.contains(['?', '#'])
    })
}

fn base_paths(config: &Config) -> Checked {
    let api = &config.api;
    let bases = [
        ("api.native", api.native.as_str()),
        ("api.tus", api.tus.as_str()),
        ("api.ietf", api.ietf.as_str()),
        ("api.objects", api.objects.as_str()),
        ("api.s3", api.s3.as_str()),
        ("api.admin", api.admin.as_str()),
        ("api.quota", api.quota.as_str()),
    ];
    for (key, base) in bases {
        let plain = base.len() > 1
            && base.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|segment| {
                    !matches!(segment, "" | "." | "..")
                        && segment.bytes().all(|byte| {
                            byte.is_ascii_alphanumeric()
                                || matches!(byte, b'-' | b'_' | b'.' | b'~')
                        })
                })
            });
        ensure(
            plain,
            key,
            "has to begin with / and to be made of letters, digits, -, _, . and ~ between single slashes, with none at the end",
        )?;
        ensure(
            !matches!(base, "/healthz" | "/readyz" | "/metrics"),
            key,
            "is taken by the health and metrics routes; choose another",
        )?;
    }
    for (index, (_, one)) in bases.iter().enumerate() {
        for (key, other) in &bases[index + 1..] {
            let below = |a: &str, b: &str| {
                a.strip_prefix(b)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            ensure(
                !below(one, other) && !below(other, one),
                key,
                "the base paths of two protocols have to differ and none may lie below another",
            )?;
        }
    }
    Ok(())
}

fn paths(config: &Config) -> Checked {
    let file = config.catalog.url.strip_prefix("sqlite:");
    ensure(
        file.is_some_and(|file| !file.is_empty() && !file.ends_with('/')),
        "catalog.url",
        "has to be sqlite: and the path of a file, as in sqlite:data/jumar.db",
    )?;
    let empty = |path: &Path| path.as_os_str().is_empty();
    ensure(
        !empty(&config.spool.path),
        "spool.path",
        "has to name a folder",
    )?;
    if config.store.kind == StoreKind::Fs {
        let root = &config.store.fs.path;
        ensure(!empty(root), "store.fs.path", "has to name a folder")?;
        for inner in ["staging", "objects"] {
            let taken = root.join(inner);
            ensure(
                !config.spool.path.starts_with(&taken),
                "spool.path",
                format!(
                    "may not lie in {}, which is the store's own",
                    taken.display()
                ),
            )?;
            ensure(
                !config.catalog.path().starts_with(&taken),
                "catalog.url",
                format!(
                    "may not lie in {}, which is the store's own",
                    taken.display()
                ),
            )?;
        }
    }
    ensure(
        !config.catalog.path().starts_with(&config.spool.path),
        "catalog.url",
        "may not lie in spool.path, which is cleaned up",
    )
}

fn store(config: &Config) -> Checked {
    let template = config
        .store
        .key
        .parse::<KeyTemplate>()
        .map_err(|error| ("store.key", error.to_string()))?;
    ensure(
        !config.uploads.instant || template.is_shared(),
        "uploads.instant",
        "needs objects that are addressed by their content: {sha256} and no {id} in store.key",
    )?;
    ensure(
        !template.needs_content() || config.direct.verify == Verify::Readback,
        "direct.verify",
        "has to be \"readback\" where store.key contains {sha256}: the store's checksum is no SHA-256",
    )?;
    let s3 = &config.store.s3;
    ensure(
        s3.access_key_id.is_empty() == s3.secret_access_key.is_empty(),
        if s3.access_key_id.is_empty() {
            "store.s3.access_key_id"
        } else {
            "store.s3.secret_access_key"
        },
        "has to be set too; or set neither, and the environment's credentials are taken",
    )?;
    ensure(
        s3.sse_kms_key_id.is_empty() || s3.sse == Sse::Kms,
        "store.s3.sse_kms_key_id",
        "goes with store.s3.sse = \"kms\" only",
    )?;
    if config.store.kind == StoreKind::Fs {
        return Ok(());
    }
    ensure(!s3.bucket.is_empty(), "store.s3.bucket", "has to be set")?;
    ensure(
        s3.endpoint.is_empty() || is_http_origin(s3.endpoint.trim_end_matches('/')),
        "store.s3.endpoint",
        "has to be empty (AWS), or begin with http:// or https://",
    )?;
    for (key, value) in [
        ("store.s3.attempt_timeout_secs", s3.attempt_timeout_secs),
        ("store.s3.connect_timeout_secs", s3.connect_timeout_secs),
        ("store.s3.max_attempts", u64::from(s3.max_attempts)),
    ] {
        ensure(value >= 1, key, "has to be at least 1")?;
    }
    let prefix = s3.prefix.trim_end_matches('/');
    ensure(
        prefix.is_empty() || prefix.parse::<crate::model::StoreKey>().is_ok(),
        "store.s3.prefix",
        "may have letters, digits, '-', '_' and '.' between single slashes, and may not begin with one",
    )
}

fn uploads(config: &Config) -> Checked {
    let uploads = &config.uploads;
    for (key, value) in [
        ("uploads.chunk_size_bytes", uploads.chunk_size_bytes),
        ("uploads.max_size_bytes", uploads.max_size_bytes),
        ("uploads.session_ttl_secs", uploads.session_ttl_secs),
        (
            "uploads.max_parallel_chunks",
            uploads.max_parallel_chunks as u64,
        ),
        (
            "uploads.max_checksummed_chunk_bytes",
            uploads.max_checksummed_chunk_bytes,
        ),
        ("uploads.commit_interval_secs", uploads.commit_interval_secs),
        ("uploads.idempotency_secs", uploads.idempotency_secs),
    ] {
        ensure(value >= 1, key, "has to be at least 1")?;
    }
    ensure(
        i64::try_from(uploads.max_size_bytes).is_ok(),
        "uploads.max_size_bytes",
        "has to be less than 9223372036854775808",
    )?;
    ensure(
        uploads.chunk_size_bytes <= uploads.max_size_bytes,
        "uploads.chunk_size_bytes",
        "may not be more than uploads.max_size_bytes",
    )?;
    ensure(
        uploads.session_ttl_secs <= uploads.session_max_age_secs,
        "uploads.session_ttl_secs",
        "may not be more than uploads.session_max_age_secs",
    )?;
    ensure(
        uploads.memory_budget_bytes >= 16 << 20,
        "uploads.memory_budget_bytes",
        "has to be at least 16777216",
    )?;
    ensure(
        config.store.kind == StoreKind::Fs || config.spool.max_bytes >= uploads.chunk_size_bytes,
        "spool.max_bytes",
        "has to be at least uploads.chunk_size_bytes",
    )
}

/// The longest that a signature of S3 may be good for.
const MAX_URL_TTL_SECS: u64 = 7 * 24 * 3600;

fn direct_and_objects(config: &Config) -> Checked {
    ensure(
        (1..=MAX_URL_TTL_SECS).contains(&config.direct.url_ttl_secs),
        "direct.url_ttl_secs",
        format!("has to be between 1 and {MAX_URL_TTL_SECS}"),
    )?;
    ensure(
        config.objects.max_size_bytes >= 1,
        "objects.max_size_bytes",
        "has to be at least 1",
    )
}

fn spaces(config: &Config) -> Checked {
    for (name, space) in &config.spaces {
        let named = |remedy: String| format!("{name}: {remedy}");
        if let Err(why) = name.parse::<SpaceName>() {
            return Err(("spaces", named(why.to_string())));
        }
        if let Err(why) = MediaTypes::new(&space.content_types) {
            return Err(("spaces", named(format!("content_types: {why}"))));
        }
        if !space.key.is_empty()
            && let Err(why) = space.key.parse::<KeyTemplate>()
        {
            return Err(("spaces", named(format!("key: {why}"))));
        }
        for origin in &space.cors_origins {
            ensure(
                is_origin(origin),
                "spaces",
                named(format!("cors_origins: {}", wrong_origin(origin))),
            )?;
        }
    }
    Ok(())
}

fn rate_limits(config: &Config) -> Checked {
    let limits = &config.rate_limits;
    for (key, rate, burst_key, burst) in limits.each() {
        ensure(
            rate.0
                .is_none_or(|rate| (1..=u64::from(u32::MAX)).contains(&rate)),
            key,
            "has to be \"none\", or between 1 and 4294967295",
        )?;
        ensure(burst >= 1, burst_key, "has to be at least 1")?;
    }
    ensure(
        limits.max_keys >= 1,
        "rate_limits.max_keys",
        "has to be at least 1",
    )
}

fn log_and_prune(config: &Config) -> Checked {
    crate::jobs::check_schedule(&config.prune.schedule).map_err(|why| {
        (
            "prune.schedule",
            format!("is no cron expression with seconds, as in \"0 0 * * * *\": {why}"),
        )
    })?;
    crate::telemetry::check_filter(&config.log.level).map_err(|why| {
        (
            "log.level",
            format!(
                "has to be error, warn, info, debug or trace, or directives as in RUST_LOG: {why}"
            ),
        )
    })
}
