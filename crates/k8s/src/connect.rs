//! The way to an API server: kubeconfig files by the default loading rules, or a pod's own account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::api::Api;

/// Time for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Why no way to a cluster is known.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be used.
    #[error("kubeconfig `{}` cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// The context is not in the kubeconfig.
    #[error("the kubeconfig has no context `{name}`; it has {}", listed(known))]
    Context {
        /// What was asked for.
        name: String,
        /// Contexts that it has.
        known: Vec<String>,
    },
    /// Nothing says where a cluster is.
    #[error(
        "no `--kubeconfig`, nothing usable in `KUBECONFIG` or `~/.kube/config`, and not in a pod"
    )]
    Nowhere {
        /// Why the default files cannot be used.
        #[source]
        source: KubeconfigError,
    },
    /// The account of a pod cannot be used.
    #[error("the service account of this pod cannot be used")]
    InCluster(#[source] InClusterError),
    /// Certificates or keys cannot be used.
    #[error("a client of the API server cannot be made")]
    Client(#[source] kube::Error),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

/// A cluster that can be asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its API server.
    pub api: Api,
    /// The address of the API server.
    pub address: String,
    /// The context of the kubeconfig; `None` in a pod.
    pub context: Option<String>,
}

impl Cluster {
    /// As `kubeconfig` says; else as `KUBECONFIG` does, else `~/.kube/config`, else the service
    /// account of the pod. `context` selects within files.
    ///
    /// # Errors
    /// [`ConnectError`]. Nothing is asked of the server yet.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let read = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .map_err(|source| ConnectError::File { path: path.to_owned(), source })?,
            None => match Kubeconfig::read() {
                Ok(file) => file,
                Err(source) if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => {
                    return Err(ConnectError::Nowhere { source });
                }
                Err(_) => {
                    let config = kube::Config::incluster().map_err(ConnectError::InCluster)?;
                    return Self::over(config, None);
                }
            },
        };
        let name = context.map(str::to_owned).or_else(|| read.current_context.clone());
        if let Some(name) = &name
            && !read.contexts.iter().any(|one| one.name == *name)
        {
            let known = read.contexts.iter().map(|one| one.name.clone()).collect();
            return Err(ConnectError::Context { name: name.clone(), known });
        }
        let options = KubeConfigOptions { context: name.clone(), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(read, &options).await;
        let config = config.map_err(|source| match kubeconfig {
            Some(path) => ConnectError::File { path: path.to_owned(), source },
            None => ConnectError::Nowhere { source },
        })?;
        Self::over(config, name)
    }

    fn over(mut config: kube::Config, context: Option<String>) -> Result<Self, ConnectError> {
        // Whether a write may be repeated is decided by its precondition, not by its transport.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIME_MAX);
        let address = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(ConnectError::Client)?;
        Ok(Self { api: Api::new(client), address, context })
    }
}
