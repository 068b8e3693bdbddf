//! Reads and writes blocks. A block is one message of the stream. Numbers have their most significant byte first.
//!
//! | bytes | content |
//! | --- | --- |
//! | 1 | version of the format: 1 |
//! | 1 | type: 1 owner, 2 changes, 3 snapshot |
//! | 1 | bit 0: first block of its group; bit 1: another block of the group follows; the other bits are 0 |
//! | 8 | epoch |
//! | 8 | number of the block; 1 for the first block of a stream, and one more for each block |
//! | 4 | checksum of the block before; 0 in the first block of a stream |
//! | 1 | length of the name of the shard |
//! | n | name of the shard in UTF-8 |
//! | rest | body |
//! | 4 | checksum: CRC-32 (IEEE 802.3) of all bytes before it |
//!
//! The body of type 1 is the number of the process (16 random bytes) and the name of its node in UTF-8. The block begins a new
//! epoch, so that all later blocks of an earlier owner are refused.
//!
//! Changes and snapshots are groups of one or more blocks. Their bodies together are records of `mqtt-journal`, one after the
//! other; a record may begin in one block and end in a later one. All records of a group count, or none. Changes put and delete
//! entries. A snapshot has a put for each entry, and replaces all entries before it.

use std::fmt;

use crate::crc::crc32;

/// The version of the format that this crate writes. It reads no other version.
pub const VERSION: u8 = 1;

/// The type of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockType {
    /// A process becomes the owner, with a new epoch.
    Owner,
    /// Entries that change.
    Changes,
    /// All entries.
    Snapshot,
}

impl BlockType {
    const fn byte(self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::Changes => 2,
            Self::Snapshot => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Owner),
            2 => Some(Self::Changes),
            3 => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// A block of a journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block<'a> {
    /// The type of the block.
    pub block_type: BlockType,
    /// Whether the block is the first of its group.
    pub is_first: bool,
    /// Whether another block of the group follows.
    pub continues: bool,
    /// The epoch of its owner. Each owner has one that no other has.
    pub epoch: u64,
    /// The number of the block.
    pub number: u64,
    /// The checksum of the block before.
    pub before: u32,
    /// The name of the shard.
    pub shard: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// The bytes of a block with an empty name and an empty body.
const FRAME: usize = 28;

const FIRST: u8 = 1;
const CONTINUES: u8 = 2;

/// Why bytes are not the next block of a journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end before the block does.
    Short,
    /// The version of the format is not known.
    Version(u8),
    /// The checksum of the block is wrong.
    Checksum,
    /// A field has a value that it cannot have.
    Field,
    /// The block is of another shard.
    Shard,
    /// The block has another number than the next one.
    Number {
        /// The number that the block has.
        found: u64,
        /// The number of the next block.
        next: u64,
    },
    /// The sequence in the stream is not the next one.
    Sequence {
        /// The sequence of the block before.
        after: u64,
    },
    /// The block before it is not the one that its owner wrote.
    Chain,
    /// The epoch is not that of the owner before it, or not the next one in a block of a new owner.
    Epoch,
    /// The stream begins with a block that follows others.
    Start,
    /// The group before it is not complete, and no new owner has begun.
    Incomplete,
    /// The block continues a group that has not begun.
    NotBegun,
    /// The records of a group are invalid.
    Record,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it is shorter than a block"),
            Self::Version(found) => write!(f, "its format has the version {found}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Field => f.write_str("a field has an impossible value"),
            Self::Shard => f.write_str("it is of another shard"),
            Self::Number { found, next } => write!(f, "it has the number {found}, not {next}"),
            Self::Sequence { after } => write!(f, "it follows sequence {after}: a gap"),
            Self::Chain => f.write_str("the block before it differs from what its owner wrote"),
            Self::Epoch => f.write_str("its epoch does not follow"),
            Self::Start => f.write_str("blocks before it are missing, and it begins no snapshot"),
            Self::Incomplete => f.write_str("the group before it is not complete"),
            Self::NotBegun => f.write_str("it continues a group that has not begun"),
            Self::Record => f.write_str("its records are invalid"),
        }
    }
}

impl std::error::Error for Fault {}

impl<'a> Block<'a> {
    /// Reads a block and returns it with its checksum.
    ///
    /// # Errors
    /// The bytes are not a block.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, u32), Fault> {
        let (content, checksum) = bytes.split_last_chunk().ok_or(Fault::Short)?;
        let (&[version, block_type, flags], rest) = take(content)?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let checksum = u32::from_be_bytes(*checksum);
        if crc32(content) != checksum {
            return Err(Fault::Checksum);
        }
        let (epoch, rest) = take(rest)?;
        let (number, rest) = take(rest)?;
        let (before, rest) = take(rest)?;
        let (&[len], rest) = take(rest)?;
        let (shard, body) = rest
            .split_at_checked(usize::from(len))
            .ok_or(Fault::Short)?;
        if flags & !(FIRST | CONTINUES) != 0 {
            return Err(Fault::Field);
        }
        let block = Self {
            block_type: BlockType::from_byte(block_type).ok_or(Fault::Field)?,
            is_first: flags & FIRST != 0,
            continues: flags & CONTINUES != 0,
            epoch: u64::from_be_bytes(*epoch),
            number: u64::from_be_bytes(*number),
            before: u32::from_be_bytes(*before),
            shard: str::from_utf8(shard).map_err(|_| Fault::Field)?,
            body,
        };
        if block.block_type == BlockType::Owner {
            Process::read(&block)?;
        }
        Ok((block, checksum))
    }

    /// Writes the block. `None` if the name of the shard has more than 255 bytes.
    #[must_use]
    pub fn write(&self) -> Option<Vec<u8>> {
        let len = u8::try_from(self.shard.len()).ok()?;
        let mut flags = 0;
        if self.is_first {
            flags |= FIRST;
        }
        if self.continues {
            flags |= CONTINUES;
        }
        let mut bytes = Vec::with_capacity(Self::overhead(self.shard) + self.body.len());
        bytes.extend([VERSION, self.block_type.byte(), flags]);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.before.to_be_bytes());
        bytes.push(len);
        bytes.extend(self.shard.as_bytes());
        bytes.extend(self.body);
        bytes.extend(crc32(&bytes).to_be_bytes());
        Some(bytes)
    }

    /// Returns how many bytes a block has beside its body.
    pub(crate) const fn overhead(shard: &str) -> usize {
        FRAME + shard.len()
    }
}

/// A process that owns or owned a journal, as in the body of its block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process<'a> {
    /// A random number that no other process has, even if it has the same name.
    pub instance: u128,
    /// The name of the node.
    pub node: &'a str,
}

impl<'a> Process<'a> {
    /// Reads the body of a block of a new owner.
    ///
    /// # Errors
    /// [`Fault::Field`] if the block is not one of an owner.
    pub fn read(block: &Block<'a>) -> Result<Self, Fault> {
        let alone = block.is_first && !block.continues;
        if block.block_type != BlockType::Owner || !alone {
            return Err(Fault::Field);
        }
        let (instance, node) = take(block.body)?;
        Ok(Self {
            instance: u128::from_be_bytes(*instance),
            node: str::from_utf8(node).map_err(|_| Fault::Field)?,
        })
    }

    /// Returns the body of a block of a new owner.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        [&self.instance.to_be_bytes(), self.node.as_bytes()].concat()
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), Fault> {
    bytes.split_first_chunk().ok_or(Fault::Short)
}
