//! How fast requests may come: by the address that they come from, and by the token that they have.
//!
//! Two layers. [`limit`] is inside of the one that finds out who asks, and counts what changes something: creations of uploads
//! and everything else apart, since one creation costs as much as many chunks. [`limit_failures`] is around it: who sends too many
//! tokens that are no good is told to wait.
//!
//! An address of IPv6 stands for its network of 64 bits, as whoever has one has them all. What is left is told in the fields of
//! draft-ietf-httpapi-ratelimit-headers-10.

pub mod buckets;

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::error::{Code, Problem};
use super::forwarded::Client;
use super::gate;
use super::method::changes_something;
use crate::model::TokenId;
use buckets::{Buckets, Rate};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const MINUTE_SECS: u32 = 60;

/// The limits. `None`: there is none, as by default.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Creations of uploads from an address.
    pub creations: Option<Rate>,
    /// Everything else from an address that changes something.
    pub chunks: Option<Rate>,
    /// Tokens from an address that were refused.
    pub failures: Option<Rate>,
    /// Creations of uploads with a token.
    pub token_creations: Option<Rate>,
    /// Everything else with a token that changes something.
    pub token_chunks: Option<Rate>,
    /// How many addresses, and how many tokens, each limit tells apart.
    pub max_keys: usize,
}

/// Who has asked how often lately.
pub struct RateLimits {
    creation_paths: HashSet<String>,
    creations: Limits,
    chunks: Limits,
    failures: Option<Limit<IpAddr>>,
}

/// The limits of one kind of requests.
struct Limits {
    address: Option<Limit<IpAddr>>,
    token: Option<Limit<TokenId>>,
}

impl RateLimits {
    /// Nobody has asked yet. `creation_paths`: the routes on which uploads are created.
    #[must_use]
    pub fn new(settings: &Settings, creation_paths: HashSet<String>) -> Self {
        let keys = settings.max_keys;
        Self {
            creation_paths,
            creations: Limits {
                address: Limit::new("creations", settings.creations, keys),
                token: Limit::new("token_creations", settings.token_creations, keys),
            },
            chunks: Limits {
                address: Limit::new("chunks", settings.chunks, keys),
                token: Limit::new("token_chunks", settings.token_chunks, keys),
            },
            failures: Limit::new("failures", settings.failures, keys),
        }
    }

    /// The limits that a request is held to, if it is to any.
    fn of(&self, request: &Request) -> Option<&Limits> {
        if !changes_something(request.method(), request.headers()) {
            return None;
        }
        let route = request.extensions().get::<MatchedPath>();
        let creates = route.is_some_and(|path| self.creation_paths.contains(path.as_str()));
        Some(if creates {
            &self.creations
        } else {
            &self.chunks
        })
    }
}

impl Limits {
    /// Counts a request. What its address refuses does not count for its token.
    fn count(&self, request: &Extensions) -> Vec<Standing> {
        let address = self.address.as_ref().zip(address_of(request));
        let address = address.map(|(limit, address)| limit.take(&address));
        if let Some(refused) = address.filter(|standing| standing.left.is_err()) {
            return vec![refused];
        }
        let token = self.token.as_ref().zip(token_of(request));
        let token = token.map(|(limit, token)| limit.take(&token));
        address.into_iter().chain(token).collect()
    }
}

/// A limit by its name in answers.
struct Limit<K: Hash + Eq + Clone> {
    name: &'static str,
    rate: Rate,
    buckets: Buckets<K>,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(name: &'static str, rate: Option<Rate>, max_keys: usize) -> Option<Self> {
        rate.map(|rate| Self {
            name,
            rate,
            buckets: Buckets::new(rate, max_keys),
        })
    }

    fn take(&self, key: &K) -> Standing {
        self.standing(self.buckets.take(key))
    }

    fn standing(&self, left: Result<u32, Duration>) -> Standing {
        Standing {
            name: self.name,
            rate: self.rate,
            left: left.map_err(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        }
    }
}

/// How a request stands with a limit.
#[derive(Debug, Clone, Copy)]
struct Standing {
    name: &'static str,
    rate: Rate,
    /// How many more are let through, or in how many seconds the next one is.
    left: Result<u32, u64>,
}

impl Standing {
    fn refusal(&self) -> Option<Problem> {
        let retry_after = self.left.err()?;
        metrics::counter!("jumar_rate_limited_total", "limit" => self.name).increment(1);
        let detail = format!("too many requests ({}): slow down", self.name);
        let problem = Problem::new(Code::RateLimited, detail).member("limit", self.name);
        Some(problem.retry_after(retry_after))
    }

    /// What `RateLimit` says of it. A bucket with something in it has one more after the time that one takes.
    fn left_item(&self) -> String {
        let (left, secs) = match self.left {
            Ok(left) => (
                left,
                u64::from(MINUTE_SECS.div_ceil(self.rate.per_minute.get())),
            ),
            Err(retry_after) => (0, retry_after),
        };
        format!(r#""{}";r={left};t={secs}"#, self.name)
    }

    fn policy_item(&self) -> String {
        let quota = self.rate.per_minute;
        format!(r#""{}";q={quota};w={MINUTE_SECS}"#, self.name)
    }
}

fn tell(standings: &[Standing], headers: &mut HeaderMap) {
    let list = |item: fn(&Standing) -> String| {
        let items: Vec<String> = standings.iter().map(item).collect();
        HeaderValue::try_from(items.join(", ")).expect("names and numbers are ASCII")
    };
    if !standings.is_empty() {
        headers.insert(RATE_LIMIT, list(Standing::left_item));
        headers.insert(RATE_LIMIT_POLICY, list(Standing::policy_item));
    }
}

/// Whom a request comes from, as far as limits tell addresses apart.
fn address_of(request: &Extensions) -> Option<IpAddr> {
    let client: &Client = request.get()?;
    Some(match client.address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    })
}

fn token_of(request: &Extensions) -> Option<TokenId> {
    gate::caller(request).ok()?.token.clone()
}

/// Refuses requests that come too fast, once it is known who asks.
pub async fn limit(
    State(limits): State<Arc<RateLimits>>,
    request: Request,
    next: Next,
) -> Response {
    let standings = match limits.of(&request) {
        Some(limits) => limits.count(request.extensions()),
        None => Vec::new(),
    };
    let mut response = match standings.iter().find_map(Standing::refusal) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    tell(&standings, response.headers_mut());
    response
}

/// Where too many tokens were no good, those that are no good are told to wait before they ask again, instead of why. One that is good
/// goes on: others may have the same address. A request without a token is no attempt: clients ask so to learn that they need one.
pub async fn limit_failures(
    State(limits): State<Arc<RateLimits>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = (limits.failures.as_ref())
        .filter(|_| request.headers().contains_key(AUTHORIZATION))
        .zip(address_of(request.extensions()));
    let Some((limit, address)) = limit else {
        return next.run(request).await;
    };
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    let standing = limit.take(&address);
    match standing.refusal() {
        Some(problem) => {
            let mut response = problem.into_response();
            tell(&[standing], response.headers_mut());
            response
        }
        None => response,
    }
}

#[cfg(test)]
mod tests;
