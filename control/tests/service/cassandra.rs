//! A keyspace for a test, in the Cassandra or ScyllaDB that `STRAIT_TEST_CQL=HOST:PORT` names.

use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

/// A keyspace of its own for a test. It is dropped at the end.
pub(crate) struct Keyspace {
    pub(crate) session: Session,
    /// As `statistics.url` takes it.
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Keyspace {
    pub(crate) async fn new(address: &str) -> Self {
        // Tables are dropped one by one, and each waits for the disk.
        let time = Some(Duration::from_secs(300));
        let profile = ExecutionProfile::builder().request_timeout(time).build();
        let builder = SessionBuilder::new().known_node(address);
        let builder = builder.default_execution_profile_handle(profile.into_handle());
        let session = builder.build().await.unwrap();
        let name = format!("strait_test_{:x}", std::process::id());
        let say = format!("DROP KEYSPACE IF EXISTS {name}");
        session.query_unpaged(say, ()).await.unwrap();
        let say = format!(
            "CREATE KEYSPACE {name} WITH replication = \
             {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        );
        session.query_unpaged(say, ()).await.unwrap();
        let url = format!("cql://{address}/{name}?consistency=one");
        Self { session, url, name }
    }

    pub(crate) async fn drop(self) {
        let say = format!("DROP KEYSPACE {}", self.name);
        self.session.query_unpaged(say, ()).await.unwrap();
    }
}
