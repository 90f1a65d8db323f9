//! Headers, values, errors, compression, and the files that came with the project.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn open(text: &str, maps: &[&str]) -> Result<Reader, InputError> {
    let mappings: Vec<Mapping> = maps.iter().map(|map| map.parse().unwrap()).collect();
    Reader::new(Path::new("f.csv"), Box::new(Cursor::new(text.as_bytes().to_vec())), &mappings)
}

fn header_error(text: &str, maps: &[&str]) -> InputError {
    open(text, maps).err().unwrap_or_else(|| panic!("{text} {maps:?} was taken"))
}

/// The first row's error.
fn row_error(text: &str) -> String {
    open(text, &[]).unwrap().next_row().unwrap_err().to_string()
}

#[test]
fn all_fields_are_read() {
    let text = "tx_id,timestamp,user_id,merchant,amount,currency,fraud,other\n\
                t1,2024-02-29T12:00:00.5Z,u,\"m, ltd\",12.50,EUR,1,x\n\
                ,1709208000500,u,m,0,,,\n";
    let mut reader = open(text, &[]).unwrap();
    let first = Row {
        line: 2,
        timestamp_ms: 1_709_208_000_500,
        user_id: "u",
        merchant: "m, ltd",
        amount: 12.5,
        currency: Some("EUR"),
        tx_id: Some("t1"),
        fraud: Some(true),
    };
    assert_eq!(reader.next_row().unwrap(), Some(first));
    let second = reader.next_row().unwrap().unwrap();
    assert_eq!((second.line, second.timestamp_ms, second.amount.to_bits()), (3, 1_709_208_000_500, 0));
    assert_eq!((second.currency, second.tx_id, second.fraud), (None, None, None));
    assert_eq!(reader.next_row().unwrap(), None);
}

#[test]
fn second_names_and_mappings_are_known() {
    let mut reader = open("\u{feff}ts_s,user_id,merchant_id,amount\n1.25,1,2,3\n", &[]).unwrap();
    let row = reader.next_row().unwrap().unwrap();
    assert_eq!((row.timestamp_ms, row.merchant), (1_250, "2"));
    // A mapping wins over a field's own name, and its column no longer means what its name says.
    let text = "when,user_id,merchant,amount,shop\n7,u,5,1,s\n";
    let mut reader = open(text, &["when=ts_s", "shop=merchant", "merchant=amount"]).unwrap();
    let row = reader.next_row().unwrap().unwrap();
    assert_eq!((row.timestamp_ms, row.merchant, row.amount.to_bits()), (7_000, "s", 5f64.to_bits()));
    // Where both are there, `timestamp` is meant.
    let mut reader = open("ts_s,timestamp,user_id,merchant,amount\n1,2,u,m,3\n", &[]).unwrap();
    assert_eq!(reader.next_row().unwrap().unwrap().timestamp_ms, 2);
}

#[test]
fn what_a_header_lacks_is_named_at_once() {
    let error = header_error("when,who,amount\n", &[]);
    let text = error.to_string();
    assert_eq!(text, "f.csv: no column for timestamp, user_id, merchant; the header is: when, who, amount");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--map COLUMN=timestamp --map COLUMN=user_id --map COLUMN=merchant"), "{hint}");
    let text = header_error("a,b\n", &["c=amount", "d=fraud"]).to_string();
    assert!(text.contains("no column is called c, d; the header is: a, b"), "{text}");
    let good = "timestamp,user_id,merchant,amount";
    assert!(header_error(&format!("{good},amount\n"), &[]).to_string().contains("two columns are called `amount`"));
    assert!(open(&format!("{good},x,x\n"), &[]).is_ok(), "unused columns may be called as they like");
    assert!(header_error(good, &["amount=fraud", "merchant=fraud"]).to_string().contains("mapped twice"));
    assert!(header_error(good, &["amount=ts_s", "timestamp=timestamp"]).to_string().contains("mapped twice"));
    assert!(header_error("", &[]).to_string().contains("no column for"));
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let text = "timestamp,user_id,merchant,amount,fraud\n";
    let cases = [
        ("yesterday,u,m,1,0", "f.csv:2: column `timestamp`: expected RFC 3339"),
        ("1,,m,1,0", "f.csv:2: column `user_id`: expected something other than an empty cell, found ``"),
        ("1,u,m,,0", "f.csv:2: column `amount`: expected a number as in JSON, such as 12.5, found ``"),
        ("1,u,m,NaN,0", "found `NaN`"),
        ("1,u,m,1,2", "column `fraud`: expected 0 or 1, found `2`"),
        ("1,u,m,1", "f.csv:2: the row has 4 cells, the header 5"),
    ];
    for (row, expected) in cases {
        let error = row_error(&format!("{text}{row}\n"));
        assert!(error.contains(expected), "{error}");
    }
    let long = row_error(&format!("{text}1,u,m,{},0\n", "x".repeat(500)));
    assert!(long.chars().count() < 140, "{long}");
}

#[test]
fn reading_goes_on_after_a_wrong_row() {
    let text = "timestamp,user_id,merchant,amount\nx,u,m,1\n1,u,m\n1,u,m,1\n";
    let mut reader = open(text, &[]).unwrap();
    assert!(reader.next_row().is_err());
    assert!(reader.next_row().is_err());
    assert_eq!(reader.next_row().unwrap().unwrap().line, 4);
}

#[test]
fn bytes_that_are_not_text_are_an_error_of_their_row() {
    let bytes = b"timestamp,user_id,merchant,amount\n1,\xff\xfe,m,1\n".to_vec();
    let mut reader = Reader::new(Path::new("f.csv"), Box::new(Cursor::new(bytes)), &[]).unwrap();
    let error = reader.next_row().unwrap_err().to_string();
    assert!(error.contains("column `user_id`: expected text in UTF-8"), "{error}");
}

#[test]
fn amounts_are_read_as_json_reads_them() {
    for text in ["0", "-0", "12.5", "1e3", "1E-3", "0.1", "9007199254740993", "1.7976931348623157e308", "5e-324", "-2.50"] {
        let json: f64 = serde_json::from_str(text).unwrap();
        assert_eq!(value::amount(text).map(f64::to_bits), Some(json.to_bits()), "{text}");
    }
    for text in ["", ".5", "5.", "+1", "01", "1e", "1e400", "inf", "NaN", "1,5", "0x1", "1_000", "--1", "1e+", "- 1"] {
        assert_eq!(value::amount(text), None, "{text}");
        assert!(serde_json::from_str::<f64>(text).is_err(), "{text}");
    }
}

#[test]
fn times_are_read_to_the_millisecond_and_rounded_down() {
    let rfc = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01T00:00:00.0019Z", Some(1)),
        ("1969-12-31T23:59:59.9999Z", Some(-1)),
        ("2024-02-29T12:00:00+02:00", Some(1_709_200_800_000)),
        ("2024-02-29t12:00:00z", Some(1_709_208_000_000)),
        ("-5", Some(-5)),
        ("1709208000123", Some(1_709_208_000_123)),
        ("2024-02-29", None),
        ("2024-02-29T12:00:00", None),
        ("2024-02-30T12:00:00Z", None),
        ("2024-02-29T12:00:00+0200", None),
        ("2024-02-29T12:00:00Z[UTC]", None),
        ("1709208000.5", None),
        ("99999999999999999999", None),
    ];
    for (text, expected) in rfc {
        assert_eq!(value::timestamp(text), expected, "{text}");
    }
    let seconds = [
        ("1", Some(1_000)),
        ("1.5", Some(1_500)),
        ("1.0005", Some(1_000)),
        ("1700000000.123", Some(1_700_000_000_123)),
        ("-1.5", Some(-1_500)),
        ("-0.0001", Some(-1)),
        ("1.7e9", Some(1_700_000_000_000)),
        ("1.", None),
        (".5", None),
        ("1e300", None),
        ("9223372036854775807", None),
        ("", None),
    ];
    for (text, expected) in seconds {
        assert_eq!(value::seconds(text), expected, "{text}");
    }
}

#[test]
fn gzip_is_known_by_its_content_and_may_have_several_members() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payments");
    let member = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut bytes = member("timestamp,user_id,merchant,amount\n1,u,m,1\n");
    bytes.extend(member("2,u,m,1\n"));
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = Reader::open(&path, &[]).unwrap();
    let mut times = Vec::new();
    while let Some(row) = reader.next_row().unwrap() {
        times.push(row.timestamp_ms);
    }
    assert_eq!(times, [1, 2]);
    std::fs::write(&path, &bytes[..bytes.len() - 12]).unwrap();
    let mut reader = Reader::open(&path, &[]).unwrap();
    let end = std::iter::repeat_with(|| reader.next_row().map(|row| row.is_some())).find(|row| !matches!(row, Ok(true)));
    assert!(matches!(end, Some(Err(InputError { problem: Problem::Unreadable(_), .. }))), "a cut file is not a short one");
    let error = Reader::open(&folder.path().join("absent"), &[]).err().unwrap().to_string();
    assert!(error.contains("absent: cannot be read"), "{error}");
}

/// (file, rows, frauds, sum of amounts in cents), counted by another program.
const SHARED: [(&str, u64, u64, u64); 2] = [
    ("sparkov_400users_9months.csv.gz", 269_399, 3_801, 2_016_820_120),
    ("fdh_window_51d.csv.gz", 488_678, 4_347, 2_620_165_164),
];

#[test]
fn the_shared_files_are_read_whole() {
    for (name, rows, frauds, cents) in SHARED {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
        if !path.exists() {
            skip(&format!("the_shared_files_are_read_whole: {} is absent", path.display()));
            continue;
        }
        let mut reader = Reader::open(&path, &[]).unwrap();
        let mut found = (0, 0, 0.0);
        while let Some(row) = reader.next_row().unwrap() {
            found.0 += 1;
            found.1 += u64::from(row.fraud.expect("a label in every row"));
            found.2 += row.amount * 100.0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are not negative")]
        let found = (found.0, found.1, found.2.round() as u64);
        assert_eq!(found, (rows, frauds, cents), "{name}");
    }
}

/// Says loudly that a test did nothing, and adds it to the list that `make test` prints.
fn skip(why: &str) {
    // Straight to standard error: the test harness would swallow `eprintln!`.
    writeln!(std::io::stderr(), "!! SKIPPED {why}").unwrap();
    #[expect(clippy::disallowed_methods, reason = "the tests' own list of skips, not a setting")]
    if let Some(list) = std::env::var_os("MANGROVE_SKIPS") {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "test {why}").unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any double written as text is read back to the bit.
    #[test]
    fn every_amount_survives(amount in any::<f64>().prop_filter("finite", |amount| amount.is_finite())) {
        prop_assert_eq!(value::amount(&serde_json::to_string(&amount).unwrap()).map(f64::to_bits), Some(amount.to_bits()));
    }

    #[test]
    fn the_same_texts_are_numbers_as_in_json(text in "-?[0-9]{0,4}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?") {
        prop_assert_eq!(value::amount(&text).is_some(), serde_json::from_str::<f64>(&text).is_ok(), "{}", text);
    }

    /// No bytes make the reader panic or go on for ever.
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        let mut file = if header { b"timestamp,user_id,merchant,amount\n".to_vec() } else { Vec::new() };
        file.extend(&bytes);
        if let Ok(mut reader) = Reader::new(Path::new("f"), Box::new(Cursor::new(file)), &[]) {
            let ends = (0..=bytes.len() + 1).any(|_| matches!(reader.next_row(), Ok(None)));
            prop_assert!(ends);
        }
    }

    #[test]
    fn no_cell_makes_it_panic(text in any::<String>()) {
        let _ = (value::timestamp(&text), value::seconds(&text), value::label(&text));
    }
}
