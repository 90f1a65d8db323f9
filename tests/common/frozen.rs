//! One thread of another process, stopped while all its others go on: what a hung disk or a lost lock does to a worker.

use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The thread goes on when this is dropped, or when this process ends.
pub struct Frozen {
    thaw: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Frozen {
    /// Stops the thread of this name; it has stopped when this returns.
    pub fn of(process: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a live process");
        let mut named = tasks.map(|task| task.expect("a thread").path()).filter(|task| {
            // A thread may end meanwhile.
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        });
        let found = named.next().unwrap_or_else(|| panic!("process {process} has no thread {name}"));
        let id = found.file_name().and_then(|id| id.to_str()).and_then(|id| id.parse().ok()).expect("a number");
        let (thread, (stopped, has_stopped), (thaw, thawed)) = (Pid::from_raw(id), channel(), channel());
        // Only the thread that began to trace may wait and let go.
        let tracer = std::thread::spawn(move || {
            ptrace::attach(thread).expect("allowed to trace it");
            waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
            stopped.send(()).expect("somebody waits");
            // Ends with its sender.
            let _dropped = thawed.recv();
            ptrace::detach(thread, None).expect("it is still there");
        });
        has_stopped.recv().expect("it stopped");
        Self { thaw: Some(thaw), tracer: Some(tracer) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.thaw.take());
        if let Some(tracer) = self.tracer.take() {
            let ended = tracer.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the thread could not be let go");
        }
    }
}
