//! Certificates of one run, signed by an authority of its own.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority made for one run; its key is never written.
#[derive(Debug)]
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, followed by nothing: the authority signs it directly.
    pub certificate_pem: String,
    /// The private key in PKCS #8.
    pub key_pem: String,
}

impl CertificateAuthority {
    /// Makes an authority with a fresh ECDSA P-256 key.
    ///
    /// # Errors
    /// What the cryptography library answers.
    pub fn generate() -> Result<Self, rcgen::Error> {
        let mut parameters = CertificateParams::new(Vec::<String>::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "gpu-autoscaler tests");
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// The certificate of the authority, PEM: the `caBundle` of a webhook, base64 encoded.
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for these DNS names and IP addresses.
    ///
    /// # Errors
    /// What the cryptography library answers, for example to a name that is not ASCII.
    pub fn server(&self, names: &[&str]) -> Result<Certificate, rcgen::Error> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.sign(CertificateParams::new(names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate with this common name.
    ///
    /// # Errors
    /// What the cryptography library answers.
    pub fn client(&self, name: &str) -> Result<Certificate, rcgen::Error> {
        let mut parameters = CertificateParams::new(Vec::<String>::new())?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        self.sign(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut parameters: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Certificate, rcgen::Error> {
        parameters.extended_key_usages = vec![purpose];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Certificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// A key pair for signing tokens, both halves PEM.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// The private key in PKCS #8.
    pub private_pem: String,
    /// The public key.
    pub public_pem: String,
}

impl SigningKey {
    /// Makes a fresh ECDSA P-256 key.
    ///
    /// # Errors
    /// What the cryptography library answers.
    pub fn generate() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        Ok(Self { private_pem: key.serialize_pem(), public_pem: key.public_key_pem() })
    }
}
