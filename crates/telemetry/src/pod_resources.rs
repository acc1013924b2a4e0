//! Who holds which device, as the kubelet of this node tells.
//!
//! The kubelet answers on a unix socket that only processes of its node can reach, so this is read
//! by the node agent. What it says is what it handed out: it knows a holder from the moment of
//! admission, where an exporter learns of one at its next look.
//!
//! Source: <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/#monitoring-device-plugin-resources>
//! and `proto/podresources-v1.proto`; gRPC over HTTP/2:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

mod wire;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{GpuUuid, ObjectKey};
use thiserror::Error;

/// Where a kubelet listens unless it was told otherwise.
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// Of one exchange.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Largest answer, in bytes: the kubelet's own client takes as much.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A device, or a part of one, that a container holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The pod.
    pub pod: ObjectKey,
    /// Its container.
    pub container: Arc<str>,
    /// The resource that was requested, such as `nvidia.com/gpu` or `nvidia.com/mig-1g.10gb`.
    pub resource: Arc<str>,
    /// What it was given for that.
    pub device: HeldDevice,
}

/// What a device plugin gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldDevice {
    /// The device.
    pub id: DeviceId,
    /// Which of the replicas of a time-sliced or MPS-shared device; `None` for one that is held
    /// alone.
    pub replica: Option<u32>,
}

/// How a device plugin names a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceId {
    /// A whole GPU, by its UUID.
    Gpu(GpuUuid),
    /// A MIG device by a UUID of its own, which says nothing of its GPU.
    Mig(Arc<str>),
    /// A MIG device as drivers before 470 name it: by its GPU and its place on it.
    MigOf {
        /// The GPU.
        gpu: GpuUuid,
        /// The GPU instance.
        gpu_instance: u32,
        /// The compute instance on it.
        compute_instance: u32,
    },
    /// Another name, as that of Google's plugin (`nvidia0`).
    Other(Arc<str>),
}

impl HeldDevice {
    /// Reads the name that a device plugin gave.
    ///
    /// Source: NVIDIA/k8s-device-plugin `internal/rm/devices.go` (`id::replica`), NVML
    /// `nvmlDeviceGetUUID` for the names of MIG devices.
    pub fn parse(name: &str) -> Self {
        let (name, replica) = match name.rsplit_once("::") {
            Some((name, number)) if number.parse::<u32>().is_ok() => (name, number.parse().ok()),
            _ => (name, None),
        };
        Self { id: device_id(name), replica }
    }
}

fn device_id(name: &str) -> DeviceId {
    if let Some(place) = name.strip_prefix("MIG-GPU-") {
        let mut parts = place.split('/');
        let (uuid, instance, compute) = (parts.next(), parts.next(), parts.next());
        let number = |part: Option<&str>| part.and_then(|text| text.parse().ok());
        return match (uuid, number(instance), number(compute), parts.next()) {
            (Some(uuid), Some(gpu_instance), Some(compute_instance), None) => DeviceId::MigOf {
                gpu: format!("GPU-{uuid}").into(),
                gpu_instance,
                compute_instance,
            },
            _ => DeviceId::Other(name.into()),
        };
    }
    if name.starts_with("MIG-") {
        DeviceId::Mig(name.into())
    } else if name.starts_with("GPU-") {
        DeviceId::Gpu(name.into())
    } else {
        DeviceId::Other(name.into())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(uuid) => write!(f, "{uuid}"),
            Self::Mig(name) | Self::Other(name) => f.write_str(name),
            Self::MigOf { gpu, gpu_instance, compute_instance } => {
                write!(f, "MIG-{gpu}/{gpu_instance}/{compute_instance}")
            }
        }
    }
}

/// Why the kubelet could not be asked.
#[derive(Debug, Error)]
pub enum PodResourcesError {
    /// Nobody listens, or we may not ask.
    #[error(
        "kubelet socket `{}` cannot be reached\nhint: mount the folder of the socket into the pod, \
         and run as root", path.display()
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("kubelet socket `{}`: the exchange broke off", path.display())]
    Exchange {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: h2::Error,
    },
    /// It took too long.
    #[error("kubelet socket `{}`: no answer within {} s", path.display(), limit.as_secs())]
    Time {
        /// The socket.
        path: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The kubelet refuses.
    #[error("kubelet socket `{}`: refused with gRPC status {status}: {message}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The status: 8 is "asked too often", 12 a kubelet before 1.20.
        status: u16,
        /// In the kubelet's words.
        message: String,
    },
    /// An answer that is none.
    #[error("kubelet socket `{}`: {what}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// All devices that containers of this node hold, of the resources that `wanted` picks.
///
/// A pod that has ended is not among them once the kubelet has noticed.
///
/// # Errors
/// What [`PodResourcesError`] lists. Nothing is known then: no answer is not "nobody holds a
/// device".
pub async fn holdings(
    socket: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Holding>, PodResourcesError> {
    let exchange = wire::list(socket);
    let answer = match tokio::time::timeout(TIME_MAX, exchange).await {
        Ok(answer) => answer?,
        Err(_) => return Err(PodResourcesError::Time { path: socket.into(), limit: TIME_MAX }),
    };
    let mut holdings = Vec::new();
    for pod in answer.pod_resources {
        let key = ObjectKey::new(pod.namespace, pod.name);
        for container in pod.containers {
            let name: Arc<str> = container.name.into();
            for given in container.devices.iter().filter(|given| wanted(&given.resource_name)) {
                let resource: Arc<str> = given.resource_name.as_str().into();
                holdings.extend(given.device_ids.iter().map(|id| Holding {
                    pod: key.clone(),
                    container: Arc::clone(&name),
                    resource: Arc::clone(&resource),
                    device: HeldDevice::parse(id),
                }));
            }
        }
    }
    holdings.sort();
    Ok(holdings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_device_plugins_are_read() {
        let gpu = |uuid: &str| DeviceId::Gpu(uuid.into());
        let of = |gpu_instance, compute_instance| DeviceId::MigOf {
            gpu: "GPU-5f-0".into(),
            gpu_instance,
            compute_instance,
        };
        for (name, id, replica) in [
            ("GPU-5f-0", gpu("GPU-5f-0"), None),
            ("GPU-5f-0::0", gpu("GPU-5f-0"), Some(0)),
            ("GPU-5f-0::15", gpu("GPU-5f-0"), Some(15)),
            ("MIG-c6-1", DeviceId::Mig("MIG-c6-1".into()), None),
            ("MIG-c6-1::3", DeviceId::Mig("MIG-c6-1".into()), Some(3)),
            ("MIG-GPU-5f-0/7/0", of(7, 0), None),
            ("MIG-GPU-5f-0/7/0::2", of(7, 0), Some(2)),
            ("MIG-GPU-5f-0/7", DeviceId::Other("MIG-GPU-5f-0/7".into()), None),
            ("nvidia0", DeviceId::Other("nvidia0".into()), None),
            ("GPU-5f-0::x", gpu("GPU-5f-0::x"), None),
        ] {
            let held = HeldDevice::parse(name);
            assert_eq!(held, HeldDevice { id, replica }, "{name}");
            let replica = replica.map_or_else(String::new, |number| format!("::{number}"));
            assert_eq!(format!("{}{replica}", held.id), name);
        }
    }
}
