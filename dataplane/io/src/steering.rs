//! Steering in the kernel: the program of `ebpf/`, loaded for the sockets of each address and port that several workers share.
//!
//! It only saves hand-overs. Without it (an old kernel, missing capabilities) the kernel's hash spreads the flows, and
//! the workers hand datagrams over to each other.

use crate::bind::Bound;
use crate::limits::KERNEL_FLOWS;
use crate::sockets::Sockets;
use crate::udp::Place;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ReusePortSockArray};
use aya::programs::{ProgramError, SkReuseport};
use aya::{Ebpf, EbpfError, EbpfLoader};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use strait_core::port::Path;

/// Built from `ebpf/src/main.rs` by `./dev build-ebpf`; `./dev test` checks that it is what the source makes.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/steer.o");

/// Bytes of a flow as the program knows it: remote address, local address, remote port, two zeros.
type Flow = [u8; 36];

/// What told the program the worker of a datagram; the labels of a metric, in the program's order. What is not steered
/// by its flow goes to the worker's socket for strangers.
pub const WAYS: [&str; 5] = ["user_fragment", "flow", "connection_id", "hash", "no_socket"];

/// Why the kernel does not steer.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The object cannot be loaded: the kernel is too old, or we may not.
    #[error("{}", whole(.0))]
    Load(#[from] EbpfError),
    /// The program was refused.
    #[error("{}", whole(.0))]
    Program(#[from] ProgramError),
    /// A map cannot be filled.
    #[error("{}", whole(.0))]
    Map(#[from] MapError),
    /// Maps cannot be shared with the workers.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The object is not the one that this program was built for.
    #[error("the object has no {0}")]
    Missing(&'static str),
}

/// An error with its causes, in one line: the last says what the system said.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<_> = causes.map(|cause| cause.to_string().trim().replace('\n', " ")).collect();
    words.join(": ")
}

/// The loaded programs. They stay attached as long as the sockets are open.
pub struct Kernel {
    groups: Vec<Group>,
}

/// The sockets of one address and port.
struct Group {
    place: Place,
    flows: MapData,
    ways: PerCpuArray<MapData, u64>,
    /// The program names its maps by their descriptors: they stay open until it is loaded.
    _sockets: ReusePortSockArray<MapData>,
    program: Ebpf,
}

/// One worker's way to tell the kernel where flows belong.
pub struct Flows {
    groups: Vec<(Place, HashMap<MapData, Flow, u32>)>,
}

impl Kernel {
    /// Loads and attaches the program for each address and port of `bound`.
    ///
    /// # Errors
    /// The kernel or its settings do not allow it. Then nothing is attached.
    pub fn attach(bound: &Bound) -> Result<Self, SteeringError> {
        let mut groups = Vec::new();
        for (at, (port, address)) in bound.all_udp().enumerate() {
            // In the program's order: of each worker that for known flows, and that for strangers.
            let both =
                |port| [false, true].map(|strangers| Sockets::udp_socket(port, at, strangers));
            let sockets: Option<Vec<_>> = bound.ports.iter().flat_map(both).collect();
            let sockets = sockets.ok_or(SteeringError::Missing("socket for strangers"))?;
            let mut program = EbpfLoader::new()
                .map_max_entries("SOCKETS", sockets.len().max(1) as u32)
                .map_max_entries("FLOWS", KERNEL_FLOWS)
                .load(OBJECT)?;
            let map = program.take_map("SOCKETS").ok_or(SteeringError::Missing("SOCKETS"))?;
            let mut array: ReusePortSockArray<MapData> = map.try_into()?;
            for (place, socket) in (0..).zip(&sockets) {
                array.set(place, *socket, 0)?;
            }
            let map = program.map_mut("WORKERS").ok_or(SteeringError::Missing("WORKERS"))?;
            Array::<_, u32>::try_from(map)?.set(0, bound.ports.len() as u32, 0)?;
            let flows = match program.take_map("FLOWS") {
                Some(Map::LruHashMap(flows)) => flows,
                _ => return Err(SteeringError::Missing("FLOWS")),
            };
            let ways =
                program.take_map("WAYS").ok_or(SteeringError::Missing("WAYS"))?.try_into()?;
            let place = Place { address: address.ip(), port };
            let group = Group { place, flows, ways, _sockets: array, program };
            groups.push((group, sockets));
        }
        // All are loaded: now none is left half steered.
        for (group, sockets) in &mut groups {
            let program = group.program.program_mut("steer");
            let program: &mut SkReuseport =
                program.ok_or(SteeringError::Missing("steer"))?.try_into()?;
            program.load()?;
            if let Some(socket) = sockets.first() {
                program.attach(socket)?;
            }
        }
        Ok(Self { groups: groups.into_iter().map(|(group, _)| group).collect() })
    }

    /// A way to tell of flows, for one worker.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn flows(&self) -> Result<Flows, SteeringError> {
        let groups = self.groups.iter().map(|group| {
            let map = MapData::from_fd(group.flows.fd().as_fd().try_clone_to_owned()?)?;
            Ok((group.place, Map::LruHashMap(map).try_into()?))
        });
        Ok(Flows { groups: groups.collect::<Result<_, SteeringError>>()? })
    }

    /// How many datagrams were steered by each of [`WAYS`] since the start.
    #[must_use]
    pub fn ways(&self) -> [u64; WAYS.len()] {
        let mut sums = [0_u64; WAYS.len()];
        for group in &self.groups {
            for (way, sum) in (0..).zip(&mut sums) {
                let cores = group.ways.get(&way, 0).ok();
                *sum += cores.map_or(0, |cores| cores.iter().sum());
            }
        }
        sums
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Flows {
    /// From now on the flow's datagrams come to this worker. The table is bounded: the flow used longest ago goes.
    pub fn insert(&mut self, path: Path, worker: usize) {
        if let (Some((_, map)), Ok(worker)) = (self.group(path), u32::try_from(worker)) {
            // Refused only when the kernel is out of memory: then the hash chooses, and user space hands over.
            let _ = map.insert(flow(path), worker, 0);
        }
    }

    /// The kernel knows nothing of the flow any more.
    pub fn remove(&mut self, path: Path) {
        if let Some((_, map)) = self.group(path) {
            let _ = map.remove(&flow(path));
        }
    }

    fn group(&mut self, path: Path) -> Option<&mut (Place, HashMap<MapData, Flow, u32>)> {
        self.groups.iter_mut().find(|(place, _)| place.sends(&path))
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flows").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

fn flow(path: Path) -> Flow {
    let octets = |ip: IpAddr| -> Ipv6Addr {
        match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        }
    };
    let mut flow = [0; 36];
    flow[..16].copy_from_slice(&octets(path.remote.ip()).octets());
    flow[16..32].copy_from_slice(&octets(path.local).octets());
    flow[32..34].copy_from_slice(&path.remote.port().to_be_bytes());
    flow
}
