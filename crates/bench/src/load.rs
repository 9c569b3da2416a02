//! The load: HTTP requests over kept-alive connections, in a closed or an open loop. It never judges
//! what it measures.

use std::net::SocketAddr;

use crate::{
    Result,
    connection::Connection,
    effort::Effort,
    figures::{Sample, cpu_each},
    subjects::Service,
};

/// What is asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    effort: Effort,
}

impl Load {
    /// One round of these whole requests, of which connection `n` repeats number `n` modulo their
    /// count, with the processor time that the server took for each answer. It runs on a thread of
    /// its own with a runtime of its own, so that nothing else that this process does is in its way.
    ///
    /// # Errors
    /// When the server cannot be reached, ends a connection, or answers nothing at all with 200.
    pub(crate) async fn round(
        service: &Service,
        requests: &[Vec<u8>],
        effort: &Effort,
    ) -> Result<Sample> {
        let load =
            Self { address: service.address, requests: requests.to_vec(), effort: effort.clone() };
        let before = service.cpu();
        let mut sample = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load.run())
        })
        .await??;
        sample.cpu_us = cpu_each(before, service.cpu(), sample.count + sample.failed);
        Ok(sample)
    }

    async fn run(self) -> Result<Sample> {
        let mut connections = Vec::with_capacity(self.effort.connections);
        for _ in 0..self.effort.connections {
            connections.push(Connection::open(self.address).await?);
        }
        let ask = |(mut connection, request): (Connection, &Vec<u8>)| {
            let request = request.clone();
            async move || Ok(connection.exchange(&request).await?.0 == 200)
        };
        let workers = connections.into_iter().zip(self.requests.iter().cycle()).map(ask);
        self.effort.run(workers.collect()).await
    }
}
