//! What must not outlive the tests, also where they are killed: a shell waits for the end of the tests' process, then cleans up.

use std::process::{Child, Command, Stdio};

/// Dropped in good order it does nothing: whoever holds it has cleaned up.
pub struct Guard(Child);

impl Guard {
    /// `script` runs, with `arguments` from `$1` on, if this process ends without dropping the guard.
    pub fn new(script: &str, arguments: &[&str]) -> Self {
        // A signal from the terminal must not end the guard before it has done its work.
        let script = format!("trap '' INT TERM HUP; cat >/dev/null; {script}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "guard"]).args(arguments);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It waits for our end, which it must not see as such.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
