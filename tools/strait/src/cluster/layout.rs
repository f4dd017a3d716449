//! What the cluster is made of: written down when it is started, read by every later call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Sql, Wanted};
use crate::fault::Fault;
use crate::ports::{self, Protocol};

/// Where the servers are that nodes share. Redis and MariaDB never get their usual ports.
pub const SERVERS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Agents: one does the work of another that dies.
const AGENTS: u8 = 2;

/// The whole cluster. Its file holds passwords: the folder is its owner's alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Folder of everything.
    pub folder: PathBuf,
    /// The program strait-relay.
    pub relay_program: PathBuf,
    /// The program strait-control.
    pub control_program: PathBuf,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Partitions of the mappings.
    pub partitions: Vec<Partition>,
    /// Ports of the Sentinels that watch the partitions.
    pub sentinels: Vec<u16>,
    /// Port of the Redis that keys of applications are pushed to.
    pub keys: u16,
    /// Port of the Redis that events go by.
    pub events: u16,
    /// Ports of the agents that make accounts of them.
    pub agents: Vec<u16>,
    /// Engine of accounts and statistics.
    pub sql: Sql,
    /// Its port, where it is a server.
    pub sql_port: u16,
    /// Password of the nodes at the SQL server.
    pub sql_password: String,
    /// Token of clients.
    pub token: String,
    /// Token of operators: opens the API and the dashboard.
    pub operator_token: String,
    /// Workers of each relay.
    pub workers: u16,
    /// What is logged.
    pub log: String,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Number, from 1.
    pub number: u8,
    /// Address of its own.
    pub address: Ipv4Addr,
    /// Port of HTTPS, and of media.
    pub https_port: u16,
    /// Port of plain HTTP.
    pub http_port: u16,
    /// Where the relay takes ICE-TCP from control.
    pub ice_tcp: u16,
    /// The relay's metrics.
    pub metrics: u16,
    /// The Redis beside it, which has the keys.
    pub keys: u16,
}

/// A Redis master and its replica, which Sentinel may have changed places since.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Partition {
    /// Number, from 1.
    pub number: u8,
    /// Port of who was master at first.
    pub first: u16,
    /// Port of who was its replica.
    pub second: u16,
}

impl Layout {
    /// Chooses ports, passwords and addresses.
    ///
    /// # Errors
    /// A port that the nodes are to have is taken.
    pub fn choose(wanted: &Wanted, folder: &Path, programs: [PathBuf; 2]) -> Result<Self, Fault> {
        let mut free = FreePorts::default();
        let nodes = (1..=wanted.nodes)
            .map(|number| {
                Ok(Node {
                    number,
                    address: Ipv4Addr::new(127, 0, 1, number),
                    // The relay has sockets on other addresses of this host too, for Firefox: they
                    // need ports of their own.
                    https_port: wanted.https_port.saturating_add(u16::from(number) - 1),
                    http_port: wanted.http_port,
                    ice_tcp: free.next()?,
                    metrics: free.next()?,
                    keys: free.next()?,
                })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let partitions = (1..=wanted.partitions)
            .map(|number| Ok(Partition { number, first: free.next()?, second: free.next()? }))
            .collect::<Result<_, Fault>>()?;
        let [relay_program, control_program] = programs;
        let layout = Self {
            folder: folder.to_path_buf(),
            relay_program,
            control_program,
            nodes,
            partitions,
            sentinels: (0..3).map(|_| free.next()).collect::<Result<_, Fault>>()?,
            keys: free.next()?,
            events: free.next()?,
            agents: (0..AGENTS).map(|_| free.next()).collect::<Result<_, Fault>>()?,
            sql: wanted.sql,
            sql_port: free.next()?,
            sql_password: secret()?,
            token: wanted.token.clone(),
            operator_token: secret()?,
            workers: wanted.workers,
            log: wanted.log.clone(),
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), Fault> {
        let taken: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|node| {
                [
                    (Protocol::Tcp, node.https(), "--https-port"),
                    (Protocol::Udp, node.https(), "--https-port"),
                    (Protocol::Tcp, node.http(), "--http-port"),
                ]
            })
            .filter_map(|(protocol, address, option)| {
                let taken = ports::probe(protocol, address).err()?;
                Some(taken.explain(protocol, address, option))
            })
            .collect();
        match taken.is_empty() {
            true => Ok(()),
            false => Err(Fault::new(taken.join("\n       "))),
        }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    /// Where a partition is, as strait-control's configuration has it: by way of Sentinel.
    pub fn mapping_url(&self, partition: &Partition) -> String {
        let sentinels: Vec<_> =
            self.sentinels.iter().map(|port| format!("{SERVERS}:{port}")).collect();
        format!("redis+sentinel://{}/{}", sentinels.join(","), partition.name())
    }

    /// The Redis that events go by.
    pub fn events_url(&self) -> String {
        format!("redis://{SERVERS}:{}", self.events)
    }

    /// Where accounts and statistics are.
    pub fn store_url(&self) -> String {
        match self.sql {
            Sql::Mariadb => {
                format!("mysql://strait:{}@{SERVERS}:{}/strait", self.sql_password, self.sql_port)
            }
            Sql::Sqlite => format!("sqlite:{}", self.folder.join("control.db").display()),
        }
    }
}

impl Node {
    /// Its name in the cluster.
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Where HTTPS is, and media.
    pub fn https(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.https_port))
    }

    /// Where plain HTTP is.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.http_port))
    }
}

impl Partition {
    /// Its name at Sentinel.
    pub fn name(&self) -> String {
        format!("partition-{}", self.number)
    }
}

/// Free ports, none twice: nobody listens on them yet while they are chosen.
#[derive(Default)]
struct FreePorts(Vec<u16>);

impl FreePorts {
    fn next(&mut self) -> Result<u16, Fault> {
        for _ in 0..100 {
            let port = ports::free(Protocol::Tcp, IpAddr::V4(SERVERS))
                .map_err(|e| Fault::new(format!("no free TCP port on {SERVERS}: {e}")))?;
            if !self.0.contains(&port) {
                self.0.push(port);
                return Ok(port);
            }
        }
        Err(Fault::new(format!("no free TCP port on {SERVERS}; remedy: end what uses them")))
    }
}

/// 128 random bits as text.
fn secret() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    let mut source = std::fs::File::open("/dev/urandom")
        .map_err(|e| Fault::new(format!("cannot open /dev/urandom: {e}")))?;
    std::io::Read::read_exact(&mut source, &mut bytes)
        .map_err(|e| Fault::new(format!("cannot read /dev/urandom: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
