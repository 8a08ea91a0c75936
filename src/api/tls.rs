//! TLS on a listener: the certificate and its key, which clients are let in, and how both are changed while connections are
//! open.
//!
//! Modern protocols only: TLS 1.3, and TLS 1.2 with forward secrecy and authenticated encryption, which is all that rustls
//! has. The files are looked at again and again; what a connection began with it keeps, so a change disturbs none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// All that is offered. HTTP/2 is not: the interim answers (104) of the IETF's protocol cannot be sent on it.
const ALPN: &[u8] = b"http/1.1";

/// The files, all of them PEM.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate, and after it those of the authorities between it and the root.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities of the clients that are let in. None: no client is asked for a certificate.
    pub client_ca: Option<PathBuf>,
}

/// A file that TLS cannot be had with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {problem}", .file.display())]
pub struct TlsError {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    /// Which file.
    pub file: PathBuf,
    /// What is wrong, and what would be right. Nothing of what the file holds.
    pub problem: String,
}

/// Begins connections with what the files said last.
#[derive(Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    handshake_within: Duration,
}

impl Tls {
    /// Reads the files. They are looked at again as long as [`Reload::run`] runs.
    pub async fn open(
        files: Files,
        handshake_within: Duration,
    ) -> Result<(Self, Reload), TlsError> {
        let contents = Contents::read(&files).await?;
        let config = contents.configure(&files)?;
        let (sender, current) = watch::channel(config);
        let tls = Self {
            current,
            handshake_within,
        };
        let reload = Reload {
            files,
            seen: Ok(contents),
            sender,
        };
        Ok((tls, reload))
    }

    /// The handshake, within its time.
    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.borrow()));
        tokio::time::timeout(self.handshake_within, acceptor.accept(stream)).await?
    }
}

/// Notices that the files have changed.
pub struct Reload {
    files: Files,
    seen: Result<Contents, TlsError>,
    sender: watch::Sender<Arc<ServerConfig>>,
}

impl Reload {
    /// Looks at the files so often, for ever.
    pub async fn run(mut self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.look().await;
        }
    }

    /// Takes over files that have changed and fit together. Of others it says once that the old ones are kept.
    async fn look(&mut self) {
        let found = Contents::read(&self.files).await;
        if found == self.seen {
            return;
        }
        let configured = match &found {
            Ok(contents) => contents.configure(&self.files),
            Err(error) => Err(error.clone()),
        };
        match configured {
            Ok(config) => {
                self.sender.send_replace(config);
                tracing::info!(cert_file = %self.files.cert.display(), "the new certificate is used from now on");
            }
            Err(error) => tracing::warn!(
                %error,
                "the files of TLS have changed and cannot be used; the old ones are kept"
            ),
        }
        self.seen = found;
    }
}

/// What the files hold. Compared as it is, since a file may be replaced without its time telling.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    async fn read(files: &Files) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read("tls.cert_file", &files.cert).await?,
            key: read("tls.key_file", &files.key).await?,
            client_ca: match &files.client_ca {
                Some(file) => Some(read("tls.client_ca_file", file).await?),
                None => None,
            },
        })
    }

    fn configure(&self, files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = certificates("tls.cert_file", &files.cert, &self.cert)?;
        // The parser's own error may show a line of the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError {
            key: "tls.key_file",
            file: files.key.clone(),
            problem: "holds no private key; it has to be PEM: PKCS #8, PKCS #1 or SEC 1, and not encrypted"
                .to_owned(),
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for both protocols");
        let builder = match files.client_ca.as_deref().zip(self.client_ca.as_deref()) {
            Some((file, pem)) => {
                let verifier = client_verifier(file, pem, provider)?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| unfit(files, &error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

fn client_verifier(
    file: &Path,
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let wrong = |problem: String| TlsError {
        key: "tls.client_ca_file",
        file: file.to_owned(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.client_ca_file", file, pem)? {
        roots.add(certificate).map_err(|error| {
            wrong(format!(
                "holds a certificate that is no authority's: {error}"
            ))
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| wrong(format!("cannot be used: {error}")))
}

fn unfit(files: &Files, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError {
            key: "tls.key_file",
            file: files.key.clone(),
            problem: format!(
                "is not the key of the certificate in {}, which has to be the first one there",
                files.cert.display()
            ),
        },
        rustls::Error::InvalidCertificate(why) => TlsError {
            key: "tls.cert_file",
            file: files.cert.clone(),
            problem: format!("holds a certificate that cannot be used: {why}"),
        },
        _ => TlsError {
            key: "tls.key_file",
            file: files.key.clone(),
            problem: "holds a key that cannot be used; it has to be ECDSA, Ed25519 or RSA"
                .to_owned(),
        },
    }
}

async fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(file).await.map_err(|error| TlsError {
        key,
        file: file.to_owned(),
        problem: format!("cannot be read: {error}"),
    })
}

fn certificates(
    key: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError {
            key,
            file: file.to_owned(),
            problem: "holds no certificates; it has to be PEM, with -----BEGIN CERTIFICATE-----"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// A folder with a certificate, its key, and an authority.
    fn folder() -> (TempDir, Files) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            client_ca: Some(folder.path().join("ca.pem")),
        };
        let (cert, key) = pair();
        write(&files.cert, &cert);
        write(&files.key, &key);
        write(ca(&files), &cert);
        (folder, files)
    }

    fn pair() -> (String, String) {
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a certificate");
        (cert.pem(), signing_key.serialize_pem())
    }

    fn write(file: &Path, text: &str) {
        std::fs::write(file, text).expect("written");
    }

    fn cert(files: &Files) -> &Path {
        &files.cert
    }

    fn key(files: &Files) -> &Path {
        &files.key
    }

    fn ca(files: &Files) -> &Path {
        files.client_ca.as_deref().expect("named")
    }

    /// What is said of the files when one of them holds this instead; `None`: when it is not there.
    async fn wrong(which: fn(&Files) -> &Path, text: Option<&str>) -> String {
        let (folder, files) = folder();
        match text {
            Some(text) => write(which(&files), text),
            None => std::fs::remove_file(which(&files)).expect("it was there"),
        }
        let error = Tls::open(files, WITHIN).await.err().expect("refused");
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "…")
    }

    #[tokio::test]
    async fn sealed_a_wrong_file_is_named_and_not_shown() {
        insta::assert_snapshot!(wrong(cert, None).await, @"tls.cert_file: …/cert.pem: cannot be read: No such file or directory (os error 2)");
        insta::assert_snapshot!(wrong(cert, Some("")).await, @"tls.cert_file: …/cert.pem: holds no certificates; it has to be PEM, with -----BEGIN CERTIFICATE-----");
        insta::assert_snapshot!(wrong(cert, Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")).await, @"tls.cert_file: …/cert.pem: holds a certificate that cannot be used: BadEncoding");
        insta::assert_snapshot!(wrong(key, None).await, @"tls.key_file: …/key.pem: cannot be read: No such file or directory (os error 2)");
        insta::assert_snapshot!(wrong(key, Some(&pair().0)).await, @"tls.key_file: …/key.pem: holds no private key; it has to be PEM: PKCS #8, PKCS #1 or SEC 1, and not encrypted");
        insta::assert_snapshot!(wrong(key, Some(&pair().1)).await, @"tls.key_file: …/key.pem: is not the key of the certificate in …/cert.pem, which has to be the first one there");
        insta::assert_snapshot!(wrong(key, Some("-----BEGIN hunter2\n")).await, @"tls.key_file: …/key.pem: holds no private key; it has to be PEM: PKCS #8, PKCS #1 or SEC 1, and not encrypted");
        insta::assert_snapshot!(wrong(key, Some("-----BEGIN PRIVATE KEY-----\nhunter2=\n-----END PRIVATE KEY-----\n")).await, @"tls.key_file: …/key.pem: holds a key that cannot be used; it has to be ECDSA, Ed25519 or RSA");
        insta::assert_snapshot!(wrong(ca, Some(&pair().1)).await, @"tls.client_ca_file: …/ca.pem: holds no certificates; it has to be PEM, with -----BEGIN CERTIFICATE-----");
    }

    #[tokio::test]
    async fn only_files_that_fit_together_are_taken_over() {
        let (_folder, files) = folder();
        let (tls, mut reload) = Tls::open(files.clone(), WITHIN).await.expect("sound");
        let mut current = tls.current.clone();
        let changed = |current: &mut watch::Receiver<_>| {
            let changed = current.has_changed().expect("it goes on");
            current.mark_unchanged();
            changed
        };
        reload.look().await;
        assert!(!changed(&mut current), "nothing is new");
        let (cert, key) = pair();
        write(&files.cert, &cert);
        reload.look().await;
        assert!(!changed(&mut current), "half of a pair");
        std::fs::remove_file(&files.key).expect("it was there");
        reload.look().await;
        assert!(!changed(&mut current), "no key");
        write(&files.key, &key);
        reload.look().await;
        assert!(changed(&mut current), "a new pair");
        reload.look().await;
        assert!(!changed(&mut current), "the same again");
        write(
            ca(&files),
            &KeyPair::generate().expect("a key").serialize_pem(),
        );
        reload.look().await;
        assert!(!changed(&mut current), "no authority");
        write(ca(&files), &cert);
        reload.look().await;
        assert!(changed(&mut current), "a new authority");
    }
}
