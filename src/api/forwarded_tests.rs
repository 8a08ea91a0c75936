use proptest::prelude::*;

use super::*;

const CLIENT: &str = "192.0.2.60";

/// Trusts 10.0.0.0/8 and a network of IPv6.
fn trusted() -> Trusted {
    let networks = ["10.0.0.0/8", "2001:db8:1::/48"];
    Trusted {
        networks: networks.map(|it| it.parse().expect("a network")).to_vec(),
        unix: false,
    }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    headers
}

/// Who asks by plain HTTP, as "scheme address host".
fn asks(trusted: &Trusted, peer: Peer, fields: &[(&str, &str)]) -> String {
    let client = trusted.client(peer, Scheme::HTTP, &headers(fields));
    let host = client.host.as_ref().map_or("-", Authority::as_str);
    format!("{} {} {host}", client.scheme, client.address)
}

fn from(address: &str, fields: &[(&str, &str)]) -> String {
    let peer = Peer::Address(address.parse().expect("an address"));
    asks(&trusted(), peer, fields)
}

fn from_proxy(fields: &[(&str, &str)]) -> String {
    from("10.0.0.1", fields)
}

#[test]
fn strangers_are_not_believed() {
    for fields in [
        &[("Forwarded", "for=192.0.2.60;proto=https;host=evil")][..],
        &[
            ("X-Forwarded-For", CLIENT),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
        ],
    ] {
        assert_eq!(from("203.0.113.9", fields), "http 203.0.113.9 -");
        let nobody = Trusted::default();
        assert_eq!(asks(&nobody, Peer::Unix, fields), "http 127.0.0.1 -");
        let unix = Trusted {
            unix: true,
            ..Trusted::default()
        };
        assert_eq!(asks(&unix, Peer::Unix, fields), "https 192.0.2.60 evil");
    }
}

#[test]
fn an_address_is_told_with_and_without_brackets_and_ports() {
    for (element, address) in [
        ("for=192.0.2.60", CLIENT),
        ("For=\"192.0.2.60:4711\"", CLIENT),
        ("for=\"[2001:db8::17]\"", "2001:db8::17"),
        ("for=\"[2001:db8::17]:4711\";by=10.0.0.1", "2001:db8::17"),
        ("for=\"[::ffff:192.0.2.60]\"", CLIENT),
        ("for=\"192\\.0.2.60\"", CLIENT),
    ] {
        let told = from_proxy(&[("Forwarded", element)]);
        assert_eq!(told, format!("http {address} -"), "{element}");
    }
    for (element, address) in [
        (CLIENT, CLIENT),
        ("192.0.2.60:4711", CLIENT),
        ("2001:db8::17", "2001:db8::17"),
        ("[2001:db8::17]", "2001:db8::17"),
        ("[2001:db8::17]:4711", "2001:db8::17"),
        ("::ffff:192.0.2.60", CLIENT),
    ] {
        let told = from_proxy(&[("X-Forwarded-For", element)]);
        assert_eq!(told, format!("http {address} -"), "{element}");
    }
    assert_eq!(
        from("::ffff:10.0.0.1", &[("X-Forwarded-For", CLIENT)]),
        "http 192.0.2.60 -",
        "a proxy on a socket of both families"
    );
    assert_eq!(from("::ffff:203.0.113.9", &[]), "http 203.0.113.9 -");
}

#[test]
fn the_chain_is_walked_past_trusted_proxies_and_no_further() {
    for (chain, address) in [
        ("192.0.2.60, 10.0.0.3, 2001:db8:1::2", CLIENT),
        ("198.51.100.1, 192.0.2.60, 10.0.0.3", CLIENT),
        ("10.0.0.4, 192.0.2.60", CLIENT),
        ("10.0.0.4, 10.0.0.3", "10.0.0.4"),
        ("192.0.2.60, unknown, 10.0.0.3", "10.0.0.3"),
        ("192.0.2.60, 10.0.0.300, 10.0.0.3", "10.0.0.3"),
        ("192.0.2.60, , 10.0.0.3", "10.0.0.3"),
        ("nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
    ] {
        let told = from_proxy(&[("X-Forwarded-For", chain)]);
        assert_eq!(told, format!("http {address} -"), "{chain}");
    }
    for (chain, told) in [
        (
            "for=192.0.2.60;proto=https;host=up.example, for=10.0.0.3;proto=http;host=inner",
            "https 192.0.2.60 up.example",
        ),
        (
            "for=198.51.100.1;proto=https;host=evil, for=192.0.2.60",
            "http 192.0.2.60 -",
        ),
        (
            "for=192.0.2.60, for=_hidden;proto=https, for=10.0.0.3",
            "https 10.0.0.3 -",
        ),
        (
            "for=192.0.2.60, for=unknown, for=10.0.0.3;host=inner",
            "http 10.0.0.3 inner",
        ),
        ("for=192.0.2.60, proto=https", "https 10.0.0.1 -"),
        ("for=192.0.2.60, nonsense, for=10.0.0.3", "http 10.0.0.3 -"),
        ("for=192.0.2.60;;", "http 192.0.2.60 -"),
        ("for=\"192.0.2.60", "http 10.0.0.1 -"),
        ("for=\"192.0.2.60\"x", "http 10.0.0.1 -"),
        ("for=192.0.2.60;proto=ftp;host=a@b", "http 192.0.2.60 -"),
        // A stranger's quotation that the proxy's own element would end.
        (
            "for=198.51.100.1, for=\", for=\"[2001:db8::17]\"",
            "http 10.0.0.1 -",
        ),
        ("for=\"a,b;c=\\\"d\", for=192.0.2.60", "http 192.0.2.60 -"),
    ] {
        assert_eq!(from_proxy(&[("Forwarded", chain)]), told, "{chain}");
    }
}

#[test]
fn lines_are_one_list() {
    let lines = [
        ("X-Forwarded-For", CLIENT),
        ("X-Forwarded-For", "10.0.0.3"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Proto", "HTTPS"),
        ("X-Forwarded-Host", "evil, up.example:8443"),
    ];
    assert_eq!(from_proxy(&lines), "https 192.0.2.60 up.example:8443");
    let lines = [
        ("Forwarded", "for=198.51.100.1, for=192.0.2.60"),
        ("Forwarded", "for=10.0.0.3"),
    ];
    assert_eq!(from_proxy(&lines), "http 192.0.2.60 -");
}

#[test]
fn two_kinds_have_to_agree() {
    let both = |forwarded| {
        from_proxy(&[
            ("Forwarded", forwarded),
            ("X-Forwarded-For", CLIENT),
            ("X-Forwarded-Proto", "https"),
        ])
    };
    assert_eq!(both("for=192.0.2.60;proto=https"), "https 192.0.2.60 -");
    assert_eq!(both("for=198.51.100.1;proto=https"), "http 10.0.0.1 -");
    assert_eq!(
        both("for=192.0.2.60;proto=https;host=evil"),
        "http 10.0.0.1 -"
    );
}

proptest! {
    #[test]
    fn whatever_a_stranger_sends_the_proxys_own_element_decides(sent in "[ -~]{0,60}") {
        let chain = format!("{sent}, for=\"[2001:db8::17]\";proto=https");
        let told = from_proxy(&[("Forwarded", &chain)]);
        let lost = "http 10.0.0.1 -";
        prop_assert!(told == "https 2001:db8::17 -" || told == lost, "{chain}: {told}");
        let chain = format!("{sent}, 192.0.2.60");
        prop_assert_eq!(from_proxy(&[("X-Forwarded-For", &chain)]), "http 192.0.2.60 -");
    }
}
