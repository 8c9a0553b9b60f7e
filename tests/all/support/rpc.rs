//! Any method of any service, called with any bytes; and which methods there are, from the descriptors.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use proto::v1;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::in_time;

/// Bytes as they are, so that any method can be called with anything.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls a method, whatever its kind, with one message, and returns the first answer.
pub async fn call(channel: &Channel, method: &str, message: Bytes) -> Result<Option<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let called = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(tokio_stream::iter([message]));
        let mut answers = grpc.streaming(request, method.parse().unwrap(), Raw).await?.into_inner();
        answers.message().await
    };
    in_time(method, called).await
}

/// Every service, from the descriptors.
pub fn services() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    set.file.iter().flat_map(|file| &file.service).map(|service| service.name().to_owned()).collect()
}

/// Every method of a service, from the descriptors, so that none can be forgotten.
pub fn methods(service: &str) -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| {
        let package = file.package();
        file.service.iter().map(move |service| (package, service))
    });
    let (package, found) = services.into_iter().find(|(_, found)| found.name() == service).unwrap();
    found.method.iter().map(|method| format!("/{package}.{service}/{}", method.name())).collect()
}

/// The kinds of questions that there are.
pub fn questions() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    let messages = set.file.iter().flat_map(|file| &file.message_type);
    let request = messages.into_iter().find(|message| message.name() == "QueryRequest").unwrap();
    request.field.iter().filter(|field| field.oneof_index.is_some()).map(|field| field.name().to_owned()).collect()
}

/// The method's own name.
pub fn short(method: &str) -> &str {
    method.rsplit('/').next().unwrap()
}
