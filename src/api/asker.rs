//! Finds out who asks, around all routes.
//!
//! Nothing is refused here: what needs no token (health, discovery, the HEAD of tus) goes on, and whatever passes the
//! [`Gate`](super::gate::Gate) is given what was found out, or why it could not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::cors::Cors;
use super::error::{Code, Problem};
use super::gate::Asker;
use crate::auth::{Authenticator, Refused};
use crate::model::{Caller, DeviceId};

const DEVICE_ID: HeaderName = HeaderName::from_static("device-id");
/// The scheme of RFC 6750.
const BEARER: &str = "Bearer";
/// What a token is needed for.
const CHALLENGE: &str = r#"Bearer realm="jumar""#;
/// When to ask again for keys that were away.
const KEYS_RETRY_SECS: u64 = 5;

/// Who is let in, and how that is found out.
#[derive(Clone)]
pub struct Door {
    /// What knows tokens.
    pub authenticator: Authenticator,
    /// Whether somebody without a token is nobody.
    pub required: bool,
    /// Whose pages may use a space.
    pub origins: Arc<BTreeMap<String, Cors>>,
}

/// The layer: puts an [`Asker`] into the extensions of each request.
pub async fn find_out(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let asker = door.asker(request.headers(), request.version()).await;
    request.extensions_mut().insert(Asker(Arc::new(asker)));
    next.run(request).await
}

impl Door {
    async fn asker(&self, headers: &HeaderMap, version: Version) -> Result<Caller, Problem> {
        let mut caller = match token(headers)? {
            Some(token) => self
                .authenticator
                .authenticate(token)
                .await
                .map_err(|refused| problem(&refused))?,
            None if self.required => return Err(nobody()),
            None => Caller::anonymous(),
        };
        caller.device = device(headers)?;
        caller.few_connections = version < Version::HTTP_2 && headers.contains_key(ORIGIN);
        self.check_origin(&caller, headers)?;
        Ok(caller)
    }

    fn check_origin(&self, caller: &Caller, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(allowed) = self.origins.get(caller.space.as_str()) else {
            return Ok(());
        };
        match headers.get(ORIGIN) {
            Some(origin) if !allowed.allows(origin) => Err(Problem::new(
                Code::Forbidden,
                "pages of this origin may not use the space",
            )),
            _ => Ok(()),
        }
    }
}

/// The token of a request. Another scheme than Bearer is for somebody else, like a proxy on the way.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(field) = only(headers, &AUTHORIZATION, "Authorization")? else {
        return Ok(None);
    };
    let field = field
        .to_str()
        .map_err(|_| Problem::bad_request("Authorization has to be visible ASCII"))?;
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    Ok(scheme.eq_ignore_ascii_case(BEARER).then_some(token.trim()))
}

fn device(headers: &HeaderMap) -> Result<Option<DeviceId>, Problem> {
    let Some(field) = only(headers, &DEVICE_ID, "Device-Id")? else {
        return Ok(None);
    };
    let text = field.to_str().unwrap_or_default();
    let device: Result<DeviceId, _> = text.parse();
    device
        .map(Some)
        .map_err(|why| Problem::bad_request(why.to_string()))
}

fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    spelled: &str,
) -> Result<Option<&'h HeaderValue>, Problem> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next();
    if fields.next().is_some() {
        return Err(Problem::bad_request(format!(
            "a request may have {spelled} only once"
        )));
    }
    Ok(first)
}

/// RFC 6750, section 3: without a token, no error is told.
fn nobody() -> Problem {
    Problem::unauthorized("this needs a token: Authorization: Bearer <token>")
}

fn problem(refused: &Refused) -> Problem {
    let why = refused.to_string();
    tracing::info!(%why, "a token was refused");
    match refused {
        Refused::UnknownSpace => Problem::new(Code::Forbidden, why),
        // It may be good: whoever has it shall not throw it away.
        Refused::KeysAway => Problem::new(Code::StoreUnavailable, why).retry_after(KEYS_RETRY_SECS),
        _ => {
            let challenge = challenge(&why);
            Problem::new(Code::Unauthorized, why).header(WWW_AUTHENTICATE, challenge)
        }
    }
}

/// RFC 6750, section 3.1. A description may have neither quotes nor backslashes.
fn challenge(why: &str) -> HeaderValue {
    let plain = why.replace(['"', '\\'], "'");
    let text = format!(r#"{CHALLENGE}, error="invalid_token", error_description="{plain}""#);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(CHALLENGE))
}

#[cfg(test)]
mod tests;
