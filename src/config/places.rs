//! Settings that say where something is: files, folders, buckets, servers.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::parse::Parser;
use super::url::ServerUrl;

/// A path of the local file system.
pub struct FilePath;

impl Parser for FilePath {
    type Value = PathBuf;

    fn expected() -> String {
        "a path on this machine".to_owned()
    }

    fn read(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            Err("is empty".to_owned())
        } else if text.contains('\0') {
            Err("holds a NUL character".to_owned())
        } else if text.contains("://") {
            Err("is a URL, which this version does not read".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }
}

/// Where artifacts are kept: a folder, or a bucket's URL.
pub struct StorePlace;

impl Parser for StorePlace {
    type Value = String;

    fn expected() -> String {
        "a folder, s3://bucket/prefix or gs://bucket/prefix".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return FilePath::read(text).map(|_| text.to_owned());
        };
        match (scheme, rest.split('/').next().unwrap_or_default()) {
            (_, _) if text.contains('\0') => Err("holds a NUL character".to_owned()),
            ("s3" | "gs", "") => Err("names no bucket".to_owned()),
            ("s3" | "gs", _) => Ok(text.to_owned()),
            _ => Err("is a URL of a kind that is not known".to_owned()),
        }
    }
}

/// A server of Redis.
pub struct RedisUrl;

impl Parser for RedisUrl {
    type Value = ServerUrl;

    fn expected() -> String {
        "redis://host:port/number, or rediss:// for TLS".to_owned()
    }

    fn read(text: &str) -> Result<ServerUrl, String> {
        // What the library says of it may repeat a password.
        redis::Client::open(text).map(|_| ServerUrl::new(text)).map_err(|_| "is no URL of a Redis".to_owned())
    }
}

/// A Postgres database.
pub struct PostgresUrl;

impl Parser for PostgresUrl {
    type Value = ServerUrl;

    fn expected() -> String {
        "postgres://user:password@host:port/database".to_owned()
    }

    fn read(text: &str) -> Result<ServerUrl, String> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("is no URL of a Postgres database".to_owned());
        }
        let config = text.parse::<tokio_postgres::Config>();
        config.map(|_| ServerUrl::new(text)).map_err(|_| "is no URL of a Postgres database".to_owned())
    }
}

/// Where to find the first brokers.
pub struct Servers;

impl Parser for Servers {
    type Value = String;

    fn expected() -> String {
        "`host:port`, several with commas between".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        let mut servers = Vec::new();
        for server in text.split(',').map(str::trim) {
            // librdkafka takes `SSL://host:port` too.
            let address = server.split_once("://").map_or(server, |(_, address)| address);
            let (host, port) = address.rsplit_once(':').ok_or("names a server without a port")?;
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err("names a server without a host".to_owned());
            }
            if port.parse::<u16>().is_err() || port.starts_with('+') || port == "0" {
                return Err("names a server whose port is not a number from 1 to 65535".to_owned());
            }
            servers.push(server);
        }
        Ok(servers.join(","))
    }
}

/// Where to listen.
pub struct Address;

impl Parser for Address {
    type Value = SocketAddr;

    fn expected() -> String {
        "`address:port` such as 127.0.0.1:8000 or [::1]:8000".to_owned()
    }

    fn read(text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| "is not an address with a port (a host's name will not do)".to_owned())
    }
}

/// Where others reach this instance.
pub struct HostPort;

impl Parser for HostPort {
    type Value = String;

    fn expected() -> String {
        "`host:port` as other instances reach it, such as 10.0.0.7:8000 or scorer-1.scorers:8000".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if !crate::membership::is_endpoint(text) {
            Err("is not a host with a port".to_owned())
        } else if text.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified()) {
            Err("is every address and none: nobody can call it".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}
