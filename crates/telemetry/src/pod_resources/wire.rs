//! One call of gRPC, and the messages of the kubelet's answer that are read.

use std::path::Path;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request, Version};
use prost::Message;
use tokio::net::UnixStream;
use tracing::debug;

use super::{ANSWER_BYTES_MAX, PodResourcesError};

/// The kubelet does not look at the host.
const LIST: &str = "http://localhost/v1.PodResourcesLister/List";

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// Asks for all pods of the node. A connection of its own: a kubelet that was restarted has a new
/// socket.
pub(super) async fn list(socket: &Path) -> Result<ListPodResourcesResponse, PodResourcesError> {
    let path = || socket.to_owned();
    let broken = |source| PodResourcesError::Exchange { path: path(), source };
    let refuse = |what: String| PodResourcesError::Answer { path: path(), what };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| PodResourcesError::Socket { path: path(), source })?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    // Ends with the last handle of the connection, which is dropped with this call.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "the kubelet's connection ended");
        }
    });
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(LIST)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("constants are valid");
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
    // An empty message.
    body.send_data(Bytes::from_static(&[0; PREFIX_BYTES]), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    if response.status() != http::StatusCode::OK {
        return Err(refuse(format!("HTTP status {}", response.status())));
    }
    refused(socket, response.headers())?;
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(refuse(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
        body.flow_control().release_capacity(chunk.len()).map_err(broken)?;
        bytes.put(chunk);
    }
    match body.trailers().await.map_err(broken)? {
        Some(trailers) => refused(socket, &trailers)?,
        None => return Err(refuse("an answer without its end".to_owned())),
    }
    message(&bytes).map_err(refuse)
}

/// An error where the headers or trailers tell of one. A refusal without a message comes in the
/// headers, any other in the trailers.
fn refused(socket: &Path, headers: &http::HeaderMap) -> Result<(), PodResourcesError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(status) = text("grpc-status").filter(|status| *status != "0") else { return Ok(()) };
    Err(PodResourcesError::Refused {
        path: socket.to_owned(),
        // 2 is "unknown" in gRPC's own table.
        status: status.parse().unwrap_or(2),
        message: text("grpc-message").unwrap_or_default().chars().take(200).collect(),
    })
}

/// The one message of a body.
fn message(body: &[u8]) -> Result<ListPodResourcesResponse, String> {
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(format!("an answer of {} bytes", body.len()));
    };
    let [compressed, length @ ..] = *prefix;
    // 32 bits fit where we run.
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || message.len() != length {
        return Err(format!("a message of {length} bytes in {} bytes", message.len()));
    }
    ListPodResourcesResponse::decode(message).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field that is read, by the name and number that Kubernetes gives it.
    #[test]
    fn fields_are_numbered_as_kubernetes_numbers_them() {
        let proto = include_str!("../../proto/podresources-v1.proto");
        for (of, fields) in [
            ("ListPodResourcesResponse", &["repeated PodResources pod_resources = 1;"][..]),
            (
                "PodResources",
                &[
                    "string name = 1;",
                    "string namespace = 2;",
                    "repeated ContainerResources containers = 3;",
                ],
            ),
            ("ContainerResources", &["string name = 1;", "repeated ContainerDevices devices = 2;"]),
            ("ContainerDevices", &["string resource_name = 1;", "repeated string device_ids = 2;"]),
        ] {
            let start = proto.find(&format!("message {of} {{")).expect(of);
            let message = &proto[start..start + proto[start..].find('}').expect("it ends")];
            for field in fields {
                assert!(message.contains(field), "{of}: {field}");
            }
        }
        let method = "rpc List(ListPodResourcesRequest) returns (ListPodResourcesResponse)";
        assert!(proto.contains(method) && LIST.ends_with("/v1.PodResourcesLister/List"));
    }

    #[test]
    fn a_body_that_is_no_message_is_refused() {
        for bad in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 1], &[0, 0, 0, 0, 1, 9]]
        {
            assert!(message(bad).is_err(), "{bad:?}");
        }
        assert_eq!(message(&[0; 5]), Ok(ListPodResourcesResponse::default()));
    }
}
