//! Valid and invalid packets of `vectors.tsv`. Each line has a name, spaced hex, and the expected result.

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The name of the vector.
    pub name: &'static str,
    /// The bytes of the packet.
    pub bytes: Vec<u8>,
    /// The expected result, as text that begins with the name of the packet.
    pub expectation: &'static str,
}

/// Returns all vectors.
#[must_use]
pub fn all() -> Vec<Vector> {
    include_str!("vectors.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut columns = line.split('\t');
            Some(Vector {
                name: columns.next()?,
                bytes: hex(columns.next()?),
                expectation: columns.next()?,
            })
        })
        .collect()
}

/// Parses hex; white space is ignored.
///
/// # Panics
/// It is no hex.
#[must_use]
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of hex digits");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex digits"))
        .collect()
}
