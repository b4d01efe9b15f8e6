//! A TAP: the kernel's side of a port.
//!
//! Frames that the kernel sends out of it are read here, frames written here the kernel receives. Addresses and routes
//! are the twin's business. Invariant: the device belongs to this process and vanishes with it, however it ends.

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use crate::port::MacAddress;

/// The longest name of a network device in bytes (IFNAMSIZ less its end).
pub const MAX_NAME_LEN: usize = 15;

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel takes no such name.
    #[error("TAP {name:?}: the kernel takes names of 1 to {MAX_NAME_LEN} bytes without spaces, '/', ':' and '%'")]
    BadName {
        /// The name.
        name: String,
    },
    /// There is such a device already.
    #[error(
        "TAP {name:?}: there is a network device of this name already (`ip link show {name}`); \
         delete it, end the program that it belongs to, or give the port another `tap`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The TUN/TAP driver is not there.
    #[error("TAP {name:?}: /dev/net/tun is not there: load the driver with `modprobe tun`")]
    NoDriver {
        /// The name.
        name: String,
    },
    /// Not allowed to.
    #[error("TAP {name:?}: creating it needs root or CAP_NET_ADMIN: {source}")]
    NotAllowed {
        /// The name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal.
    #[error("TAP {name:?}: cannot {action}: {source}")]
    Refused {
        /// The name.
        name: String,
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TAP that this process owns.
pub struct Tap {
    device: AsyncDevice,
    name: String,
    ifindex: u32,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("name", &self.name).field("ifindex", &self.ifindex).finish_non_exhaustive()
    }
}

impl Tap {
    /// Creates a TAP with this name, address and MTU (bytes of an IP packet). It is down: see [`Tap::up`]. Must be
    /// called inside a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`TapError`]; there is no TAP then.
    pub fn create(name: &str, mac: MacAddress, mtu: u16) -> Result<Self, TapError> {
        let refused = |action: String| move |source| TapError::Refused { name: name.to_owned(), action, source };
        check_name(name)?;
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L2)
            .enable(false)
            .build_async()
            .map_err(|source| creation_error(name, source))?;
        device.set_mtu(mtu).map_err(refused(format!("set its MTU to {mtu}")))?;
        device.set_mac_address(mac.0).map_err(refused(format!("set its address to {mac}")))?;
        let ifindex = device.if_index().map_err(refused("read its index".to_owned()))?;
        Ok(Self { device, name: name.to_owned(), ifindex })
    }

    /// Sets it up and waits until it takes frames.
    ///
    /// # Errors
    /// [`TapError::Refused`].
    pub async fn up(&self) -> Result<(), TapError> {
        let refused = |source| TapError::Refused { name: self.name.clone(), action: "set it up".to_owned(), source };
        self.device.enabled(true).map_err(refused)?;
        // Only then does the runtime know that it can be written to, which `write` relies on.
        self.device.writable().await.map_err(refused)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index among the kernel's network devices.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Waits for a frame from the kernel and gives its length in bytes; what of it exceeds `buffer` is cut off.
    /// Cancel safe.
    ///
    /// # Errors
    /// When the device was deleted.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer).await
    }

    /// Gives the kernel a frame, without blocking.
    ///
    /// # Errors
    /// When the device is down or deleted, or the frame shorter than an Ethernet header.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.device.try_send(frame).map(drop)
    }
}

/// Refuses names that the kernel would refuse or, `%`, expand; and names that are taken. The driver itself would
/// attach to a persistent TAP of that name, which is somebody else's.
fn check_name(name: &str) -> Result<(), TapError> {
    let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '%' | '\0');
    if name.is_empty() || name.len() > MAX_NAME_LEN || name.contains(forbidden) || name == "." || name == ".." {
        return Err(TapError::BadName { name: name.to_owned() });
    }
    let refused = |source: rustix::io::Errno| TapError::Refused {
        name: name.to_owned(),
        action: "look for devices of this name".to_owned(),
        source: source.into(),
    };
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(refused)?;
    match netdevice::name_to_index(&socket, name) {
        Ok(_) => Err(TapError::NameTaken { name: name.to_owned() }),
        Err(rustix::io::Errno::NODEV) => Ok(()),
        Err(source) => Err(refused(source)),
    }
}

/// What a refusal of the driver means.
fn creation_error(name: &str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => TapError::NotAllowed { name, source },
        io::ErrorKind::NotFound => TapError::NoDriver { name },
        // Somebody was faster since `check_name`.
        io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists => TapError::NameTaken { name },
        _ => TapError::Refused { name, action: "create it".to_owned(), source },
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_expand_are_refused() {
        for name in ["", "a-name-of-16-byte", "fg wan", "fg/wan", "fg:wan", "fg%d", "..", "."] {
            assert!(matches!(check_name(name), Err(TapError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let Err(error) = check_name("lo") else { panic!("lo is free") };
        assert!(error.to_string().contains("already"), "{error}");
    }
}
