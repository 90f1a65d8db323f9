//! A proxy between the program and its broker: it slows, silences and cuts connections, and loses or delays the requests that end
//! transactions.
//!
//! A late request stays on its old connection, whose client's side is closed: the client connects anew and repeats it. It is delivered
//! in the middle of that producer's next transaction, and the broker has dealt with it before the client hears more.

mod wire;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use wire::{Kind, Request, read_frame};

/// How long the broker may take to answer a late request: longer than anybody waits.
const ANSWER: Duration = crate::common::PATIENCE;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A commit never gets to the broker; its connection breaks.
    RequestLost,
    /// The answer of a commit is lost; its connection breaks.
    AnswerLost,
    /// A commit comes late: after the first answer to what its producer writes in its next transaction.
    Late,
    /// The offsets of a transaction come late: after those of its producer's next transaction. When that one is committed, silence
    /// falls, so that only a crash can follow: the next commit would put the offsets right again.
    LateOffsets,
    /// A commit and all its repetitions get no answer. The first one is kept for [`Proxy::deliver`].
    Swallowed,
}

impl Fate {
    fn meets(self, kind: Kind) -> bool {
        kind == if self == Self::LateOffsets { Kind::Offsets } else { Kind::Commit }
    }
}

/// What a client's connections suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Each request and each answer takes so much longer.
    Slow(Duration),
    /// Nothing passes; connections stay open.
    Silent,
}

/// A request's connection and its number there.
type Asked = (u64, [u8; 4]);

/// A request that is late, on its old connection.
struct Held {
    fate: Fate,
    connection: u64,
    client: String,
    producer: String,
    frame: Vec<u8>,
    upstream: TcpStream,
    /// Its transaction was committed after all.
    committed: bool,
    /// Whose answer is the moment to deliver.
    moment: Option<Asked>,
    /// Delivered; the answer to the commit of that transaction brings silence.
    delivered: bool,
    last: Option<Asked>,
}

struct Link {
    client: String,
    streams: [TcpStream; 2],
}

#[derive(Default)]
struct State {
    armed: Option<Fate>,
    /// The request whose answer is to be lost.
    unanswered: Option<Asked>,
    held: Option<Held>,
    done: usize,
    /// Of one client, or (empty) of all.
    trouble: Option<(String, Trouble)>,
    links: BTreeMap<u64, Link>,
}

impl State {
    fn trouble_of(&self, client: &str) -> Option<Trouble> {
        self.trouble.as_ref().filter(|(whose, _)| whose.is_empty() || whose == client).map(|(_, trouble)| *trouble)
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Lets a client's trouble pass over a request or an answer.
    fn suffer(&self, client: &str) {
        let state = self.lock();
        if let Some(Trouble::Slow(by)) = state.trouble_of(client) {
            drop(state);
            std::thread::park_timeout(by);
            return;
        }
        let silent = |state: &mut State| state.trouble_of(client) == Some(Trouble::Silent);
        drop(self.changed.wait_while(state, silent).expect("not poisoned"));
    }
}

/// A proxy that runs as long as the process.
pub struct Proxy {
    listener: Option<TcpListener>,
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Takes a port; nobody is answered yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        Self { listener: Some(listener), port, shared: Arc::default() }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Passes on to that port from now on.
    pub fn serve(&mut self, upstream: u16) {
        let (listener, shared) = (self.listener.take().expect("not serving yet"), Arc::clone(&self.shared));
        std::thread::spawn(move || {
            for (number, client) in (0_u64..).zip(listener.incoming().map_while(Result::ok)) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A broker that is away refuses, and so does the proxy.
                    if let Ok(upstream) = TcpStream::connect(("127.0.0.1", upstream)) {
                        Passing { shared, connection: number, client, upstream }.run();
                    }
                });
            }
        });
    }

    /// The next request that this can happen to has this fate.
    pub fn arm(&self, fate: Fate) {
        self.shared.lock().armed = Some(fate);
    }

    /// How many requests have met their fates.
    pub fn done(&self) -> usize {
        self.shared.lock().done
    }

    /// The client whose request is late, if one is.
    pub fn late_client(&self) -> Option<String> {
        self.shared.lock().held.as_ref().map(|held| held.client.clone())
    }

    /// Delivers a swallowed request and waits until the broker has answered it (nobody hears that); from now on commits are answered
    /// again.
    pub fn deliver(&self) {
        let held = self.shared.lock().held.take().expect("a request is held");
        deliver(&self.shared, held.connection, held.upstream, &held.frame);
    }

    /// Drops what is armed or held.
    pub fn disarm(&self) {
        let mut state = self.shared.lock();
        (state.armed, state.unanswered) = (None, None);
        if let Some(held) = state.held.take() {
            close([&held.upstream, &held.upstream]);
        }
    }

    /// One client's connections, or (an empty name) all, suffer this until it is calm.
    pub fn trouble(&self, client: &str, trouble: Trouble) {
        self.shared.lock().trouble = Some((client.to_owned(), trouble));
        self.shared.changed.notify_all();
    }

    pub fn calm(&self) {
        self.shared.lock().trouble = None;
        self.shared.changed.notify_all();
    }

    /// Cuts one client's connections, or (an empty name) all; tells how many.
    pub fn cut(&self, client: &str) -> usize {
        let state = self.shared.lock();
        let links: Vec<&Link> = state.links.values().filter(|link| client.is_empty() || link.client == client).collect();
        links.iter().for_each(|link| close([&link.streams[0], &link.streams[1]]));
        links.len()
    }
}

fn close(streams: [&TcpStream; 2]) {
    for stream in streams {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Sends a late request and waits until its connection has brought the answer and ended.
fn deliver(shared: &Shared, connection: u64, mut upstream: TcpStream, frame: &[u8]) {
    // A broker that was killed meanwhile has closed it: then the request is lost for good.
    if upstream.write_all(frame).is_ok() {
        let waits = |state: &mut State| state.links.contains_key(&connection);
        drop(shared.changed.wait_timeout_while(shared.lock(), ANSWER, waits).expect("not poisoned"));
    }
    close([&upstream, &upstream]);
}

/// One connection.
struct Passing {
    shared: Arc<Shared>,
    connection: u64,
    client: TcpStream,
    upstream: TcpStream,
}

impl Passing {
    fn run(mut self) {
        let copy = |stream: &TcpStream| stream.try_clone().expect("a handle");
        let Some(first) = Request::read(&mut self.client) else { return };
        let name = first.client.clone();
        let link = Link { client: name.clone(), streams: [copy(&self.client), copy(&self.upstream)] };
        self.shared.lock().links.insert(self.connection, link);
        let answers =
            Self { shared: Arc::clone(&self.shared), client: copy(&self.client), upstream: copy(&self.upstream), ..self };
        let answering = std::thread::spawn(move || answers.answers(&name));
        self.requests(first);
        answering.join().expect("the other direction ends");
        self.shared.lock().links.remove(&self.connection);
        self.shared.changed.notify_all();
    }

    fn requests(&mut self, first: Request) {
        let mut next = Some(first);
        while let Some(request) = next {
            self.shared.suffer(&request.client);
            match self.judge(&request) {
                Verdict::Pass if self.upstream.write_all(&request.frame).is_ok() => {}
                Verdict::Nothing => {}
                Verdict::Held => return close([&self.client, &self.client]),
                Verdict::Pass | Verdict::Break => break,
            }
            next = Request::read(&mut self.client);
        }
        // Where this connection's request is held, it goes on waiting for it.
        if self.shared.lock().held.as_ref().is_none_or(|held| held.connection != self.connection) {
            close([&self.client, &self.upstream]);
        }
    }

    fn judge(&self, request: &Request) -> Verdict {
        let mut state = self.shared.lock();
        let asked = (self.connection, request.number);
        if let Some(held) = state.held.as_mut().filter(|held| held.producer == request.producer) {
            return held.follow(request.kind, asked);
        }
        let Some(fate) = state.armed.take_if(|fate| fate.meets(request.kind)) else { return Verdict::Pass };
        match fate {
            Fate::RequestLost => {
                state.done += 1;
                Verdict::Break
            }
            Fate::AnswerLost => {
                state.unanswered = Some(asked);
                Verdict::Pass
            }
            Fate::Late | Fate::LateOffsets | Fate::Swallowed => {
                state.held = Some(Held {
                    fate,
                    connection: self.connection,
                    client: request.client.clone(),
                    producer: request.producer.clone(),
                    frame: request.frame.clone(),
                    upstream: self.upstream.try_clone().expect("a handle"),
                    committed: false,
                    moment: None,
                    delivered: false,
                    last: None,
                });
                state.done += usize::from(fate == Fate::Swallowed);
                Verdict::Held
            }
        }
    }

    fn answers(mut self, client: &str) {
        while let Some(frame) = read_frame(&mut self.upstream) {
            let asked: Asked = (self.connection, frame[4..8].try_into().expect("four bytes"));
            let mut state = self.shared.lock();
            if state.unanswered.take_if(|unanswered| *unanswered == asked).is_some() {
                state.done += 1;
                break;
            }
            let late = state.held.as_mut().and_then(|held| held.due(asked));
            if state.held.as_ref().is_some_and(|held| held.last == Some(asked)) {
                state.trouble = Some((String::new(), Trouble::Silent));
                state.done += 1;
            }
            drop(state);
            if let Some((connection, upstream, frame)) = late {
                deliver(&self.shared, connection, upstream, &frame);
                let mut state = self.shared.lock();
                if state.held.take_if(|held| held.fate == Fate::Late).is_some() {
                    state.done += 1;
                }
            }
            self.shared.suffer(client);
            if self.client.write_all(&frame).is_err() {
                break;
            }
        }
        close([&self.client, &self.upstream]);
    }
}

/// What becomes of a request at once.
enum Verdict {
    Pass,
    /// It never arrives, and nobody is told.
    Nothing,
    /// It never arrives, and its connection breaks.
    Break,
    /// It arrives later, and its connection breaks for the client.
    Held,
}

impl Held {
    /// Another request of the same producer.
    fn follow(&mut self, kind: Kind, asked: Asked) -> Verdict {
        match (self.fate, kind) {
            (Fate::Swallowed, Kind::Commit) => return Verdict::Nothing,
            (Fate::LateOffsets, Kind::Commit) if self.delivered => {
                self.last.get_or_insert(asked);
            }
            (_, Kind::Commit) => self.committed = true,
            (Fate::Late, Kind::Produce) | (Fate::LateOffsets, Kind::Offsets) if self.committed => {
                self.moment.get_or_insert(asked);
            }
            _ => {}
        }
        Verdict::Pass
    }

    /// What is to be delivered where this answer is the moment for it.
    fn due(&mut self, asked: Asked) -> Option<(u64, TcpStream, Vec<u8>)> {
        if self.delivered || self.moment != Some(asked) {
            return None;
        }
        self.delivered = true;
        Some((self.connection, self.upstream.try_clone().ok()?, self.frame.clone()))
    }
}
