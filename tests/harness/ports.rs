//! Free loopback ports that stay ours as long as the value lives, also while nobody listens.
//!
//! Two rules make restarts on the same port safe. The ports lie below the range from which the
//! kernel takes ports for outgoing connections: a client that keeps connecting to a dead server
//! inside that range can be given the server's own port, and then talks to itself. And a lock on
//! a file per port keeps other test processes away; the kernel drops it when this process ends.

use super::Result;
use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn reserve() -> Result<Self> {
        // Another start for each process, so that they do not all try the same ports.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(61);
        let folder = std::env::temp_dir().join("understudy-ports");
        std::fs::create_dir_all(&folder)?;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let offset = start.wrapping_add(step) % u32::from(COUNT);
            let number = FIRST + u16::try_from(offset)?;
            let lock = File::create(folder.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(format!("no free port in {FIRST}..{}", FIRST + COUNT).into())
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
