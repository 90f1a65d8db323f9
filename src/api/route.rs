//! A route: what the table of routes has rows of, and what the trail and the document read of a row.

use hyper::body::Incoming;
use hyper::{Method, Request};

use super::anywhere;
use super::auth::Access;
use super::call::{Answer, Call, Coming};
use super::declare::Declared;

/// How a handler runs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// On the event loop: it answers from memory.
    Here(fn(&Call) -> Answer),
    /// Beside the event loop: it reads the store.
    Aside(fn(&Call) -> Answer),
    /// On the event loop: it waits for others.
    Waiting(fn(Call) -> Coming),
    /// On the event loop: it reads the body itself, and waits for others.
    Unread(fn(Call, Request<Incoming>) -> Coming),
    /// About one user: wherever the user's partition is.
    Anywhere(anywhere::Handler),
    /// About one partition of users: wherever it is.
    AnywhereOf(anywhere::OfPartition),
}

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Its path; `{}` stands for one segment.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) run: Run,
    /// A request without any body is fine.
    pub(crate) bodiless: bool,
    /// What it says of itself. None only until its author has said it.
    pub(crate) declared: Option<&'static Declared>,
}

impl Route {
    /// With what it says of itself.
    pub(crate) const fn says(mut self, declared: &'static Declared) -> Self {
        self.declared = Some(declared);
        self
    }
}

/// A GET.
pub(crate) const fn get(path: &'static str, access: Access, run: Run) -> Route {
    Route { method: Method::GET, path, access, run, bodiless: true, declared: None }
}

/// A DELETE.
pub(crate) const fn delete(path: &'static str, access: Access, run: Run) -> Route {
    Route { method: Method::DELETE, path, access, run, bodiless: true, declared: None }
}

/// A POST with a body.
pub(crate) const fn post(path: &'static str, access: Access, run: Run) -> Route {
    Route { method: Method::POST, path, access, run, bodiless: false, declared: None }
}

/// A POST whose body may be left out.
pub(crate) const fn call(path: &'static str, access: Access, run: Run) -> Route {
    Route { method: Method::POST, path, access, run, bodiless: true, declared: None }
}
