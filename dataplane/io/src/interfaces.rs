//! The host's own addresses.

use crate::sockaddr::{BYTES, Name};
use std::net::{IpAddr, SocketAddr};

/// Addresses of all interfaces that are up, loopback included, each once, in the kernel's order.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is valid to write to. Worth it: std cannot list interfaces.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: getifaddrs made a list that ends in null, valid until freeifaddrs.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let is_up = entry.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        if !is_up || entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: the address is not null and starts with its family.
        let length = match i32::from(unsafe { (*entry.ifa_addr).sa_family }) {
            libc::AF_INET => 16,
            libc::AF_INET6 => BYTES,
            _ => continue,
        };
        let mut name = Name::EMPTY;
        // SAFETY: an address of that family has `length` bytes, and so has `name` at least.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.ifa_addr.cast::<u8>(), name.0.as_mut_ptr(), length);
        }
        let address = name.read(length as u32).as_ref().map(SocketAddr::ip);
        found.extend(address.filter(|ip| !found.contains(ip)));
    }
    // SAFETY: the list is getifaddrs's, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        assert!(super::addresses().contains(&[127, 0, 0, 1].into()));
    }
}
