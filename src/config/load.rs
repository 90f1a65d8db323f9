//! From the sources to settings that are all right, or to all that is wrong with them.

use super::checks;
use super::fault::Fault;
use super::kafka::{self, KafkaProperties};
use super::reader::Reader;
use super::source::{Sources, Texts};
use super::table::{DECLARATIONS, Settings, read_declared};

impl Settings {
    /// Reads all sources and checks every setting.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let declared = |variable: &str| DECLARATIONS.iter().any(|known| known.variable == variable);
        let ours = |variable: &str| declared(variable) || variable.starts_with(kafka::PREFIX);
        let texts = Texts::collect(sources, ours, &mut faults);
        let kafka = KafkaProperties::read(&texts, declared, &mut faults);
        let settings = read_declared(&mut Reader::new(DECLARATIONS, &texts, &mut faults), kafka);
        if let Some(settings) = &settings {
            checks::check(settings, &mut faults);
        }
        // A setting that could not be read has left a fault.
        settings.filter(|_| faults.is_empty()).ok_or(faults)
    }
}
