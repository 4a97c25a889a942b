//! Reading `FlatBuffers` from anybody: every offset, table and vector is checked against the buffer
//! when it is followed.
//!
//! ```text
//! buffer    offset of the root table u32 | ...
//! table     distance back to its field list i32 | fields
//! fields    bytes of this list u16 | bytes of the table u16 | for each field: its place in the table u16, 0 for none
//! string    length u32 | bytes             vector    count u32 | elements; tables and strings as offsets u32
//! ```
//!
//! Numbers are little-endian, offsets count from where they stand and lead forwards, so nothing can
//! lead in a circle. There is no recursion, and nothing is allocated. Alignment is not asked for:
//! nothing is read in place.

/// The buffer is no `FlatBuffer`, or not one with these fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged FlatBuffer: {0}")]
pub struct FlatBufferError(&'static str);

type Result<T> = std::result::Result<T, FlatBufferError>;

/// Bytes before the first field's place in a field list.
const FIELDS_HEADER: usize = 4;

/// A table inside a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    buffer: &'a [u8],
    position: usize,
    /// The places of the fields, two bytes each.
    fields: &'a [u8],
    size: usize,
}

/// A vector of offsets to tables or strings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offsets<'a> {
    buffer: &'a [u8],
    position: usize,
    count: usize,
}

impl<'a> Table<'a> {
    /// The root table of a buffer.
    pub(super) fn root(buffer: &'a [u8]) -> Result<Self> {
        Self::at(buffer, follow(buffer, 0)?)
    }

    fn at(buffer: &'a [u8], position: usize) -> Result<Self> {
        let back = i32::from_le_bytes(array(buffer, position, "a table lies outside")?);
        let fields = i64::try_from(position)
            .ok()
            .and_then(|position| position.checked_sub(i64::from(back)))
            .and_then(|start| usize::try_from(start).ok())
            .ok_or(FlatBufferError("a field list lies outside"))?;
        let short = "a field list lies outside";
        let list = usize::from(u16::from_le_bytes(array(buffer, fields, short)?));
        let size = usize::from(u16::from_le_bytes(array(buffer, fields + 2, short)?));
        if list < FIELDS_HEADER || !list.is_multiple_of(2) {
            return Err(FlatBufferError("a field list has an odd length"));
        }
        let list = slice(buffer, fields, list).ok_or(FlatBufferError(short))?;
        if slice(buffer, position, size).is_none() {
            return Err(FlatBufferError("a table lies outside"));
        }
        Ok(Self {
            buffer,
            position,
            fields: list.get(FIELDS_HEADER..).unwrap_or_default(),
            size,
        })
    }

    /// A number, zero where there is none.
    pub(super) fn i64(&self, field: usize) -> Result<i64> {
        Ok(self.bytes(field)?.map_or(0, i64::from_le_bytes))
    }

    /// A number, zero where there is none.
    pub(super) fn i32(&self, field: usize) -> Result<i32> {
        Ok(self.bytes(field)?.map_or(0, i32::from_le_bytes))
    }

    /// A number, zero where there is none.
    pub(super) fn u32(&self, field: usize) -> Result<u32> {
        Ok(self.bytes(field)?.map_or(0, u32::from_le_bytes))
    }

    /// A number of one byte, if there is one.
    pub(super) fn u8(&self, field: usize) -> Result<Option<u8>> {
        Ok(self.bytes(field)?.map(|[byte]| byte))
    }

    /// A table, if there is one.
    pub(super) fn table(&self, field: usize) -> Result<Option<Self>> {
        match self.field(field, 4)? {
            Some(at) => Ok(Some(Self::at(self.buffer, follow(self.buffer, at)?)?)),
            None => Ok(None),
        }
    }

    /// A string or a vector of bytes, empty where there is none.
    pub(super) fn string(&self, field: usize) -> Result<&'a [u8]> {
        match self.field(field, 4)? {
            Some(at) => string(self.buffer, at),
            None => Ok(&[]),
        }
    }

    /// A vector of tables or strings, empty where there is none.
    pub(super) fn offsets(&self, field: usize) -> Result<Offsets<'a>> {
        let buffer = self.buffer;
        let Some(at) = self.field(field, 4)? else {
            return Ok(Offsets {
                buffer,
                position: 0,
                count: 0,
            });
        };
        let vector = follow(buffer, at)?;
        let outside = "a vector lies outside";
        let count = u32::from_le_bytes(array(buffer, vector, outside)?);
        let count = usize::try_from(count).map_err(|_| FlatBufferError(outside))?;
        let position = vector + 4;
        let fits = count
            .checked_mul(4)
            .is_some_and(|length| slice(buffer, position, length).is_some());
        if !fits {
            return Err(FlatBufferError(outside));
        }
        Ok(Offsets {
            buffer,
            position,
            count,
        })
    }

    fn bytes<const N: usize>(&self, field: usize) -> Result<Option<[u8; N]>> {
        match self.field(field, N)? {
            Some(at) => Ok(Some(array(self.buffer, at, "a field lies outside")?)),
            None => Ok(None),
        }
    }

    /// Where a field of `size` bytes stands in the buffer. Writers leave out fields that have the
    /// default value, older ones those they do not know.
    fn field(&self, number: usize, size: usize) -> Result<Option<usize>> {
        let place = self.fields.get(number * 2..).and_then(<[u8]>::first_chunk);
        let Some(place) = place.map(|place| usize::from(u16::from_le_bytes(*place))) else {
            return Ok(None);
        };
        if place == 0 {
            return Ok(None);
        }
        // The table itself is inside the buffer.
        if place < 4 || place + size > self.size {
            return Err(FlatBufferError("a field lies outside its table"));
        }
        Ok(Some(self.position + place))
    }
}

impl<'a> Offsets<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The tables.
    pub(super) fn tables(self) -> impl Iterator<Item = Result<Table<'a>>> {
        let places = self.places();
        places.map(move |at| Table::at(self.buffer, follow(self.buffer, at)?))
    }

    /// The strings.
    pub(super) fn strings(self) -> impl Iterator<Item = Result<&'a [u8]>> {
        self.places().map(move |at| string(self.buffer, at))
    }

    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let position = self.position;
        (0..self.count).map(move |number| position + number * 4)
    }
}

/// The string that the offset at `at` leads to.
fn string(buffer: &[u8], at: usize) -> Result<&[u8]> {
    let outside = "a string lies outside";
    let start = follow(buffer, at)?;
    let length = u32::from_le_bytes(array(buffer, start, outside)?);
    usize::try_from(length)
        .ok()
        .and_then(|length| slice(buffer, start + 4, length))
        .ok_or(FlatBufferError(outside))
}

/// Where the offset at `at` leads to.
fn follow(buffer: &[u8], at: usize) -> Result<usize> {
    let offset = u32::from_le_bytes(array(buffer, at, "an offset lies outside")?);
    usize::try_from(offset)
        .ok()
        .and_then(|offset| at.checked_add(offset))
        .filter(|target| *target < buffer.len())
        .ok_or(FlatBufferError("an offset leads outside"))
}

fn array<const N: usize>(buffer: &[u8], at: usize, what: &'static str) -> Result<[u8; N]> {
    let rest = buffer.get(at..).and_then(<[u8]>::first_chunk);
    rest.copied().ok_or(FlatBufferError(what))
}

fn slice(buffer: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    buffer.get(start..start.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root table with two fields at 12 and 16: a number, and a string that is written behind.
    fn sample() -> Vec<u8> {
        let mut buffer = vec![12, 0, 0, 0, 8, 0, 12, 0, 4, 0, 8, 0];
        buffer.extend(8_i32.to_le_bytes());
        buffer.extend(7_u32.to_le_bytes());
        buffer.extend(4_u32.to_le_bytes());
        buffer.extend(2_u32.to_le_bytes());
        buffer.extend(b"ab");
        buffer
    }

    #[test]
    fn fields_are_found_and_missing_ones_have_defaults() {
        let buffer = sample();
        let table = Table::root(&buffer).unwrap();
        assert_eq!(table.u32(0), Ok(7));
        assert_eq!(table.string(1), Ok(&b"ab"[..]));
        assert_eq!(table.i64(2), Ok(0));
        assert_eq!(table.u8(9), Ok(None));
        assert_eq!(table.offsets(3).unwrap().len(), 0);
        assert!(table.table(2).unwrap().is_none());
        let wide = table.i64(1).unwrap_err().to_string();
        assert!(wide.contains("outside its table"), "{wide}");
    }

    #[test]
    fn no_byte_leads_outside() {
        let good = sample();
        for length in 0..good.len() {
            let read = Table::root(&good[..length]).and_then(|table| table.string(1));
            assert!(read.is_err(), "cut to {length}");
        }
        for position in 0..good.len() {
            for value in [0, 1, 4, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[position] = value;
                // Errors are fine, panics are not.
                let Ok(table) = Table::root(&bad) else {
                    continue;
                };
                for field in 0..4 {
                    let _ = (table.u32(field), table.i64(field), table.string(field));
                    let Ok(offsets) = table.offsets(field) else {
                        continue;
                    };
                    assert!(offsets.len() <= bad.len() / 4);
                    let _ = (offsets.tables().count(), offsets.strings().count());
                }
            }
        }
    }
}
