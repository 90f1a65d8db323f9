//! A labelled data set: the payments as a CSV file that `backtest` and `train` read.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::drive::LoadParams;
use super::traffic::Poison;
use crate::failure::Failure;

/// The columns. `fraud` is 0 or 1; `label` names the kind of anomaly and is not read.
const HEADER: [&str; 8] = ["timestamp", "user_id", "merchant", "amount", "currency", "tx_id", "fraud", "label"];

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Payments.
    pub rows: u64,
    /// Of them labelled as fraud.
    pub fraud: u64,
}

/// Writes the payments, gzipped where the name ends with `.gz`. `progress` is told how many there are so far; false ends the file there.
///
/// # Errors
/// Where the parameters do not fit a file, or it cannot be written.
pub fn to_file(path: &Path, params: &LoadParams, progress: &mut dyn FnMut(u64) -> bool) -> Result<Written, Failure> {
    let cannot = |why: std::io::Error| Failure::new(format!("cannot write {}", path.display())).caused_by(why);
    let file = std::io::BufWriter::new(std::fs::File::create(path).map_err(cannot)?);
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut encoder = GzEncoder::new(file, Compression::default());
        let written = write_rows(&mut encoder, params, progress, &cannot)?;
        encoder.finish().and_then(|mut file| file.flush()).map_err(cannot)?;
        Ok(written)
    } else {
        let mut file = file;
        let written = write_rows(&mut file, params, progress, &cannot)?;
        file.flush().map_err(cannot)?;
        Ok(written)
    }
}

fn write_rows(
    into: &mut dyn Write,
    params: &LoadParams,
    progress: &mut dyn FnMut(u64) -> bool,
    cannot: &dyn Fn(std::io::Error) -> Failure,
) -> Result<Written, Failure> {
    let (traffic, _) = params.open()?;
    let mut rows = csv::Writer::from_writer(into);
    let failed = |why: csv::Error| cannot(std::io::Error::other(why));
    rows.write_record(HEADER).map_err(failed)?;
    let mut written = Written::default();
    for event in traffic {
        debug_assert_eq!(event.poison, None::<Poison>, "a file holds payments only");
        let payment = &event.payment;
        let fraud = event.label().is_some();
        let label = event.label().map_or("", |label| label.name());
        let (time, amount) = (payment.timestamp_ms.to_string(), payment.amount.to_string());
        let fraud_text = if fraud { "1" } else { "0" };
        let payment = [&*payment.user_id, &*payment.merchant, amount.as_str(), &*payment.currency, payment.tx_id.as_str()];
        rows.write_record([time.as_str()].into_iter().chain(payment).chain([fraud_text, label])).map_err(failed)?;
        written.rows += 1;
        written.fraud += u64::from(fraud);
        if written.rows.is_multiple_of(10_000) && !progress(written.rows) {
            break;
        }
    }
    rows.flush().map_err(cannot)?;
    progress(written.rows);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{AnomalyMix, GeneratorParams};
    use crate::input::csv::Reader;
    use crate::load::TrafficParams;

    fn params() -> LoadParams {
        let generator = GeneratorParams {
            users: 200,
            anomaly_mix: AnomalyMix::EVERY_KIND,
            anomaly_share: 0.03,
            ..GeneratorParams::default()
        };
        let traffic = TrafficParams { generator, ..TrafficParams::default() };
        LoadParams { traffic, count: Some(20_000), ..LoadParams::default() }
    }

    #[test]
    fn the_file_is_what_backtest_reads_and_the_same_for_a_seed() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("a.csv"), folder.path().join("b.csv.gz"));
        let written = to_file(&plain, &params(), &mut |_| true).unwrap();
        assert_eq!(to_file(&packed, &params(), &mut |_| true).unwrap(), written);
        let mut counts = Vec::new();
        let mut rows = Vec::new();
        for path in [&plain, &packed] {
            let mut reader = Reader::open(path, &[]).unwrap();
            let (mut count, mut fraud) = (0, 0);
            while let Some(row) = reader.next_row().unwrap() {
                count += 1;
                fraud += u64::from(row.fraud.unwrap());
                rows.push(format!("{row:?}"));
            }
            counts.push(Written { rows: count, fraud });
        }
        assert_eq!(counts, [written; 2]);
        assert_eq!(rows[..20_000], rows[20_000..]);
        assert_eq!(written.rows, 20_000);
        assert!((400..800).contains(&written.fraud), "{written:?}");
    }
}
