//! Socket addresses as the kernel lays them out (`sockaddr_in`, `sockaddr_in6`), read and written as bytes:
//! the layout is part of Linux's interface, and no pointer is cast.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the larger one, `sockaddr_in6`.
pub(crate) const BYTES: usize = 28;
const V4_BYTES: usize = 16;

/// A kernel address.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Name(pub(crate) [u8; BYTES]);

impl Name {
    pub(crate) const EMPTY: Self = Self([0; BYTES]);

    /// The address and how many bytes of it count.
    pub(crate) fn new(address: SocketAddr) -> (Self, u32) {
        let mut bytes = [0; BYTES];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, V4_BYTES)
            }
            SocketAddr::V6(v6) => {
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, BYTES)
            }
        };
        bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        (Self(bytes), length as u32)
    }

    /// `None` if it is of another family, or too short.
    pub(crate) fn read(&self, length: u32) -> Option<SocketAddr> {
        read(self.0.get(..length as usize)?)
    }
}

/// Reads an address; `None` if it is of another family, or too short.
pub(crate) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let ip = <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?;
            Some(SocketAddrV4::new(ip.into(), port).into())
        }
        libc::AF_INET6 => {
            let ip = <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?;
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            Some(SocketAddrV6::new(ip.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_layout() {
        for text in ["127.0.0.1:8443", "[2001:db8::7]:1", "[fe80::1%5]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let (name, length) = Name::new(address);
            assert_eq!(name.read(length), Some(address));
            assert_eq!(name.read(length - 1).is_some(), address.is_ipv4() && length > 8, "{text}");
            assert_eq!(name.read(3), None);
        }
        assert_eq!(Name::EMPTY.read(BYTES as u32), None, "no family");
    }
}
