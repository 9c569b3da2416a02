//! Which addresses may be a peer's: requests with their tokens go there.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Uri, uri::Authority};
use futures_util::{FutureExt as _, future::BoxFuture};
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

const MAX_URL_BYTES: usize = 300;

/// The networks of `--peers`. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub(crate) struct PeerNetworks(Arc<[IpNet]>);

impl PeerNetworks {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Checks a URL that a peer announced. The address of a host name is checked at the connection,
    /// by [`PeerResolver`].
    pub(crate) fn check_url(&self, url: &str) -> Result<(), &'static str> {
        let authority = parse_url(url).ok_or("is not http://host:port")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        match host.parse() {
            Ok(address) if !self.contains(address) => {
                Err("is in no network of --peers (CONSUMER_PEERS)")
            }
            _ => Ok(()),
        }
    }
}

/// The host and port of a peer's URL. `None` unless it is `http://host:port`, where the port may be
/// left out and nothing else may stand.
pub(crate) fn parse_url(url: &str) -> Option<Authority> {
    let uri: Uri = url.parse().ok().filter(|_| url.len() <= MAX_URL_BYTES)?;
    let authority = uri.into_parts().authority?;
    let is_bare = url.strip_prefix("http://") == Some(authority.as_str())
        && !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && authority.port_u16() != Some(0);
    is_bare.then_some(authority)
}

/// Resolves host names to those of their addresses that are in the peers' networks.
#[derive(Clone)]
pub(crate) struct PeerResolver(pub(crate) PeerNetworks);

impl Service<Name> for PeerResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = self.0.clone();
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let peers: Vec<_> = found.filter(|found| networks.contains(found.ip())).collect();
            if peers.is_empty() {
                let why = "no address of this host is in a network of --peers (CONSUMER_PEERS)";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            Ok(peers.into_iter())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(networks: &[&str]) -> PeerNetworks {
        let networks = networks.iter().map(|network| network.parse().expect("a network"));
        PeerNetworks::new(&networks.collect::<Vec<_>>())
    }

    #[test]
    fn a_peer_s_url_is_a_scheme_a_host_and_a_port_and_nothing_else() {
        let peers = networks(&["10.0.0.0/8", "fc00::/7"]);
        for url in [
            "http://10.0.0.7:8081",
            "http://10.0.0.7",
            "http://consumer-1:8081",
            "http://[fc00::1]:8081",
        ] {
            assert_eq!(peers.check_url(url), Ok(()), "{url}");
        }
        for url in [
            "https://10.0.0.7:8081",
            "http://10.0.0.7:0",
            "http://10.0.0.7:8081/",
            "http://10.0.0.7:8081/admin",
            "http://10.0.0.7:8081?x=",
            "http://10.0.0.7:8081#",
            "http://user@10.0.0.7:8081",
            "http://user:secret@10.0.0.7:8081",
            "10.0.0.7:8081",
            "//10.0.0.7:8081",
            "http://:8081",
            "http://10.0.0.7:8081\r\nhost: x",
            "",
            &format!("http://{}:8081", "a".repeat(MAX_URL_BYTES)),
            // Outside of the networks.
            "http://8.8.8.8:8081",
            "http://169.254.169.254:80",
            "http://[2001:db8::1]:8081",
            "http://[::ffff:8.8.8.8]:8081",
        ] {
            assert!(peers.check_url(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_host_name_leads_to_addresses_of_the_peers_networks_alone() {
        let resolve = async |known: &[&str]| {
            let name: Name = "localhost".parse().expect("a name");
            PeerResolver(networks(known)).call(name).await.map(|found| found.len() > 0)
        };
        assert!(resolve(&["127.0.0.0/8", "::1/128"]).await.expect("an address"));
        let refused = resolve(&["10.0.0.0/8"]).await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
