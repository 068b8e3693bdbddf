//! Finds the values of `??` in packets.

use std::collections::BTreeMap;

use super::reader::{Assumed, Reader, all_decode};
use super::show::Show;
use crate::failure::{Failure, fail};
use crate::packet::defect::varint;

/// How many unknown bytes are tried at most.
const TRIED: usize = 2;

/// Computes the remaining length, tries values for the other unknown bytes, and prints the packet.
pub(super) fn decode(bytes: &[Option<u8>], assumed: &Assumed, show: Show) -> Result<(), Failure> {
    let mut bytes = bytes.to_vec();
    let length = bytes
        .iter()
        .skip(1)
        .take_while(|byte| byte.is_none())
        .count();
    if length > 0 {
        let rest = bytes.len() - 1 - length;
        let number = varint(rest);
        let digits: Vec<_> = number.iter().map(|byte| format!("{byte:02x}")).collect();
        show.note(&format!(
            "the remaining length is {rest}: {}",
            digits.join(" ")
        ));
        bytes.splice(1..=length, number.into_iter().map(Some));
    }
    let unknown: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| byte.is_none())
        .map(|(at, _)| at)
        .collect();
    let mut known: Vec<u8> = bytes.iter().map(|byte| byte.unwrap_or(0)).collect();
    if unknown.len() > TRIED {
        return Err(fail(format!(
            "{} bytes are unknown besides the remaining length; {TRIED} can be found out",
            unknown.len()
        )));
    }
    if !unknown.is_empty() {
        find(&mut known, &unknown, assumed, show)?;
    }
    let mut assumed = Assumed::new(Some(assumed.version));
    let mut reader = Reader::new(None, show);
    reader.feed(&known, &mut assumed)?;
    reader.finish(&assumed)
}

/// Tries all values. Reports those that make a valid packet, and keeps the first one.
fn find(known: &mut [u8], unknown: &[usize], assumed: &Assumed, show: Show) -> Result<(), Failure> {
    let mut good: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let count = 1_u32 << (8 * unknown.len());
    for value in 0..count {
        put(known, unknown, value);
        if all_decode(known, assumed.version) {
            good.insert(value, known.to_vec());
        }
    }
    let Some((first, bytes)) = good.first_key_value() else {
        return Err(fail("no value makes this a valid packet"));
    };
    known.copy_from_slice(bytes);
    let width = 2 * unknown.len();
    let places: Vec<_> = unknown.iter().map(ToString::to_string).collect();
    let places = places.join(" and ");
    if good.len() == 1 {
        show.note(&format!("byte {places} must be {first:0width$x}"));
    } else {
        show.note(&format!(
            "byte {places}: {} values make a valid packet; this is the one with {first:0width$x}",
            good.len()
        ));
    }
    Ok(())
}

fn put(known: &mut [u8], unknown: &[usize], value: u32) {
    let bytes = value.to_be_bytes();
    for (place, byte) in unknown.iter().rev().zip(bytes.iter().rev()) {
        if let Some(at) = known.get_mut(*place) {
            *at = *byte;
        }
    }
}
