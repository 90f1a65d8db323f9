//! A Kafka of one test's own, for tests that stop it, and for those that stand between it and the program.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::guard::Guard;
use super::scene::{Scene, succeed};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");

/// The ports of brokers that a test starts where it wants them: below those that the scripts and the system hand out, so that nobody is
/// given one while its broker is not there.
const PORTS: std::ops::Range<u32> = 10_000..20_000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// An address where nothing listens, nor will until the test has something do so.
pub fn free_address() -> String {
    let count = PORTS.end - PORTS.start;
    let free = PORTS.map(|_| PORTS.start + std::process::id().wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % count);
    let mut free = free.map(|port| format!("127.0.0.1:{port}")).filter(|address| TcpListener::bind(address).is_ok());
    free.next().expect("a free port")
}

/// A broker, killed when dropped.
pub struct Broker {
    folder: PathBuf,
    address: String,
    proxy: Option<u16>,
    _guard: Guard,
}

impl Broker {
    /// Starts a broker where the scene expects one.
    pub fn start(scene: &Scene) -> Self {
        Self::start_behind(scene, None)
    }

    /// As [`Self::start`]; clients that come through a proxy on that port are told to go on there.
    pub fn start_behind(scene: &Scene, proxy: Option<u16>) -> Self {
        let folder = scene.path("broker");
        let guard = Guard::new("exec $1 kill $2", &[SCRIPT, folder.to_str().expect("a plain path")]);
        let broker = Self { folder, address: scene.address.clone(), proxy, _guard: guard };
        broker.restart();
        broker
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg(action).arg(&self.folder).env("KAFKA_HEAP", "256m");
        command
    }

    /// Starts it again, with the data that it had.
    pub fn restart(&self) {
        let (_, port) = self.address.split_once(':').expect("a port");
        let proxy = self.proxy.map(|port| ("KAFKA_PROXY_PORT", port.to_string()));
        succeed(self.command("start").arg(port).envs(proxy));
    }

    /// kill -9.
    pub fn kill(&self) {
        succeed(&mut self.command("kill"));
    }

    /// The port behind the proxy.
    pub fn proxied_port(&self) -> u16 {
        let text = std::fs::read_to_string(self.folder.join("proxied-port")).expect("the port's file");
        text.trim().parse().expect("a port")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
