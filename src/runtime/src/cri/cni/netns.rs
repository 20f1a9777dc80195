//! Network namespaces at paths, for the plugin: a process of one thread that ends at once, so it may change its own.

use std::{ffi::CStr, fs, io, net::IpAddr, os::fd::AsFd as _, path::Path};

use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Mounts the namespace at `ours` over the one at `theirs`.
pub(super) fn bind(ours: &Path, theirs: &Path) -> io::Result<()> {
    Ok(mount_bind(ours, theirs)?)
}

/// Takes the uppermost mount at a path away.
pub(super) fn unbind(path: &Path) -> io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

fn enter(netns: &Path) -> io::Result<()> {
    let file = fs::File::open(netns)?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The addresses of a link in the namespace, each with its prefix of one address.
pub(super) fn addresses(netns: &Path, link: &str) -> io::Result<Vec<String>> {
    enter(netns)?;
    let mut first = std::ptr::null_mut();
    // SAFETY: getifaddrs(3) writes a list that is ours until it is freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut out = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list, which is not freed yet; its name is a C string.
        let (entry, name) = unsafe { (&*next, CStr::from_ptr((*next).ifa_name)) };
        // SAFETY: the address of an entry is null or a socket address of the family that it says.
        let address = unsafe { ip(entry.ifa_addr) };
        if name.to_bytes() == link.as_bytes()
            && let Some(address) = address
        {
            out.push(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(out)
}

/// # Safety
/// `address` is null, or points to a socket address that is as long as its family says.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's word; the casts are to the type of the family.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => Some(IpAddr::from((*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr.to_ne_bytes())),
            libc::AF_INET6 => {
                let ip = IpAddr::from((*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr);
                // Link-local addresses are nobody's to know.
                Some(ip).filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
            }
            _ => None,
        }
    }
}

/// Sets the loopback link of a namespace up.
pub(super) fn loopback_up(netns: &Path) -> io::Result<()> {
    enter(netns)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: both calls read and write the ifreq, which lives until they return; flags are the member that they use.
    unsafe {
        if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
