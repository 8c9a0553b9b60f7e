//! The standard gRPC services of the client port, beside the gateway: reflection, so that common
//! tools can list and call what is there without our `.proto` file, and health, so that balancers
//! and probes know whether to send anybody here. They stand behind the same mutual TLS.
//!
//! Health says whether this process takes calls, not whether a group has a leader: that is what
//! `Status` is for, and no other door would help.

use proto::v1;
use proto::v1::router_server::RouterServer;
use tonic::transport::server::Router as Services;
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_health::{ServingStatus, pb as health};
use tonic_reflection::pb as reflection;

use super::Gateway;

/// What reflection lists: the services of this port, and not the one between nodes, which stands in
/// the same file.
const LISTED: [&str; 4] = [
    "seamark.v1.Router",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
/// The health of the whole process, by the health protocol's convention.
const WHOLE: &str = "";

/// Tells callers of the health service that the door is about to close.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// From now on the answer is `NOT_SERVING`; whoever watches hears it at once. Calls are still
    /// answered until the server ends.
    pub async fn closing(&self) {
        self.0.set_not_serving::<RouterServer<Gateway>>().await;
        self.0.set_service_status(WHOLE, ServingStatus::NotServing).await;
    }
}

/// Adds reflection (both versions that are in use) and health, which begins as `SERVING`.
pub async fn with_standard_services(services: Services) -> (Services, Health) {
    let (reporter, health) = health_reporter();
    reporter.set_serving::<RouterServer<Gateway>>().await;
    let described = || {
        let files = [
            v1::FILE_DESCRIPTOR_SET,
            health::FILE_DESCRIPTOR_SET,
            reflection::v1::FILE_DESCRIPTOR_SET,
            reflection::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let builder = tonic_reflection::server::Builder::configure().include_reflection_service(false);
        let builder =
            files.into_iter().fold(builder, |builder, file| builder.register_encoded_file_descriptor_set(file));
        LISTED.into_iter().fold(builder, |builder, name| builder.with_service_name(name))
    };
    let well_formed = "descriptors are well formed: the compiler of the services wrote them";
    let services = services
        .add_service(health)
        .add_service(described().build_v1().expect(well_formed))
        .add_service(described().build_v1alpha().expect(well_formed));
    (services, Health(reporter))
}
