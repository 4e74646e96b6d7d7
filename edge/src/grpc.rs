//! The gRPC face: `windrow.v1`, health and reflection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use model::settings::Definition;
use proto::admin::Refresh;
use proto::v1;
use proto::v1::windrow_server::{Windrow, WindrowServer};
use runtime::Deadline;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::HealthServer;

use crate::ask::Ask;
use crate::documents;
use crate::health::Health;
use crate::metrics::Call;
use crate::problem::Problem;
use crate::service::{Edge, index_name, within};

pub(crate) fn routes(edge: &Arc<Edge>) -> Router {
    let most = edge.settings.grpc_message_bytes_max;
    let windrow = WindrowServer::new(Face(edge.clone())).max_decoding_message_size(most);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let readable = "the descriptors were encoded by our own build";
    Routes::new(windrow)
        .add_service(HealthServer::new(Health(edge.clone())))
        .add_service(reflection().build_v1().expect(readable))
        .add_service(reflection().build_v1alpha().expect(readable))
        .into_axum_router()
        .reset_fallback()
}

struct Face(Arc<Edge>);

type Answered<T> = Result<Response<T>, Status>;

impl Face {
    async fn run<T>(
        &self,
        call: Call,
        theirs: Option<Deadline>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Answered<T> {
        let result = self.0.run(call, theirs, work).await;
        result.map(Response::new).map_err(|problem| problem.error.into())
    }

    /// The sooner of our own deadline and the client's.
    fn deadline(&self, metadata: &MetadataMap, own: Duration) -> Deadline {
        let own = Deadline::after(own);
        timeout(metadata).map_or(own, |theirs| own.sooner(Deadline::after(theirs)))
    }
}

#[tonic::async_trait]
impl Windrow for Face {
    async fn create_index(&self, request: Request<v1::CreateIndexRequest>) -> Answered<v1::Index> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::CreateIndex, Some(deadline), async {
            let message = request.into_inner();
            let name = index_name(&message.name)?;
            let definition = Definition::try_from(message)?;
            let info = within(deadline, self.0.admin.create_index(name, definition, deadline)).await?;
            Ok(info.into())
        })
        .await
    }

    async fn list_indexes(
        &self,
        request: Request<v1::ListIndexesRequest>,
    ) -> Answered<v1::ListIndexesResponse> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::ListIndexes, Some(deadline), async {
            let indexes = within(deadline, self.0.admin.list_indexes()).await?;
            Ok(v1::ListIndexesResponse { indexes: indexes.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn describe_index(&self, request: Request<v1::DescribeIndexRequest>) -> Answered<v1::Index> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::DescribeIndex, Some(deadline), async {
            let name = index_name(&request.get_ref().name)?;
            Ok(within(deadline, self.0.admin.describe_index(&name)).await?.into())
        })
        .await
    }

    async fn delete_index(
        &self,
        request: Request<v1::DeleteIndexRequest>,
    ) -> Answered<v1::DeleteIndexResponse> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::DeleteIndex, Some(deadline), async {
            let name = index_name(&request.get_ref().name)?;
            within(deadline, self.0.admin.delete_index(&name, deadline)).await?;
            Ok(v1::DeleteIndexResponse {})
        })
        .await
    }

    async fn write(&self, request: Request<v1::WriteRequest>) -> Answered<v1::WriteResponse> {
        let deadline = self.deadline(request.metadata(), self.0.settings.write_timeout);
        self.run(Call::Write, Some(deadline), async {
            let message = request.into_inner();
            let name = index_name(&message.index)?;
            let refresh = refresh(message.refresh)?;
            let bytes: usize = message.documents.iter().map(bytes::Bytes::len).sum();
            self.0.metrics.document_bytes.increment(bytes as u64);
            let cut = documents::each(message.documents, &self.0.settings)?;
            Ok(self.0.write(name, cut.lines, cut.rejected, refresh, deadline).await?.into())
        })
        .await
    }

    async fn get_document(&self, request: Request<v1::GetDocumentRequest>) -> Answered<v1::Document> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::GetDocument, Some(deadline), async {
            let v1::GetDocumentRequest { index, id, token } = request.into_inner();
            let name = index_name(&index)?;
            Ok(self.0.document(&name, &id, token.as_deref(), deadline).await?.into())
        })
        .await
    }

    async fn delete_document(
        &self,
        request: Request<v1::DeleteDocumentRequest>,
    ) -> Answered<v1::WriteResponse> {
        let deadline = self.deadline(request.metadata(), self.0.settings.write_timeout);
        self.run(Call::DeleteDocument, Some(deadline), async {
            let message = request.into_inner();
            let name = index_name(&message.index)?;
            let refresh = refresh(message.refresh)?;
            Ok(self.0.delete_document(name, message.id, refresh, deadline).await?.into())
        })
        .await
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Answered<v1::SearchResponse> {
        let theirs = timeout(request.metadata()).map(Deadline::after);
        self.run(Call::Search, theirs, async {
            let mut message = request.into_inner();
            let name = index_name(&std::mem::take(&mut message.index))?;
            let mut request = Ask::from_message(message)?.request(name, &self.0.settings)?;
            request.deadline = theirs.map_or(request.deadline, |theirs| request.deadline.sooner(theirs));
            Ok(self.0.search(request).await?.into())
        })
        .await
    }

    async fn cluster(&self, request: Request<v1::ClusterRequest>) -> Answered<v1::ClusterResponse> {
        let deadline = self.deadline(request.metadata(), self.0.settings.call_timeout);
        self.run(Call::Cluster, Some(deadline), async {
            Ok(within(deadline, self.0.admin.cluster()).await?.into())
        })
        .await
    }
}

fn refresh(number: i32) -> Result<Refresh, Problem> {
    v1::Refresh::try_from(number)
        .map(Into::into)
        .map_err(|unknown| Problem::invalid(format!("refresh: {unknown}")))
}

/// The client's `grpc-timeout`: at most eight digits and a unit. axum's server
/// does not enforce it.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("500m"), Some(Duration::from_millis(500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "m", "5", "999999999S", "-1S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
