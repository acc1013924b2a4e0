//! Who may talk to the API server: its certificate, tokens, and the kubeconfigs that carry them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{ControlPlaneError, User};
use crate::certificates::{CertificateAuthority, SigningKey};
use crate::scratch::ScratchDir;

pub(super) const AUTHORITY: &str = "ca.crt";
pub(super) const SERVER_CERTIFICATE: &str = "kube-apiserver.crt";
pub(super) const SERVER_KEY: &str = "kube-apiserver.key";
pub(super) const TOKEN_KEY: &str = "service-account.key";
pub(super) const TOKEN_PUBLIC_KEY: &str = "service-account.pub";
pub(super) const TOKENS: &str = "tokens.csv";

/// A bearer of a token.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) token: String,
}

/// The kubeconfigs of one instance.
#[derive(Debug)]
pub(super) struct Kubeconfigs {
    server: SocketAddr,
    authority: PathBuf,
    admin: PathBuf,
    users: BTreeMap<String, PathBuf>,
}

impl Kubeconfigs {
    /// Makes certificates, tokens and a kubeconfig per user, all inside `scratch`.
    pub(super) fn write(
        scratch: &ScratchDir,
        server: SocketAddr,
        users: &[User],
    ) -> Result<Self, ControlPlaneError> {
        let authority = CertificateAuthority::generate()?;
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        let certificate = authority.server(&names)?;
        let authority = scratch.write(AUTHORITY, &authority.certificate_pem())?;
        scratch.write(SERVER_CERTIFICATE, &certificate.certificate_pem)?;
        scratch.write(SERVER_KEY, &certificate.key_pem)?;
        let signing = SigningKey::generate()?;
        scratch.write(TOKEN_KEY, &signing.private_pem)?;
        scratch.write(TOKEN_PUBLIC_KEY, &signing.public_pem)?;

        let mut this = Self { server, authority, admin: PathBuf::new(), users: BTreeMap::new() };
        let admin = Identity { name: "admin".to_owned(), token: random_token()? };
        let mut tokens = token_line(&admin, &["system:masters".to_owned()]);
        this.admin = this.add(scratch, &admin)?;
        for user in users {
            let identity = Identity { name: user.name.clone(), token: random_token()? };
            tokens += &token_line(&identity, &user.groups);
            let path = this.add(scratch, &identity)?;
            this.users.insert(identity.name, path);
        }
        scratch.write(TOKENS, &tokens)?;
        Ok(this)
    }

    /// Writes the kubeconfig of one more bearer.
    pub(super) fn add(&self, scratch: &ScratchDir, identity: &Identity) -> io::Result<PathBuf> {
        // JSON is YAML; names with a colon, such as `system:node:a`, need no care that way.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": identity.name } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}", self.server),
                "certificate-authority": self.authority,
            } }],
            "users": [{ "name": identity.name, "user": { "token": identity.token } }],
        });
        let file = identity.name.replace(|it: char| !it.is_ascii_alphanumeric(), "-");
        scratch.write(&format!("{file}.kubeconfig"), &config.to_string())
    }

    pub(super) fn admin(&self) -> &Path {
        &self.admin
    }

    pub(super) fn of_user(&self, name: &str) -> Option<&Path> {
        self.users.get(name).map(PathBuf::as_path)
    }
}

/// A line of `--token-auth-file`: token, user, uid, groups in one quoted column.
fn token_line(identity: &Identity, groups: &[String]) -> String {
    let Identity { name, token } = identity;
    format!("{token},\"{name}\",\"{name}\",\"{}\"\n", groups.join(","))
}

/// 128 random bits in hexadecimal: the API server listens where every local user can reach it.
fn random_token() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every text");
        text
    }))
}
