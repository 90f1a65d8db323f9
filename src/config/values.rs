//! The types of settings that are more than a number or a text.

use std::collections::BTreeSet;
use std::fmt;

/// A closed set of words, each of which is a value.
pub trait Choice: Copy + 'static {
    /// Every word with its value, in the order in which they are listed to people.
    const ALL: &'static [(&'static str, Self)];
}

/// Declares an enum together with its words, so that the two cannot part.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )+ }

        impl Choice for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $( Self::$variant => $word, )+ })
            }
        }
    };
}

choices! {
    /// Which broker holds the topics.
    BrokerKind {
        /// Apache Kafka or Redpanda, by librdkafka.
        Kafka = "kafka",
        /// Our own, in a folder of this machine.
        Embedded = "embedded",
    }
}

choices! {
    /// What a crash may cost.
    ProcessingGuarantee {
        /// One verdict per record, by transactions.
        ExactlyOnce = "exactly_once",
        /// No record lost; a verdict may appear twice, under the same id.
        AtLeastOnce = "at_least_once",
    }
}

choices! {
    /// How the input topic is keyed.
    InputPartitioning {
        /// By murmur2 of the user id, as every Java client does; each record is checked.
        Murmur2 = "murmur2",
        /// By anything: records go through a repartition topic first.
        Any = "any",
    }
}

choices! {
    /// Which verdicts say why.
    Reasons {
        /// Those of anomalies.
        Anomalies = "anomalies",
        /// Every one.
        All = "all",
    }
}

choices! {
    /// When the embedded broker's commits reach the disk.
    EmbeddedSync {
        /// Before the commit is acknowledged.
        Commit = "commit",
        /// When the operating system sees fit: a power loss may cost the tail.
        Os = "os",
    }
}

choices! {
    /// Where to begin when the group has no committed offsets and yet there is a changelog.
    StartFrom {
        /// Nowhere: refuse to start and say so.
        Refuse = "none",
        /// At the input positions that the changelog carries.
        Changelog = "changelog",
        /// At the first record still retained, with the state emptied.
        Earliest = "earliest",
    }
}

choices! {
    /// How log lines look.
    LogFormat {
        /// For people on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choices! {
    /// A part that an instance can play.
    Role {
        /// Scores the stream.
        Stream = "stream",
        /// Serves HTTP.
        Api = "api",
        /// Writes profiles and verdicts to Redis and Postgres.
        Projection = "projection",
        /// Starts retrainings.
        Schedule = "schedule",
        /// Tells people of anomalies.
        Notify = "notify",
    }
}

/// The roles that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(pub(super) BTreeSet<Role>);

impl Roles {
    /// Whether the instance plays this role.
    pub fn plays(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether other instances may ask this one: it serves people's requests, or has partitions that others answer from.
    pub fn is_asked(&self) -> bool {
        self.plays(Role::Api) || self.plays(Role::Stream)
    }
}

choices! {
    /// What the holder of a token may do.
    Scope {
        /// Read profiles, verdicts and metrics.
        Query = "query",
        /// Send payments and labels.
        Write = "write",
        /// Erase a user.
        Erase = "erase",
        /// Operate: retrain, redrive, reset.
        Admin = "admin",
    }
}

/// A token that opens the HTTP interface. Only its digest is known here.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Who it was given to; stands in the audit log.
    pub name: String,
    /// What it opens.
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

/// Shows no digest: a weak token could be found from it.
impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}
