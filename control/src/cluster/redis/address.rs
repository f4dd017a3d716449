//! Where a partition is: a Redis server, or the master that Sentinels name.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use redis::{RedisConnectionInfo, RedisResult};

use crate::cluster::node::{endpoint, parse_endpoint};
use crate::limits::{DIRECTORY_CALL, REDIS_CONNECT, SENTINELS};

/// Where a partition is.
#[derive(Clone)]
pub enum Address {
    /// One server.
    Server(ConnectionInfo),
    /// The master of this name, as Sentinels know it.
    Sentinel {
        /// Hosts and ports of the Sentinels.
        sentinels: Vec<(String, u16)>,
        /// Name of the master.
        master: String,
        /// What the master wants to know.
        login: RedisConnectionInfo,
    },
}

impl Address {
    /// Reads `redis://[USER:PASSWORD@]HOST:PORT`,
    /// `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER` or `redis+unix:PATH`.
    ///
    /// # Errors
    /// What is wrong, without the text: a password may be in it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "an address is neither redis://HOST:PORT nor \
                             redis+sentinel://HOST:PORT,HOST:PORT/MASTER nor redis+unix:PATH";
        if url.starts_with("redis+unix:") {
            return url.into_connection_info().map(Self::Server).map_err(|_| WRONG);
        }
        let Some(rest) = url.strip_prefix("redis+sentinel://") else {
            let rest = url.strip_prefix("redis://").ok_or(WRONG)?;
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let host = host.split('/').next().unwrap_or_default();
            parse_endpoint(host).ok_or(WRONG)?;
            let info = url.into_connection_info().map_err(|_| WRONG)?;
            return Ok(Self::Server(info));
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => {
                let url = format!("redis://{login}@x:1");
                let info = url.into_connection_info().map_err(|_| WRONG)?;
                (info.redis_settings().clone(), rest)
            }
            None => (RedisConnectionInfo::default(), rest),
        };
        let (hosts, master) = rest.split_once('/').ok_or(WRONG)?;
        let sentinels: Option<Vec<_>> = hosts.split(',').map(parse_endpoint).collect();
        let sentinels = sentinels.filter(|all| all.len() <= SENTINELS).ok_or(WRONG)?;
        if master.is_empty() {
            return Err(WRONG);
        }
        Ok(Self::Sentinel { sentinels, master: master.to_owned(), login })
    }

    /// Whether somebody else says which server it is.
    pub fn is_by_sentinel(&self) -> bool {
        matches!(self, Self::Sentinel { .. })
    }

    /// The server that it is now.
    ///
    /// # Errors
    /// No Sentinel answers, or none knows the master.
    pub async fn server(&self) -> RedisResult<ConnectionInfo> {
        let (sentinels, master, login) = match self {
            Self::Server(info) => return Ok(info.clone()),
            Self::Sentinel { sentinels, master, login } => (sentinels, master, login),
        };
        let mut failure = None;
        for (host, port) in sentinels {
            match ask(host, *port, master).await {
                Ok((host, port)) => {
                    let info = ConnectionAddr::Tcp(host, port).into_connection_info()?;
                    return Ok(info.set_redis_settings(login.clone()));
                }
                Err(error) => failure = Some(error),
            }
        }
        let none = || (redis::ErrorKind::Client, "no Sentinel").into();
        Err(failure.unwrap_or_else(none))
    }
}

/// Opens a connection.
///
/// # Errors
/// Those of the server, and none within [`REDIS_CONNECT`].
pub(super) async fn open(info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REDIS_CONNECT))
        .set_response_timeout(Some(DIRECTORY_CALL));
    let client = Client::open(info)?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

async fn ask(host: &str, port: u16, master: &str) -> RedisResult<(String, u16)> {
    let info = ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info()?;
    let asked = async {
        let mut sentinel = open(info).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        let answer: Option<(String, u16)> = command.query_async(&mut sentinel).await?;
        let unknown = (redis::ErrorKind::Client, "a Sentinel does not know the master");
        answer.ok_or_else(|| redis::RedisError::from(unknown))
    };
    let late = |_| redis::RedisError::from((redis::ErrorKind::Io, "a Sentinel does not answer"));
    tokio::time::timeout(Duration::min(REDIS_CONNECT, DIRECTORY_CALL), asked).await.map_err(late)?
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, master, .. } => {
                let hosts: Vec<_> = sentinels.iter().map(|(h, p)| endpoint(h, *p)).collect();
                write!(f, "{master} of {}", hosts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_passwords() {
        let shown = |url| Address::parse(url).map(|address| address.to_string());
        assert_eq!(shown("redis://:hush@127.0.0.1:7000/2").unwrap(), "127.0.0.1:7000");
        let url = "redis+sentinel://me:hush@a:1,[::1]:2/part0";
        assert_eq!(shown(url).unwrap(), "part0 of a:1,[::1]:2");
        assert_eq!(shown("redis+unix:/run/redis.sock").unwrap(), "/run/redis.sock");
        for url in ["", "http://a:1", "redis://a", "redis+sentinel://a:1", "redis+sentinel:///m"] {
            assert!(shown(url).is_err(), "{url}");
        }
    }
}
