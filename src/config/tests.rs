use std::path::{Path, PathBuf};

use super::*;

/// Reads `text` as a file `jumar.toml`, with variables.
fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jumar.toml");
    std::fs::write(&file, text).expect("written");
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(Some(&file), variables).map_err(|error| {
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line:?}");
        line.replace(&folder.path().display().to_string(), "…")
    })
}

fn wrong(text: &str) -> String {
    read(text, &[]).expect_err("has to be refused")
}

#[test]
fn the_sample_is_the_default() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let config = Config::read(Some(&sample), []).expect("the sample is sound");
    assert_eq!(config, Config::default());
    let text = std::fs::read_to_string(&sample).expect("read above");
    let json = serde_json::to_value(Config::default()).expect("a map");
    for (section, keys) in json.as_object().expect("sections") {
        for key in keys.as_object().expect("keys").keys() {
            let there = text.contains(&format!("\n{key} = ")) || text.contains(&format!(".{key}]"));
            assert!(there, "the sample lacks {section}.{key}");
        }
    }
}

#[test]
fn the_environment_comes_before_the_file() {
    let config = read(
        "[server]\nlisten = \"127.0.0.1:9000\"\n[store.s3]\nbucket = \"file\"",
        &[
            ("JUMAR_STORE__S3__BUCKET", "0123"),
            (
                "JUMAR_SERVER__CORS_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("JUMAR_UPLOADS__CHUNK_SIZE_BYTES", "1024"),
            ("JUMAR_STORE__S3__FORCE_PATH_STYLE", "true"),
            ("PATH", "/bin"),
        ],
    )
    .expect("sound");
    assert_eq!(config.server.listen.port(), 9000);
    assert_eq!(config.store.s3.bucket, "0123");
    assert_eq!(
        config.server.cors_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(config.uploads.chunk_size_bytes, 1024);
    assert!(config.store.s3.force_path_style);
}

#[test]
fn variables_of_others_are_left_alone_and_typing_errors_are_not() {
    let others = [
        ("JUMAR_PORT", "tcp://10.0.0.1:80"),
        ("JUMAR_SERVICE_HOST", "10.0.0.1"),
    ];
    assert_eq!(read("", &others), Ok(Config::default()));
    let typo = read("", &[("JUMAR_SERVER_LISTEN", "0.0.0.0:80")]).expect_err("refused");
    insta::assert_snapshot!(typo, @"JUMAR_SERVER_LISTEN: is no key; write JUMAR_SERVER__LISTEN");
}

#[test]
fn an_unknown_key_names_its_file_and_the_nearest_known_one() {
    insta::assert_snapshot!(wrong("[server]\nlisten_adress = \"x\""), @"…/jumar.toml: server.listen_adress: there is no such key; the nearest is server.listen");
    insta::assert_snapshot!(wrong("[upload]\nx = 1"), @"…/jumar.toml: upload: there is no such key; the nearest is uploads");
    insta::assert_snapshot!(wrong("[store.s3]\nbukcet = \"x\""), @"…/jumar.toml: store.s3.bukcet: there is no such key; the nearest is store.s3.bucket");
    let variable = read("", &[("JUMAR_SPOOL__PTAH", "x")]).expect_err("refused");
    insta::assert_snapshot!(variable, @"JUMAR_SPOOL__PTAH: spool.ptah: there is no such key; the nearest is spool.path");
}

#[test]
fn a_wrong_type_or_value_names_the_key_and_the_remedy() {
    insta::assert_snapshot!(wrong("[uploads]\nchunk_size_bytes = \"8MB\""), @r#"…/jumar.toml: uploads.chunk_size_bytes: has to be a whole number, 0 or more, not string "8MB""#);
    insta::assert_snapshot!(wrong("[uploads]\nchunk_size_bytes = -1"), @"…/jumar.toml: uploads.chunk_size_bytes: has to be a whole number, 0 or more, not signed int `-1`");
    insta::assert_snapshot!(wrong("[uploads]\ndurability = \"most\""), @r#"…/jumar.toml: uploads.durability: has to be one of power, process, not "most""#);
    insta::assert_snapshot!(wrong("[server]\nlisten = \"localhost\""), @r#"…/jumar.toml: server.listen: has to be an IP address and a port, as in "127.0.0.1:8080""#);
    insta::assert_snapshot!(wrong("server = 5"), @"…/jumar.toml: server: is a section; write [server] and its keys below");
    insta::assert_snapshot!(wrong("[store.s3]\ntail = \"bucket\""), @r#"…/jumar.toml: store.s3.tail: has to be one of local, not "bucket""#);
    insta::assert_snapshot!(wrong("[server]\nlisten = \n"), @r#"…/jumar.toml: line 2 is no TOML: invalid string expected `"`, `'`"#);
    let variable = read("", &[("JUMAR_SERVER__DRAIN_SECS", "soon")]).expect_err("refused");
    insta::assert_snapshot!(variable, @"JUMAR_SERVER__DRAIN_SECS: server.drain_secs: has to be a whole number, 0 or more");
    let variable = read("", &[("JUMAR_STORE__KIND", "nfs")]).expect_err("refused");
    insta::assert_snapshot!(variable, @r#"JUMAR_STORE__KIND: store.kind: has to be one of fs, s3, not "nfs""#);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (text, key) in [
        (
            "[uploads]\nchunk_size_bytes = 0",
            "uploads.chunk_size_bytes",
        ),
        (
            "[uploads]\nsession_ttl_secs = 999999",
            "uploads.session_ttl_secs",
        ),
        ("[catalog]\nurl = \"postgres://x\"", "catalog.url"),
        (
            "[catalog]\nurl = \"sqlite:data/objects/jumar.db\"",
            "catalog.url",
        ),
        (
            "[catalog]\nurl = \"sqlite:data/spool/jumar.db\"",
            "catalog.url",
        ),
        ("[spool]\npath = \"data/staging/spool\"", "spool.path"),
        ("[api]\nnative = \"v1\"", "api.native"),
        ("[api]\nnative = \"/a//b\"", "api.native"),
        ("[api]\nnative = \"/a/{id}\"", "api.native"),
        ("[api]\ntus = \"/v1/uploads\"", "api.tus"),
        ("[api]\ntus = \"/v1/uploads/tus\"", "api.tus"),
        ("[api]\nietf = \"/healthz\"", "api.ietf"),
        (
            "[server]\npublic_url = \"example.org\"",
            "server.public_url",
        ),
        (
            "[server]\npublic_url = \"https://example.org/\"",
            "server.public_url",
        ),
        (
            "[server]\ncors_origins = [\"example.org\"]",
            "server.cors_origins",
        ),
        (
            "[server]\nadmin_listen = \"127.0.0.1:8080\"",
            "server.admin_listen",
        ),
        (
            "[server]\nmax_header_bytes = 100",
            "server.max_header_bytes",
        ),
        ("[tls]\ncert_file = \"a.pem\"", "tls.key_file"),
        ("[tls]\nkey_file = \"a.pem\"", "tls.cert_file"),
        ("[tls]\nclient_ca_file = \"a.pem\"", "tls.client_ca_file"),
        ("[tls]\nreload_secs = 0", "tls.reload_secs"),
        (
            "[tls]\nhandshake_timeout_secs = 0",
            "tls.handshake_timeout_secs",
        ),
        ("[store]\nkey = \"{filename}\"", "store.key"),
        ("[uploads]\ninstant = true", "uploads.instant"),
        (
            "[store]\nkey = \"{sha256}\"\n[direct]\nverify = \"store_checksum\"",
            "direct.verify",
        ),
        ("[direct]\nurl_ttl_secs = 0", "direct.url_ttl_secs"),
        ("[direct]\nurl_ttl_secs = 604801", "direct.url_ttl_secs"),
        ("[objects]\nmax_size_bytes = 0", "objects.max_size_bytes"),
        (
            "[store.s3]\naccess_key_id = \"abc\"",
            "store.s3.secret_access_key",
        ),
        (
            "[store.s3]\nsse_kms_key_id = \"abc\"",
            "store.s3.sse_kms_key_id",
        ),
        (
            "[store]\nkind = \"s3\"\n[store.s3]\nbucket = \"\"",
            "store.s3.bucket",
        ),
        (
            "[store]\nkind = \"s3\"\n[store.s3]\nendpoint = \"minio\"",
            "store.s3.endpoint",
        ),
        ("[prune]\nschedule = \"hourly\"", "prune.schedule"),
        ("[log]\nlevel = \"loud\"", "log.level"),
    ] {
        let line = wrong(text);
        assert!(
            line.starts_with(&format!("…/jumar.toml: {key}: ")),
            "{text:?}: {line}"
        );
    }
}

#[test]
fn proxies_and_permissions_are_read_as_they_are_written() {
    let config = read(
        "[server]\nlisten_unix_mode = \"600\"",
        &[("JUMAR_SERVER__TRUSTED_PROXIES", "unix, 10.0.0.0/8, ::1")],
    )
    .expect("sound");
    assert_eq!(config.server.listen_unix_mode, FileMode(0o600));
    let network = |text: &str| TrustedProxy::Network(text.parse().expect("a network"));
    assert_eq!(
        config.server.trusted_proxies,
        [
            TrustedProxy::Unix,
            network("10.0.0.0/8"),
            network("::1/128")
        ]
    );
    insta::assert_snapshot!(wrong("[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]"), @r#"…/jumar.toml: server.trusted_proxies.1: "10.0.0.0/33" has to be an address, a network as in "10.0.0.0/8", or "unix""#);
    let variable = read("", &[("JUMAR_SERVER__TRUSTED_PROXIES", "lb")]).expect_err("refused");
    insta::assert_snapshot!(variable, @r#"JUMAR_SERVER__TRUSTED_PROXIES: server.trusted_proxies.0: "lb" has to be an address, a network as in "10.0.0.0/8", or "unix""#);
    for mode in ["0660", "66", "689", "+66"] {
        let line = wrong(&format!("[server]\nlisten_unix_mode = {mode:?}"));
        assert!(
            line.ends_with("has to be three octal digits, as in \"660\""),
            "{line}"
        );
    }
}

#[test]
fn sealed_secrets_stay_out_of_errors_and_dumps() {
    let line = wrong("[store.s3]\nsecret_access_key = 20406080\naccess_key_id = \"a\"");
    assert!(!line.contains("20406080"), "{line}");
    let line = wrong("[auth.join]\nsecret = 20406080");
    insta::assert_snapshot!(line, @"…/jumar.toml: auth.join.secret: has to be a string");
    let line = wrong("[store.s3]\nsecret_access_key = \"hunter2\" oops\n");
    assert!(!line.contains("hunter2"), "{line}");
    let config = read(
        "[store.s3]\naccess_key_id = \"abcdef\"",
        &[("JUMAR_STORE__S3__SECRET_ACCESS_KEY", "00hunter2")],
    )
    .expect("sound");
    assert_eq!(config.store.s3.secret_access_key.reveal(), "00hunter2");
    let dump = format!(
        "{config:?} {}",
        serde_json::to_string(&config).expect("a map")
    );
    assert!(
        !dump.contains("hunter2") && !dump.contains("abcdef"),
        "{dump}"
    );
}

#[test]
fn a_named_file_has_to_be_there() {
    let missing = PathBuf::from("/nowhere/jumar.toml");
    let error = Config::read(Some(&missing), []).expect_err("refused");
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/jumar.toml: the file cannot be read"),
        "{error}"
    );
}

#[test]
fn only_loopback_is_listened_on_unless_told_insecure() {
    let mut config = Config::default();
    assert_eq!(config.check_exposure(false), Ok(()));
    config.server.admin_listen = "0.0.0.0:8081".parse().expect("an address");
    assert!(config.check_exposure(false).is_err());
    assert_eq!(config.check_exposure(true), Ok(()));
    config.auth.mode = AuthMode::Required;
    assert_eq!(config.check_exposure(false), Ok(()));
}

#[test]
fn keys_and_issuers_of_tokens_have_to_go_together() {
    let secret = "secret = \"0123456789abcdef0123456789abcdef\"";
    let jwt = "issuer = \"https://id.example\"\naudience = \"jumar\"\nkeys_file = \"keys\"";
    for (text, key) in [
        ("[auth]\nleeway_secs = 3601".to_owned(), "auth.leeway_secs"),
        ("[auth]\nrefresh_ms = 0".to_owned(), "auth.refresh_ms"),
        (
            "[auth.join]\nsecret = \"short\"".to_owned(),
            "auth.join.secret",
        ),
        (
            format!("[auth.join]\n{secret}\nalgorithm = \"EdDSA\""),
            "auth.join.algorithm",
        ),
        (
            "[auth.join]\nprivate_key_file = \"join.pem\"".to_owned(),
            "auth.join.algorithm",
        ),
        (
            "[auth.join]\nalgorithm = \"EdDSA\"\nprivate_key_file = \"join.pem\"".to_owned(),
            "auth.join.public_key_file",
        ),
        ("[auth.join]\nissuer = \"\"".to_owned(), "auth.join.issuer"),
        (
            "[auth.jwt]\nkeys_file = \"keys\"".to_owned(),
            "auth.jwt.issuer",
        ),
        (
            format!("[auth.jwt]\n{jwt}\njwks_url = \"https://id.example/keys\""),
            "auth.jwt.jwks_url",
        ),
        (
            format!(
                "[auth.jwt]\n{}",
                jwt.replace("keys_file = \"keys\"", "jwks_url = \"ftp://x\"")
            ),
            "auth.jwt.jwks_url",
        ),
        (
            format!("[auth.jwt]\n{}", jwt.replace("audience = \"jumar\"", "")),
            "auth.jwt.audience",
        ),
        (
            format!("[auth.jwt]\n{jwt}\nalgorithms = [\"HS256\"]"),
            "auth.jwt.algorithms",
        ),
        (
            format!("[auth.jwt]\n{jwt}\nalgorithms = []"),
            "auth.jwt.algorithms",
        ),
        (
            format!("[auth.join]\n{secret}\nissuer = \"https://id.example\"\n[auth.jwt]\n{jwt}"),
            "auth.jwt.issuer",
        ),
    ] {
        let line = wrong(&text);
        assert!(line.contains(&format!(": {key}")), "{text}: {line}");
        assert!(!line.contains("0123456789"), "{line}");
    }
    let both = format!("[auth.join]\n{secret}\n[auth.jwt]\n{jwt}");
    let config = read(&both, &[("JUMAR_AUTH__MODE", "required")]).expect("sound");
    assert!(config.auth.join.is_on() && config.auth.jwt.is_on());
    assert!(!format!("{config:?}").contains("0123456789"));
}

#[test]
fn spaces_are_named_by_who_configures_them_and_have_the_same_keys() {
    let text = "[spaces.photos]\nmax_size_bytes = 100\ncontent_types = [\"image/*\"]\nopen_per_device = \"none\"";
    let variables = [
        ("JUMAR_SPACES__PHOTOS__STORED_BYTES", "0"),
        ("JUMAR_SPACES__FILMS__READ", "space"),
        ("JUMAR_SPACES__FILMS__UPLOADS", "none"),
    ];
    let config = read(text, &variables).expect("sound");
    let photos = &config.spaces["photos"];
    assert_eq!(photos.max_size_bytes, Limit::of(100));
    assert_eq!(photos.open_per_device, Limit(None));
    assert_eq!(photos.stored_bytes, Limit::of(0), "nothing gets in");
    assert_eq!(photos.open_per_token, Space::default().open_per_token);
    assert_eq!(config.spaces["films"].read, crate::engine::Readers::Space);
    assert_eq!(config.spaces["films"].uploads, Limit(None));
}

#[test]
fn what_is_wrong_with_a_space_is_said() {
    insta::assert_snapshot!(wrong("[spaces.photos]\nopen_per_devise = 3"), @"…/jumar.toml: spaces.photos.open_per_devise: there is no such key; the nearest is spaces.photos.open_per_device");
    insta::assert_snapshot!(wrong("[spaces.photos]\nuploads = -1"), @r#"…/jumar.toml: spaces.photos.uploads: has to be a whole number, 0 or more, or "none", not signed int `-1`"#);
    insta::assert_snapshot!(wrong("[spaces.photos]\nuploads = \"many\""), @r#"…/jumar.toml: spaces.photos.uploads: has to be a whole number, 0 or more, or "none", not string "many""#);
    insta::assert_snapshot!(wrong("[spaces.Photos]\nuploads = 1"), @"…/jumar.toml: spaces: Photos: a space's name has to have 64 characters or fewer of a-z, 0-9, - and _, and at least one");
    insta::assert_snapshot!(wrong("[spaces.photos]\ncontent_types = [\"jpeg\"]"), @r#"…/jumar.toml: spaces: photos: content_types: "jpeg" has to be a media type, as in "image/jpeg", or all of a kind, as in "image/*""#);
    insta::assert_snapshot!(wrong("[spaces.photos]\nkey = \"{filename}\""), @r#"…/jumar.toml: spaces: photos: key: the key template "{filename}" has to contain {id} or {sha256}: else two uploads could want the same key"#);
    insta::assert_snapshot!(wrong("[spaces.photos]\nread = \"all\""), @r#"…/jumar.toml: spaces.photos.read: has to be one of owner, space, public, not "all""#);
    insta::assert_snapshot!(wrong("[spaces.photos]\ncors_origins = [\"example.org\"]"), @r#"…/jumar.toml: spaces: photos: cors_origins: "example.org" has to be "*", or scheme and host as in "https://example.org", without a slash at the end"#);
    insta::assert_snapshot!(wrong("[spaces]\nphotos = 1"), @"…/jumar.toml: spaces.photos: is a section; write [spaces.photos] and its keys below");
    let variable = read("", &[("JUMAR_SPACES__PHOTOS__UPLOADS", "many")]).expect_err("refused");
    insta::assert_snapshot!(variable, @r#"JUMAR_SPACES__PHOTOS__UPLOADS: spaces.photos.uploads: has to be a whole number, 0 or more, or "none", not string "many""#);
}
