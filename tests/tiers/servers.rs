//! A Redis or a Postgres of one test's own, for tests that stop it.

use std::path::PathBuf;
use std::process::Command;

use mangrove::tiers::ServerUrl;
use tempfile::TempDir;

/// A server, stopped when dropped.
pub struct Server {
    script: PathBuf,
    folder: TempDir,
    pub url: ServerUrl,
}

impl Server {
    pub fn redis() -> Self {
        Self::start_new("redis")
    }

    pub fn postgres() -> Self {
        Self::start_new("postgres")
    }

    fn start_new(name: &str) -> Self {
        let script = PathBuf::from(format!("{}/scripts/{name}.sh", env!("CARGO_MANIFEST_DIR")));
        let folder = TempDir::new().unwrap();
        // The server may run as another user.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut server = Self { script, folder, url: ServerUrl::new("") };
        server.url = ServerUrl::new(server.run(&["start"], &[]).trim());
        server
    }

    fn run(&self, action: &[&str], flags: &[(&str, &str)]) -> String {
        let mut command = Command::new(&self.script);
        command.args(action).arg(self.folder.path().join("server")).envs(flags.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{action:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts it again where it was.
    pub fn start(&self) {
        self.run(&["start"], &[]);
    }

    /// As [`Self::start`], with more flags of the server.
    pub fn start_with(&self, variable: &str, flags: &str) {
        self.run(&["start"], &[(variable, flags)]);
    }

    /// In good order.
    pub fn stop(&self) {
        self.run(&["stop"], &[]);
    }

    /// kill -9.
    pub fn kill(&self) {
        self.run(&["kill"], &[]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The folder goes with it; as another user's its content is removed by the script.
        let _ = Command::new(&self.script).arg("kill").arg(self.folder.path().join("server")).output();
        if self.script.ends_with("postgres.sh") {
            let _ = Command::new(&self.script).arg("remove").arg(self.folder.path().join("server")).output();
        }
    }
}
