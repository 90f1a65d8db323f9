//! What must not outlive the tests, also where they are killed: a shell waits for the end of the tests' process, then cleans up.

use std::process::{Child, Command, Stdio};

/// Where `/proc/PID/stat` says when a process started, counted behind its name.
const STARTED: usize = 19;

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

impl Guard {
    /// Kills this process, and no other: when the tests end it may be long gone, and its number somebody else's.
    pub fn killing(process: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a live process");
        let started = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(STARTED));
        Self::killing_if(process, started.expect("when it started"))
    }

    fn killing_if(process: u32, started: &str) -> Self {
        let field = STARTED + 1;
        let script = format!("[ \"$(sed 's/.*) //' /proc/$1/stat | cut -d' ' -f{field})\" = $2 ] && kill -9 $1");
        Self::new(&script, &[&process.to_string(), started])
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It waits for our end, which it must not see as such.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn only_the_process_that_a_guard_was_made_for_is_killed() {
    let sleeper = || Command::new("sleep").arg("1000").spawn().expect("it starts");
    let (mut ours, mut other) = (sleeper(), sleeper());
    for mut guard in [Guard::killing(ours.id()), Guard::killing_if(other.id(), "1")] {
        // As when the tests' process is gone.
        drop(guard.0.stdin.take());
        guard.0.wait().expect("the guard ends");
    }
    let ended = ours.wait().expect("it ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
    assert_eq!(other.try_wait().expect("its status"), None, "it has another's number");
    other.kill().and_then(|()| other.wait()).expect("it ends");
}
