//! Flags about Prometheus, and the connection that follows from them.
//!
//! No flag takes a secret: command lines are seen by every process of a machine.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use gpu_autoscaler_telemetry::connection::{
    Authorization, CertificateFiles, Connection, Credentials,
};
use gpu_autoscaler_telemetry::http;
use gpu_autoscaler_telemetry::prometheus::Prometheus;
use tracing::warn;

/// Where Prometheus is, and how it is told who asks.
#[derive(Args, Clone, Debug, Default)]
pub struct PrometheusFlags {
    /// Prometheus that scrapes the DCGM exporters; empty for none.
    #[arg(
        long,
        value_name = "URL",
        env = "PROMETHEUS_URL",
        default_value = "http://prometheus-operated.gpu-autoscaler-system.svc:9090"
    )]
    pub prometheus_url: String,

    /// File with the bearer token that Prometheus wants; read again for every query.
    #[arg(long, value_name = "FILE", conflicts_with = "prometheus_username")]
    pub prometheus_bearer_token_file: Option<PathBuf>,

    /// User of basic authentication.
    #[arg(long, value_name = "NAME", requires = "prometheus_password_file")]
    pub prometheus_username: Option<String>,

    /// File with the password of that user; read again for every query.
    #[arg(long, value_name = "FILE", requires = "prometheus_username")]
    pub prometheus_password_file: Option<PathBuf>,

    /// PEM of a client certificate; a renewed one is used from the next query on.
    #[arg(long, value_name = "FILE", requires = "prometheus_key_file")]
    pub prometheus_cert_file: Option<PathBuf>,

    /// PEM of the client certificate's private key.
    #[arg(long, value_name = "FILE", requires = "prometheus_cert_file")]
    pub prometheus_key_file: Option<PathBuf>,

    /// PEM of the authorities that sign Prometheus' certificate, in place of the system's.
    #[arg(long, value_name = "FILE")]
    pub prometheus_ca_file: Option<PathBuf>,

    /// Tenant, sent as `X-Scope-OrgID`, of a store that holds several.
    #[arg(long, value_name = "NAME")]
    pub prometheus_org_id: Option<String>,
}

impl PrometheusFlags {
    /// The server that they name; nothing where they name none.
    ///
    /// # Errors
    /// An address that is none. Files are read when the server is asked.
    pub fn server(&self) -> Result<Option<Prometheus>> {
        if self.prometheus_url.is_empty() {
            return Ok(None);
        }
        let url = http::address(&self.prometheus_url).context("read `--prometheus-url`")?;
        if url.password().is_some() {
            let hint = "use --prometheus-username and --prometheus-password-file";
            warn!(hint, "a password stands in the address of prometheus, for others to see");
        }
        let bearer = self.prometheus_bearer_token_file.clone();
        let bearer = bearer.map(|token_file| Authorization::Bearer { token_file });
        let username = self.prometheus_username.clone();
        let basic = username.zip(self.prometheus_password_file.clone());
        let basic =
            basic.map(|(username, password_file)| Authorization::Basic { username, password_file });
        let files = self.prometheus_cert_file.clone().zip(self.prometheus_key_file.clone());
        let connection = Connection::new(Credentials {
            authorization: bearer.or(basic),
            certificate: files.map(|(certificate_file, key_file)| CertificateFiles {
                certificate_file,
                key_file,
            }),
            authority_file: self.prometheus_ca_file.clone(),
            org_id: self.prometheus_org_id.clone(),
        });
        Ok(Some(Prometheus::new(connection, url)))
    }
}
