//! Who is asking: the other end of the connection, or whom a trusted proxy there speaks for.
//!
//! `Forwarded` (RFC 7239) and `X-Forwarded-For`, `-Proto` and `-Host` are believed only where a trusted proxy wrote them.
//! Each proxy adds at the right whom it was asked by, so the chain is walked from there, past trusted proxies, to the first
//! address that is none; what stands further left a stranger may have made up. What cannot be read, or hides an address,
//! ends the walk at the last address believed.
//!
//! A proxy that sets one kind may let a client's own fields of the other through. `Forwarded` goes first, but where both
//! kinds are there and differ, neither is believed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::FORWARDED;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The other end of a connection. It is among the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Address(IpAddr),
    /// Over a Unix socket, so from this machine.
    Unix,
}

/// Who is asking, and how. It is among the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Where from. Loopback for whoever comes over a Unix socket.
    pub address: IpAddr,
    /// By which scheme the client itself asked, before any proxy.
    pub scheme: Scheme,
    /// Which host the client asked for, where a proxy said so.
    pub host: Option<Authority>,
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// Addresses of proxies.
    pub networks: Vec<IpNet>,
    /// Whoever comes over a Unix socket.
    pub unix: bool,
}

impl Trusted {
    /// Who asks by a connection of this scheme with these header fields.
    #[must_use]
    pub fn client(&self, peer: Peer, scheme: Scheme, headers: &HeaderMap) -> Client {
        let (address, trusted) = match peer {
            Peer::Address(address) => {
                let address = address.to_canonical();
                (address, self.trusts(address))
            }
            Peer::Unix => (Ipv4Addr::LOCALHOST.into(), self.unix),
        };
        let told = if trusted {
            self.told(headers)
        } else {
            Told::default()
        };
        Client {
            address: told.address.unwrap_or(address),
            scheme: told.scheme.unwrap_or(scheme),
            host: told.host,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    fn told(&self, headers: &HeaderMap) -> Told {
        match (self.forwarded(headers), self.x_forwarded(headers)) {
            (Some(told), Some(other)) if told != other => {
                tracing::debug!("Forwarded and X-Forwarded-* differ; neither is believed");
                Told::default()
            }
            (Some(told), _) | (None, Some(told)) => told,
            (None, None) => Told::default(),
        }
    }

    /// What `Forwarded` says, if it is there.
    fn forwarded(&self, headers: &HeaderMap) -> Option<Told> {
        headers.get(FORWARDED)?;
        let mut told = Told::default();
        'walk: for line in headers.get_all(FORWARDED).iter().rev() {
            let elements = line.to_str().ok().and_then(|line| split(line, ','));
            let Some(elements) = elements else { break };
            for element in elements.into_iter().rev() {
                let Some(element) = element_of(element) else {
                    break 'walk;
                };
                told.scheme = element.scheme.or(told.scheme);
                told.host = element.host.or(told.host);
                let Some(address) = element.address else {
                    break 'walk;
                };
                told.address = Some(address);
                if !self.trusts(address) {
                    break 'walk;
                }
            }
        }
        Some(told)
    }

    /// What `X-Forwarded-*` say, if they are there. Scheme and host belong to no element of the chain: the last of each is
    /// taken, which the nearest proxy set or let pass.
    fn x_forwarded(&self, headers: &HeaderMap) -> Option<Told> {
        let present = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST]
            .iter()
            .any(|name| headers.contains_key(name));
        if !present {
            return None;
        }
        let mut address = None;
        for element in from_the_right(headers, &X_FORWARDED_FOR) {
            let Some(next) = node(element) else { break };
            address = Some(next);
            if !self.trusts(next) {
                break;
            }
        }
        let last = |name| from_the_right(headers, name).next();
        Some(Told {
            address,
            scheme: last(&X_FORWARDED_PROTO).and_then(scheme),
            host: last(&X_FORWARDED_HOST).and_then(host),
        })
    }
}

/// What proxies say, or one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<Authority>,
}

/// The elements of a list field, the last one first. A line that is no text is one element that nobody can read.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
        .map(str::trim)
}

/// An element of `Forwarded`, section 4 of RFC 7239. None if it is none.
fn element_of(text: &str) -> Option<Told> {
    let mut told = Told::default();
    for pair in split(text, ';')? {
        if pair.trim().is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        match name.trim_start().to_ascii_lowercase().as_str() {
            "for" => told.address = node(&value),
            "proto" => told.scheme = scheme(&value),
            "host" => told.host = host(&value),
            _ => {}
        }
    }
    Some(told)
}

/// Splits where the separator stands outside of quotes. None if a quotation has no end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text
        .split(|c| {
            let ends = c == separator && !quoted;
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            ends
        })
        .collect();
    (!quoted).then_some(parts)
}

/// A token, or what a quoted string holds.
fn unquoted(value: &str) -> Option<String> {
    let value = value.trim_end();
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let mut text = String::new();
    let mut rest = rest.chars();
    loop {
        match rest.next()? {
            '\\' => text.push(rest.next()?),
            '"' => return rest.next().is_none().then_some(text),
            c => text.push(c),
        }
    }
}

/// An address with or without a port, section 6 of RFC 7239. None if it is hidden or none.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()))
        .or_else(|| bracketed().map(IpAddr::V6))
        .map(|address: IpAddr| address.to_canonical())
}

fn scheme(text: &str) -> Option<Scheme> {
    [Scheme::HTTP, Scheme::HTTPS]
        .into_iter()
        .find(|scheme| scheme.as_str().eq_ignore_ascii_case(text))
}

fn host(text: &str) -> Option<Authority> {
    let host: Authority = text.parse().ok()?;
    (!host.as_str().contains('@')).then_some(host)
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
