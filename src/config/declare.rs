//! What a setting's declaration holds, and the macro that makes the [`Settings`](super::Settings) of declarations.
//!
//! One declaration is the only place that knows a setting: the struct's field, the flag, the line of `.env.example`, the
//! row of `docs/settings.md` and the row of `mangrove config` all come from it.

/// What is in force where no source says anything.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This text.
    Text(&'static str),
    /// `TOPIC_PREFIX` and this text behind it.
    Prefixed(&'static str),
    /// What the machine tells.
    Found {
        /// How it comes about, for people.
        words: &'static str,
        /// Finds the text, or says why it cannot.
        find: fn() -> Result<String, String>,
    },
    /// Nothing is set.
    Unset {
        /// What that means, for people.
        means: &'static str,
    },
}

impl Fallback {
    /// The default as people read it.
    pub fn words(&self) -> String {
        match self {
            Self::Text("") => "empty".to_owned(),
            Self::Text(text) => (*text).to_owned(),
            Self::Prefixed(name) => format!("{name} (with TOPIC_PREFIX in front)"),
            Self::Found { words, .. } => (*words).to_owned(),
            Self::Unset { means } => format!("not set: {means}"),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// The group it is listed under.
    pub section: &'static str,
    /// The variable in the environment and in `.env`.
    pub variable: &'static str,
    /// The lines of its explanation.
    pub(super) help: &'static [&'static str],
    /// What is in force where no source says anything.
    pub fallback: Fallback,
    /// Its value is never shown, and it has no flag: other users of the machine can read a command line.
    pub secret: bool,
    /// What a right value looks like.
    pub expected: fn() -> String,
}

impl Declaration {
    /// Its flag, such as `--commit-interval-ms`; none for secrets.
    pub fn flag(&self) -> Option<String> {
        (!self.secret).then(|| super::origin::flag_name(self.variable))
    }

    /// What it does, in one paragraph.
    pub fn help(&self) -> String {
        self.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// Makes `Settings`, `DECLARATIONS` and the function that reads all of them.
///
/// A declaration reads: explanation, `VARIABLE => field: type as Parser = fallback [, secret];`.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $( [$section:literal] $(
            $(#[doc = $help:literal])+
            $variable:ident => $field:ident : $type:ty as $parser:ty = $fallback:expr $(, $secret:ident)? ;
        )+ )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(
                $(#[doc = $help])+
                #[doc = concat!("\n\n`", stringify!($variable), "`")]
                pub $field: $type,
            )+)+
            /// Every other property of librdkafka, by `KAFKA_*`.
            pub kafka: KafkaProperties,
            rows: Vec<Row>,
        }

        /// Every setting, in the order in which it is listed to people.
        pub static DECLARATIONS: &[Declaration] = &[
            $($( Declaration {
                section: $section,
                variable: stringify!($variable),
                help: &[$($help),+],
                fallback: $fallback,
                secret: settings!(@secret $($secret)?),
                expected: <$parser as Parser>::expected,
            }, )+)+
        ];

        /// Reads every declared setting before it gives up on any, so that all faults are found.
        pub(super) fn read_declared(reader: &mut Reader<'_>, kafka: KafkaProperties) -> Option<Settings> {
            $($( let $field = reader.read::<$parser>(stringify!($variable)); )+)+
            Some(Settings {
                $($( $field: $field?, )+)+
                kafka,
                rows: reader.take_rows(),
            })
        }
    };
    (@secret) => { false };
    (@secret secret) => { true };
}
