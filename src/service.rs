//! Runs an instance until it is told to stop: broker, workers, HTTP, signals, drain.
//!
//! SIGTERM and Ctrl-C drain: not ready first, a last commit, then the end with status 0, within 10 seconds. A second signal ends at once
//! what the first one did not.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use topology::broker::Broker;
use topology::record::Topics;
use tracing::{error, info};

use crate::api::Doors;
use crate::config::{BrokerKind, Budget, EmbeddedSync, Role, Settings};
use crate::failure::Failure;
use crate::instance::{Blueprint, Identity, Instance, RestoreView, Stop};
use crate::tls::{Tls, TlsFiles};

use crate::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};
use crate::broker::kafka::{Buffers, KafkaBroker, KafkaConfig};

/// The longest that the end may take, and of it the workers' last commits: a broker that is gone keeps neither waiting for longer.
const END: Duration = Duration::from_secs(9);
const DRAIN: Duration = Duration::from_secs(7);
/// How often a running instance is looked after.
const LOOK: Duration = Duration::from_millis(100);
/// Between two rounds of the embedded broker's retention and compaction.
const MAINTAIN: Duration = Duration::from_secs(30);

/// What to do beside scoring, called about ten times a second.
pub trait Attendant<B> {
    /// Called once, when the instance runs; `url` is where it serves HTTP.
    ///
    /// # Errors
    /// What keeps the attendant from its work; the instance then ends.
    fn begin(&mut self, instance: &Instance, broker: &Arc<B>, url: &str) -> Result<(), Failure>;

    /// Does a bit of work; false ends the instance.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn tend(&mut self, instance: &Instance) -> Result<bool, Failure>;

    /// Called once, after the last commit.
    ///
    /// # Errors
    /// Where the results cannot be printed.
    fn end(&mut self) -> Result<(), Failure>;
}

/// Nothing beside scoring.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl<B> Attendant<B> for Nobody {
    fn begin(&mut self, _: &Instance, _: &Arc<B>, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn tend(&mut self, _: &Instance) -> Result<bool, Failure> {
        Ok(true)
    }

    fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The Kafka broker that the settings name.
///
/// # Errors
/// A librdkafka property that is none.
pub fn kafka(settings: &Settings, blueprint: &Blueprint) -> Result<Arc<KafkaBroker>, Failure> {
    kafka_with(settings, blueprint.topics())
}

/// As [`kafka`], with a table of topics of the caller's own.
///
/// # Errors
/// As [`kafka`].
pub fn kafka_with(settings: &Settings, topics: Topics) -> Result<Arc<KafkaBroker>, Failure> {
    let budget = crate::instance::budget(settings)?;
    let Budget { fetch, restore, produce, poll, .. } = budget;
    let config = KafkaConfig {
        buffers: Buffers { fetch, restore, produce, poll },
        bootstrap_servers: settings.kafka_bootstrap_servers.clone(),
        properties: settings.kafka.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..KafkaConfig::default()
    };
    let broker = KafkaBroker::new(config, topics);
    broker.map(Arc::new).map_err(|why| Failure::new("the Kafka client cannot be set up").caused_by(why))
}

/// The embedded broker in the folder that the settings name.
///
/// # Errors
/// Where another process holds the folder, or it is damaged.
pub fn embedded(settings: &Settings, blueprint: &Blueprint) -> Result<Arc<EmbeddedBroker>, Failure> {
    embedded_with(settings, blueprint.topics())
}

/// As [`embedded`], with a table of topics of the caller's own.
///
/// # Errors
/// As [`embedded`].
pub fn embedded_with(settings: &Settings, topics: Topics) -> Result<Arc<EmbeddedBroker>, Failure> {
    let budget = crate::instance::budget(settings)?;
    let options = EmbeddedOptions {
        durability: match settings.embedded_sync {
            EmbeddedSync::Commit => Durability::Commit,
            EmbeddedSync::Os => Durability::Os,
        },
        memory_bytes: budget.broker,
        fetch_bytes: budget.poll,
        ..EmbeddedOptions::default()
    };
    std::fs::create_dir_all(&settings.embedded_dir)
        .map_err(|why| Failure::new(format!("cannot create EMBEDDED_DIR {}", settings.embedded_dir.display())).caused_by(why))?;
    let now = Arc::new(crate::clock::now_ms);
    let broker = EmbeddedBroker::open(&settings.embedded_dir, topics, options, now);
    broker.map(Arc::new).map_err(|why| Failure::new("the embedded broker cannot be opened").caused_by(why))
}

/// Runs one instance on the broker of the settings until a signal.
///
/// # Errors
/// What made it stop, where that was not a signal.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let identity = Identity::lock(&settings.state_dir, settings.instance_id.as_deref())?;
    let blueprint = Blueprint::new(settings)?;
    match settings.broker {
        BrokerKind::Kafka => serve(settings, identity, kafka(settings, &blueprint)?, blueprint, &mut Nobody, &|_| {}),
        BrokerKind::Embedded => serve(settings, identity, embedded(settings, &blueprint)?, blueprint, &mut Nobody, &maintain),
    }
}

/// The embedded broker's housekeeping.
pub fn maintain(broker: &EmbeddedBroker) {
    if let Err(why) = broker.maintain(crate::clock::now_ms()) {
        error!(%why, "the embedded broker's retention and compaction failed");
    }
}

/// Runs one instance on a broker until a signal, or until the attendant is done.
///
/// # Errors
/// What made it stop, where that was not a signal.
pub fn serve<B: Broker>(
    settings: &Settings,
    identity: Identity,
    broker: Arc<B>,
    blueprint: Blueprint,
    attendant: &mut dyn Attendant<B>,
    housekeeping: &dyn Fn(&B),
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::new("cannot start threads").caused_by(why))?;
    let tls = tls(settings)?;
    let stop = Stop::default();
    runtime.spawn(signals(stop.clone()));
    let Some(instance) = Instance::start(settings, blueprint, identity, &broker, &stop)? else {
        return Ok(());
    };
    let (shut, shutdown) = watch::channel(false);
    let listener = runtime.block_on(TcpListener::bind(settings.http_addr)).map_err(|why| {
        let hint = "another program has this address: set HTTP_ADDR";
        Failure::new(format!("cannot listen on HTTP_ADDR {}", settings.http_addr)).caused_by(why).hint(hint)
    })?;
    // Not the setting's: that one's port may be 0.
    let address = listener.local_addr().map_err(|why| Failure::new("the address of HTTP is not known").caused_by(why))?;
    let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    info!(address = %address, url, "HTTP is served");
    if settings.roles.is_asked() {
        instance.serves_at(settings.http_advertised_addr.as_deref().unwrap_or(&address.to_string()));
    }
    let api = Arc::new(instance.api(settings));
    let doors = Doors {
        tokens: settings.api_tokens.clone(),
        requests_per_second: settings.http_rate_limit,
        tls,
        peers_only: !settings.roles.plays(Role::Api),
    };
    let server = runtime.spawn(crate::api::serve(api, listener, doors, stopped(shutdown)));
    info!(instance = instance.name, application = instance.topology.application(), "instance runs");
    let outcome = attend(&instance, &broker, &url, attendant, housekeeping, &stop);
    let ending = crate::clock::monotonic();
    let drained = instance.stop(DRAIN);
    let _ = shut.send(true);
    let left = END.saturating_sub(crate::clock::since(ending));
    let _late = runtime.block_on(async { tokio::time::timeout(left, server).await });
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome?;
    drained?;
    attendant.end()
}

/// What the settings say of TLS.
fn tls(settings: &Settings) -> Result<Option<Tls>, Failure> {
    let (Some(certificate), Some(key)) = (&settings.http_tls_cert, &settings.http_tls_key) else { return Ok(None) };
    let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), authority: settings.http_tls_ca.clone() };
    let hint = "check HTTP_TLS_CERT, HTTP_TLS_KEY and HTTP_TLS_CA";
    Tls::load(&files).map(Some).map_err(|why| Failure::new("TLS cannot be served").caused_by(why).hint(hint))
}

fn attend<B: Broker>(
    instance: &Instance,
    broker: &Arc<B>,
    url: &str,
    attendant: &mut dyn Attendant<B>,
    housekeeping: &dyn Fn(&B),
    stop: &Stop,
) -> Result<(), Failure> {
    attendant.begin(instance, broker, url)?;
    let mut last = crate::clock::monotonic();
    let mut restores = RestoreView::default();
    while !stop.raised() {
        if let Some(why) = instance.failure() {
            return Err(Failure::new(why));
        }
        if !attendant.tend(instance)? {
            break;
        }
        instance.look_around();
        restores.show(&instance.tasks.all());
        if crate::clock::since(last) >= MAINTAIN {
            housekeeping(broker);
            last = crate::clock::monotonic();
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // An error means the sender is gone: stopped as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn signals(stop: Stop) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("cannot listen to signals: only kill -9 will end this instance");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: draining"),
        _ = interrupt.recv() => info!("interrupted: draining"),
    }
    stop.raise();
}
