//! Labelled tables from numpy's `.npz` files, as ADBench publishes them: `X` (rows x columns, any real type) and `y` (0 or 1 a row).
//!
//! Nothing in the file is believed before it is checked: sizes are bounded before memory is taken, values are read one by one and
//! become f32 at once, and what does not fit is named with its place.
//! Limits: [`CELLS_MAX`] values in X, [`DIMENSIONS_MAX`](models::forest::DIMENSIONS_MAX) columns.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use models::forest::DIMENSIONS_MAX;
use zip::ZipArchive;

use super::npy::Header;

/// Most values of a table: 2 GiB of f32.
pub const CELLS_MAX: u64 = 1 << 29;
/// Most files within the archive.
const ARRAYS_MAX: usize = 1024;

/// A table with a label for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Row-major, finite.
    pub rows: Vec<f32>,
    /// Columns of a row.
    pub columns: usize,
    /// True where the row is an anomaly.
    pub labels: Vec<bool>,
}

/// Why a file gives no labelled table.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is no archive.
    #[error("is no .npz archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// One of its arrays is missing or is not what is needed.
    #[error("{array}: {what}")]
    Array {
        /// `X` or `y`.
        array: &'static str,
        /// What is wrong and what is expected.
        what: String,
    },
}

fn wrong(array: &'static str, what: impl Into<String>) -> NpzError {
    NpzError::Array { array, what: what.into() }
}

/// Reads `X` and `y`.
///
/// # Errors
/// [`NpzError`] names the array, the place and what is expected there.
pub fn read(path: &Path) -> Result<Labelled, NpzError> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    if archive.len() > ARRAYS_MAX {
        return Err(wrong("X", format!("the archive has {} files, {ARRAYS_MAX} at most", archive.len())));
    }
    let (shape, values) = array(&mut archive, "X", to_f32)?;
    let [count, columns] = shape[..] else {
        return Err(wrong("X", format!("has {} dimensions; rows x columns are expected", shape.len())));
    };
    let (y_shape, labels) = array(&mut archive, "y", to_label)?;
    // (n,) or (n, 1).
    let other: u64 = y_shape.iter().skip(1).product();
    if y_shape.first() != Some(&count) || other != 1 {
        return Err(wrong("y", format!("has the shape {y_shape:?}; one label for each of the {count} rows of X is expected")));
    }
    let anomalies = labels.iter().filter(|&&label| label).count();
    if anomalies == 0 || anomalies == labels.len() {
        let what = if anomalies == 0 { "no row is labelled 1" } else { "every row is labelled 1" };
        return Err(wrong("y", format!("{what}: both kinds are needed to judge a ranking")));
    }
    Ok(Labelled { rows: values, columns: columns as usize, labels })
}

/// One value of X as the forest takes it.
fn to_f32(value: f64) -> Result<f32, &'static str> {
    if value.is_nan() {
        return Err("is NaN: fill in or leave out rows with missing values first");
    }
    let value = value as f32;
    if value.is_finite() { Ok(value) } else { Err("is infinite or beyond 3.4e38: the forest takes finite 32-bit numbers") }
}

fn to_label(value: f64) -> Result<bool, &'static str> {
    match value {
        0.0 => Ok(false),
        1.0 => Ok(true),
        _ => Err("is neither 0 (normal) nor 1 (anomaly)"),
    }
}

/// An array's shape and values, row-major.
fn array<T: Copy + Default>(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &'static str,
    convert: fn(f64) -> Result<T, &'static str>,
) -> Result<(Vec<u64>, Vec<T>), NpzError> {
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let Ok(entry) = archive.by_name(&format!("{name}.npy")) else {
        return Err(wrong(name, format!("is missing; the archive has {}", names.join(", "))));
    };
    let mut entry = BufReader::new(entry);
    let header = Header::read(&mut entry).map_err(|why| wrong(name, why))?;
    let kind = header.kind().map_err(|why| wrong(name, why))?;
    let shape = header.shape;
    let count = shape.iter().try_fold(1u64, |count, &side| count.checked_mul(side)).filter(|&count| count <= CELLS_MAX);
    let Some(count) = count else {
        return Err(wrong(name, format!("has the shape {shape:?}: more than {CELLS_MAX} values")));
    };
    let columns = shape.iter().skip(1).product::<u64>();
    if count == 0 || columns > DIMENSIONS_MAX as u64 {
        return Err(wrong(
            name,
            format!("has the shape {shape:?}; 1 to {DIMENSIONS_MAX} columns of at least one row are expected"),
        ));
    }
    let fortran = header.fortran && shape.len() == 2;
    if header.fortran && shape.len() > 2 {
        return Err(wrong(name, format!("has the shape {shape:?}; rows x columns are expected")));
    }
    let (rows, columns) = ((count / columns) as usize, columns as usize);
    let mut values: Vec<T> = Vec::new();
    // As much as is there, not as much as is announced, where values come in the order they are kept in.
    if fortran {
        values.resize(count as usize, T::default());
    }
    for at in 0..count as usize {
        let (row, column) = if fortran { (at % rows, at / rows) } else { (at / columns, at % columns) };
        let value = kind.read(&mut entry).map_err(|why| wrong(name, format!("{why} after {at} of {count} values")))?;
        let value =
            convert(value).map_err(|why| wrong(name, format!("the value in row {row}, column {column} (from 0) {why}")))?;
        if fortran {
            values[row * columns + column] = value;
        } else {
            values.push(value);
        }
    }
    Ok((shape, values))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    /// An array as numpy writes it, format 1.0.
    fn npy(kind: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (10 + header.len()) % 64 != 63 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn doubles(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn npz(folder: &Path, arrays: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = folder.join("set.npz");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in arrays {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    fn both(x: Vec<u8>, y: Vec<u8>) -> Result<Labelled, String> {
        let folder = tempfile::tempdir().unwrap();
        read(&npz(folder.path(), &[("X.npy", x), ("y.npy", y)])).map_err(|why| why.to_string())
    }

    #[test]
    fn rows_come_out_whatever_the_order_and_type() {
        let expected = Labelled { rows: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], columns: 2, labels: vec![false, true, false] };
        let y = || npy("<i8", false, "(3,)", &[0i64, 1, 0].map(i64::to_le_bytes).concat());
        assert_eq!(both(npy("<f8", false, "(3, 2)", &doubles(&[1., 2., 3., 4., 5., 6.])), y()).unwrap(), expected);
        assert_eq!(both(npy("<f8", true, "(3, 2)", &doubles(&[1., 3., 5., 2., 4., 6.])), y()).unwrap(), expected);
        assert_eq!(both(npy("|u1", true, "(3, 2)", &[1, 3, 5, 2, 4, 6]), y()).unwrap(), expected);
        let big: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|value| value.to_be_bytes()).collect();
        let columns = npy("|b1", false, "(3, 1)", &[0, 1, 0]);
        assert_eq!(both(npy(">i2", false, "(3, 2)", &big), columns).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        let x = |values: &[f64]| npy("<f8", false, "(2, 2)", &doubles(values));
        let y = |labels: [u8; 2]| npy("|u1", false, "(2,)", &labels);
        for (x, y, words) in [
            (x(&[1., 2., f64::NAN, 4.]), y([0, 1]), "X: the value in row 1, column 0 (from 0) is NaN"),
            (x(&[1., f64::INFINITY, 3., 4.]), y([0, 1]), "row 0, column 1 (from 0) is infinite"),
            (x(&[1., 2., 3., -1e300]), y([0, 1]), "beyond 3.4e38"),
            (x(&[1., 2., 3.]), y([0, 1]), "X: breaks off"),
            (x(&[1., 2., 3., 4.]), y([0, 2]), "y: the value in row 1, column 0 (from 0) is neither 0"),
            (x(&[1., 2., 3., 4.]), y([0, 0]), "no row is labelled 1"),
            (x(&[1., 2., 3., 4.]), y([1, 1]), "every row is labelled 1"),
            (x(&[1., 2., 3., 4.]), npy("|u1", false, "(3,)", &[0, 1, 0]), "y: has the shape [3]"),
            (npy("<f8", false, "(4,)", &doubles(&[1.; 4])), y([0, 1]), "X: has 1 dimensions"),
            (npy("<f8", true, "(4611686018427387904, 2)", &[]), y([0, 1]), "more than"),
            (npy("<f8", false, "(1, 70000)", &[]), y([0, 1]), "columns"),
            (npy("<f8", false, "(0, 2)", &[]), y([0, 1]), "at least one row"),
            (npy("<c16", false, "(2, 2)", &[0; 64]), y([0, 1]), "numpy's type <c16"),
            (npy("|f8", false, "(2, 2)", &[0; 32]), y([0, 1]), "numpy's type |f8"),
            (b"not an array".to_vec(), y([0, 1]), "X: is no numpy array"),
        ] {
            let why = both(x, y).expect_err(words);
            assert!(why.contains(words), "{why:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_missing_array_is_named_with_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = npz(folder.path(), &[("data.npy", npy("|u1", false, "(1, 1)", &[1]))]);
        assert_eq!(read(&path).unwrap_err().to_string(), "X: is missing; the archive has data.npy");
        std::fs::write(&path, b"PK nothing").unwrap();
        assert!(matches!(read(&path), Err(NpzError::Zip(_))));
        assert!(matches!(read(&folder.path().join("none")), Err(NpzError::Io(_))));
    }
}
