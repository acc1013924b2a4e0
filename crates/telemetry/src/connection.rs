//! How a source is asked: what proves who asks, and whom the asker trusts.
//!
//! Secrets are in files, are read again for every request, and so follow their rotation: neither a
//! kubelet's projected token nor a renewed certificate needs a restart.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, RequestBuilder};
use tokio::sync::Mutex;

use crate::http::{self, ReadError};

/// Longest file of a secret that is read, in bytes. A bundle of authorities is about 250 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What proves who asks, and whom the asker trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The header `Authorization`.
    pub authorization: Option<Authorization>,
    /// A client certificate.
    pub certificate: Option<CertificateFiles>,
    /// PEM of the authorities that may have signed the server's certificate, in place of the
    /// system's.
    pub authority_file: Option<PathBuf>,
    /// The tenant of a store that holds several, sent as `X-Scope-OrgID`.
    ///
    /// Source: <https://cortexmetrics.io/docs/guides/auth/>; Mimir, Loki and Thanos follow it.
    pub org_id: Option<String>,
}

/// The header `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// `Bearer` and what the file holds.
    Bearer {
        /// Holds the token.
        token_file: PathBuf,
    },
    /// `Basic`.
    Basic {
        /// No secret.
        username: String,
        /// Holds the password.
        password_file: PathBuf,
    },
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM of the certificate and of those between it and its authority.
    pub certificate_file: PathBuf,
    /// PEM of its private key.
    pub key_file: PathBuf,
}

/// A client that shows its credentials.
pub struct Connection {
    credentials: Credentials,
    built: Mutex<Option<Built>>,
}

/// A client, and the files that it was made of: a new client only for new files, since one keeps
/// its connections.
struct Built {
    pem: Pem,
    client: Client,
}

#[derive(PartialEq, Eq)]
struct Pem {
    identity: Option<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of files only; what a client was made of is a secret.
        f.debug_struct("Connection").field("credentials", &self.credentials).finish()
    }
}

impl Connection {
    /// Nothing is read before the first request.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, built: Mutex::new(None) }
    }

    /// Whether it sends a header `Authorization`.
    pub(crate) fn authorizes(&self) -> bool {
        self.credentials.authorization.is_some()
    }

    /// The request that `make` makes of a client, with the headers that prove who asks.
    ///
    /// # Errors
    /// [`ReadError::File`] and [`ReadError::Secret`] where a file cannot be read or used;
    /// [`ReadError::Client`].
    pub(crate) async fn request(
        &self,
        make: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<RequestBuilder, ReadError> {
        let mut request = make(&self.client().await?);
        match &self.credentials.authorization {
            None => {}
            Some(Authorization::Bearer { token_file }) => {
                let token = secret(token_file).await?;
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| unusable(token_file, "holds more than a token"))?;
                value.set_sensitive(true);
                request = request.header(reqwest::header::AUTHORIZATION, value);
            }
            Some(Authorization::Basic { username, password_file }) => {
                let password = secret(password_file).await?;
                request = request.basic_auth(username, Some(password));
            }
        }
        if let Some(org_id) = &self.credentials.org_id {
            request = request.header(HeaderName::from_static("x-scope-orgid"), org_id);
        }
        Ok(request)
    }

    async fn client(&self) -> Result<Client, ReadError> {
        let pem = self.pem().await?;
        let mut built = self.built.lock().await;
        match &*built {
            Some(built) if built.pem == pem => Ok(built.client.clone()),
            _ => {
                let client = self.build(&pem)?;
                *built = Some(Built { pem, client: client.clone() });
                Ok(client)
            }
        }
    }

    async fn pem(&self) -> Result<Pem, ReadError> {
        let identity = match &self.credentials.certificate {
            None => None,
            Some(files) => {
                let mut pem = bytes(&files.certificate_file).await?;
                pem.push(b'\n');
                pem.extend(bytes(&files.key_file).await?);
                Some(pem)
            }
        };
        let authorities = match &self.credentials.authority_file {
            None => None,
            Some(path) => Some(bytes(path).await?),
        };
        Ok(Pem { identity, authorities })
    }

    fn build(&self, pem: &Pem) -> Result<Client, ReadError> {
        let mut client = http::client_builder();
        if let (Some(identity), Some(files)) = (&pem.identity, &self.credentials.certificate) {
            // What the library says of a bad key may quote it.
            let identity = Identity::from_pem(identity).map_err(|_| {
                unusable(
                    &files.certificate_file,
                    "and the key beside it are no certificate and private key in PEM",
                )
            })?;
            client = client.identity(identity);
        }
        if let (Some(pem), Some(path)) = (&pem.authorities, &self.credentials.authority_file) {
            let authorities = Certificate::from_pem_bundle(pem).ok().filter(|all| !all.is_empty());
            let authorities =
                authorities.ok_or_else(|| unusable(path, "holds no certificate in PEM"))?;
            client = client.tls_certs_only(authorities);
        }
        client.build().map_err(ReadError::Client)
    }
}

fn unusable(path: &Path, what: &'static str) -> ReadError {
    ReadError::Secret { path: path.to_owned(), what }
}

/// One line of text; the space around it is not part of it.
async fn secret(path: &Path) -> Result<String, ReadError> {
    let text = String::from_utf8(bytes(path).await?);
    let text = text.map_err(|_| unusable(path, "is no text"))?;
    match text.trim() {
        "" => Err(unusable(path, "is empty")),
        secret if secret.contains(['\n', '\r']) => Err(unusable(path, "holds several lines")),
        secret => Ok(secret.to_owned()),
    }
}

async fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::File { path: path.to_owned(), source };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(path, "is larger than 1 MiB"));
    }
    tokio::fs::read(path).await.map_err(failed)
}
