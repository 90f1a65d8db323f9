//! `mangrove probe`: asks the instance on this machine one of its probes, for health checks where there is no HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum;

use super::{Failure, Output};
use crate::ask;
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  mangrove probe                 is the instance at HTTP_ADDR making progress?
  mangrove probe readyz          are the keys of its partitions answerable?

Exit status: 0 yes, 1 no or no answer within 2 seconds, 2 wrong usage.";

/// How long the instance may take.
const WAIT: Duration = Duration::from_secs(2);

/// What can be asked.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Probe {
    /// Progress is being committed
    #[default]
    Livez,
    /// Keys are answerable
    Readyz,
    /// It has started
    Startupz,
}

/// Which probe.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which one
    #[arg(value_enum, default_value_t)]
    pub probe: Probe,
}

/// Prints the answer.
///
/// # Errors
/// Where it is no, or none.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let address = reachable(settings.http_addr);
    let name = args.probe.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let path = format!("/{name}");
    let answer = ask::get(&address.to_string(), &path, WAIT)
        .map_err(|why| Failure::new(format!("no answer from http://{address}{path}")).caused_by(why))?;
    let (status, body) = answer.split_once("\n\n").unwrap_or((&answer, ""));
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new(format!("{name}: {status}: {}", body.trim())));
    }
    Output::stdout().line(body.trim())
}

/// Where an instance that listens here is asked from the same machine.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_on_all_interfaces_is_asked_on_loopback() {
        let asked = |listens: &str| reachable(listens.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(asked("[::]:8000"), "[::1]:8000");
        assert_eq!(asked("10.1.2.3:8000"), "10.1.2.3:8000");
    }
}
