//! Reads and makes the hashes of a user file, and compares passwords with them.

use argon2::password_hash::{PasswordHash, PasswordHasher, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

use super::UserFileError;
use crate::error::{Error, HashError};
use crate::random::random;

/// Bytes of SHA-512.
const SHA512: usize = 64;
/// The most memory of an Argon2 hash in KiB.
const MEMORY: u32 = 1 << 20;
/// The most memory of an Argon2 hash, times its passes, in KiB: some seconds.
const PASSED: u64 = 4 << 20;
/// The most memory that is kept for later comparisons, in KiB.
const KEPT: usize = 64 << 10;
/// The most rounds of a PBKDF2 hash: some seconds.
const ROUNDS: u32 = 10_000_000;

/// The cost of a new hash, and of each comparison with it. The hash contains its cost, so the users of a file may have different
/// ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Memory in KiB, at least 8 and at most 1,048,576. Default 19,456.
    pub memory_kib: u32,
    /// How many passes over the memory are made, at least one. With the memory in KiB it multiplies to at most 4,194,304.
    /// Default 2.
    pub iterations: u32,
}

impl Cost {
    /// Returns whether a comparison takes more memory or time than a log-in may.
    pub(crate) fn is_too_high(self) -> bool {
        let passed = u64::from(self.memory_kib).saturating_mul(self.iterations.into());
        self.memory_kib > MEMORY || passed > PASSED
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            memory_kib: Params::DEFAULT_M_COST,
            iterations: Params::DEFAULT_T_COST,
        }
    }
}

/// A hash of a user file.
#[derive(Clone, Debug)]
pub(crate) enum Hash {
    /// A hash of `mqtt passwd`: `$argon2id$...`.
    Argon2(Box<str>),
    /// A hash of `mosquitto_passwd`: `$7$rounds$salt$hash`.
    Pbkdf2 {
        rounds: u32,
        salt: Box<[u8]>,
        hash: [u8; SHA512],
    },
    /// A hash of `mosquitto_passwd` before version 2: `$6$salt$hash`, the SHA-512 of the password and the salt.
    Sha512 { salt: Box<[u8]>, hash: [u8; SHA512] },
}

impl Hash {
    /// Parses the text after the colon.
    ///
    /// # Errors
    /// [`UserFileError::WrongHash`] for a truncated hash, which no password would match, [`UserFileError::CostlyHash`].
    pub(crate) fn parse(text: &str) -> Result<Self, UserFileError> {
        let hash = Self::parse_any(text).ok_or(UserFileError::WrongHash)?;
        match hash.is_too_costly() {
            true => Err(UserFileError::CostlyHash),
            false => Ok(hash),
        }
    }

    fn is_too_costly(&self) -> bool {
        match self {
            Self::Argon2(text) => argon2_cost(text).is_none_or(Cost::is_too_high),
            Self::Pbkdf2 { rounds, .. } => *rounds > ROUNDS,
            Self::Sha512 { .. } => false,
        }
    }

    fn parse_any(text: &str) -> Option<Self> {
        let decode = |text: &str| STANDARD.decode(text).ok();
        if let Some(parts) = text.strip_prefix("$6$") {
            let (salt, hash) = parts.split_once('$')?;
            let salt = decode(salt)?.into();
            let hash = decode(hash)?.try_into().ok()?;
            return Some(Self::Sha512 { salt, hash });
        }
        if let Some(parts) = text.strip_prefix("$7$") {
            let (rounds, parts) = parts.split_once('$')?;
            let (salt, hash) = parts.split_once('$')?;
            let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0)?;
            let salt = decode(salt)?.into();
            let hash = decode(hash)?.try_into().ok()?;
            return Some(Self::Pbkdf2 { rounds, salt, hash });
        }
        is_usable_argon2(text).then(|| Self::Argon2(text.into()))
    }

    /// Returns whether the password matches. Takes some ten milliseconds, and 19 MiB of `memory` with Argon2 at the default cost.
    pub(crate) fn verify(&self, password: &[u8], memory: &mut Memory) -> bool {
        match self {
            Self::Argon2(hash) => memory.verify(hash, password).unwrap_or(false),
            Self::Pbkdf2 { rounds, salt, hash } => {
                let mut made = [0; SHA512];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, *rounds, &mut made);
                made.ct_eq(hash).into()
            }
            Self::Sha512 { salt, hash } => {
                let made = Sha512::new().chain_update(password).chain_update(salt);
                made.finalize().ct_eq(hash).into()
            }
        }
    }
}

/// The memory of comparisons with Argon2. It is used again: one that each thread allocates stays with the allocator of that thread.
#[derive(Debug, Default)]
pub(crate) struct Memory(Vec<Block>);

impl Memory {
    /// Returns whether the password matches a hash; `None` if the hash is not usable.
    fn verify(&mut self, hash: &str, password: &[u8]) -> Option<bool> {
        let hash = PasswordHash::new(hash).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm).ok()?;
        let version = hash
            .version
            .map_or_else(|| Ok(Version::default()), Version::try_from);
        let mut salt = [0; Salt::MAX_LENGTH];
        let salt = hash.salt?.decode_b64(&mut salt).ok()?;
        let expected = hash.hash?;
        let mut made = vec![0; expected.len()];
        let blocks = params.block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        let argon2 = Argon2::new(algorithm, version.ok()?, params);
        let memory = self.0.get_mut(..blocks)?;
        let is_made = argon2.hash_password_into_with_memory(password, salt, &mut made, memory);
        if self.0.len() > KEPT {
            self.0 = Vec::new();
        }
        Some(is_made.is_ok() && made.ct_eq(expected.as_bytes()).into())
    }
}

fn is_usable_argon2(hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let known_version = hash
        .version
        .is_none_or(|version| Version::try_from(version).is_ok());
    // `Params` takes the last of several equal names, and multiplies the parallelism before it looks at its maximum,
    // which overflows.
    let mut lanes = hash.params.iter().filter(|(name, _)| name.as_str() == "p");
    let parallel = lanes.all(|(_, value)| {
        value
            .decimal()
            .is_ok_and(|lanes| lanes <= Params::MAX_P_COST)
    });
    Algorithm::try_from(hash.algorithm).is_ok()
        && known_version
        && parallel
        && Params::try_from(&hash).is_ok()
        && hash.salt.is_some()
        && hash.hash.is_some()
}

fn argon2_cost(hash: &str) -> Option<Cost> {
    let params = Params::try_from(&PasswordHash::new(hash).ok()?).ok()?;
    Some(Cost {
        memory_kib: params.m_cost(),
        iterations: params.t_cost(),
    })
}

/// Makes the hash of a password with a new salt.
pub(crate) fn make(password: &[u8], cost: Cost) -> Result<String, Error> {
    if cost.is_too_high() {
        return Err(Error::Cost);
    }
    let failed = |error| Error::Hash(HashError(error));
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(failed)?;
    let params = Params::new(
        cost.memory_kib,
        cost.iterations,
        Params::DEFAULT_P_COST,
        None,
    );
    let params = params.map_err(|error| failed(error.into()))?;
    let hash = Argon2::new(Algorithm::default(), Version::default(), params)
        .hash_password(password, &salt)
        .map_err(failed)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// mosquitto_passwd 2.0.11 made these for the passwords `secret` and `other`, with -I 901 and -H sha512.
    const MOSQUITTO: [(&str, &str); 2] = [
        (
            "secret",
            "$7$901$EnzkwBl5Hi0wQsLT$s9kLW6yZwY2xJGy/IWhylyyBZ0ctO0muJbcxVa9bO/t2Ix6vsJc+68GwfAG/efrd9mdezr92c9fmVn1G/9m85A==",
        ),
        (
            "other",
            "$6$9D7nKmw8fIpOboMZ$8JcJd2ZWLeJbsb+TNOfjtH3+THyHNJW7y9zG4D3DRtz4BQaXQuD+Uv3unvXqUmJqzSVRvcTonkw81kYVnPdZ3Q==",
        ),
    ];

    #[test]
    fn mosquitto_s_hashes_take_their_password_only() {
        for (password, hash) in MOSQUITTO {
            let stored = Hash::parse(hash).unwrap();
            assert!(
                stored.verify(password.as_bytes(), &mut Memory::default()),
                "{hash}"
            );
            assert!(!stored.verify(b"Secret", &mut Memory::default()), "{hash}");
            assert!(!stored.verify(b"", &mut Memory::default()), "{hash}");
            // A truncated or damaged hash is an error when the file is read.
            for wrong in [
                &hash[..hash.len() - 4],
                &hash[..20],
                "$7$0$AAAA$AAAA",
                "$6$$",
                "$7$",
            ] {
                assert!(Hash::parse(wrong).is_err(), "{wrong}");
            }
        }
    }

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        iterations: 1,
    };

    #[test]
    fn a_parallelism_beyond_the_maximum_is_refused() {
        let good = make(b"secret", CHEAP).unwrap();
        for lanes in ["16777216", "536870912", "3333333333", "4294967295"] {
            let wrong = good.replace("p=1", &format!("p={lanes}"));
            assert!(Hash::parse(&wrong).is_err(), "{wrong}");
            let twice = good.replace("p=1", &format!("p=1,p={lanes}"));
            assert!(Hash::parse(&twice).is_err(), "{twice}");
        }
    }

    #[test]
    fn a_hash_that_takes_too_much_memory_or_time_is_refused() {
        let good = make(b"secret", CHEAP).unwrap();
        let with = |memory: u32, passes: u32| {
            let hash = good.replace("m=64,t=1", &format!("m={memory},t={passes}"));
            Hash::parse(&hash).map(|_| ())
        };
        assert_eq!(with(MEMORY, 4), Ok(()));
        assert_eq!(with(64, 65_536), Ok(()));
        for (memory, passes) in [
            (MEMORY + 1, 1),
            (u32::MAX, 1),
            (MEMORY, 5),
            (64, 65_537),
            (64, u32::MAX),
        ] {
            let costly = Err(UserFileError::CostlyHash);
            assert_eq!(with(memory, passes), costly, "{memory} {passes}");
            let cost = Cost {
                memory_kib: memory,
                iterations: passes,
            };
            assert!(matches!(make(b"secret", cost), Err(Error::Cost)));
        }
        // `Params` takes the last of several equal names, as the comparison does.
        let twice = good.replace("m=64", "m=64,m=4294967295");
        assert!(Hash::parse(&twice).is_err());
        let rounds = |rounds: u32| {
            let hash = MOSQUITTO[0].1.replace("$901$", &format!("${rounds}$"));
            Hash::parse(&hash).map(|_| ())
        };
        assert_eq!(rounds(ROUNDS), Ok(()));
        assert_eq!(rounds(ROUNDS + 1), Err(UserFileError::CostlyHash));
    }

    #[test]
    fn the_cost_is_written_into_the_hash() {
        let cost = Cost {
            memory_kib: 64,
            iterations: 3,
        };
        let hash = make(b"secret", cost).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=3,p=1$"), "{hash}");
        let hash = Hash::parse(&hash).unwrap();
        assert!(hash.verify(b"secret", &mut Memory::default()));
        let none = Cost {
            memory_kib: 0,
            ..cost
        };
        assert!(matches!(make(b"secret", none), Err(Error::Hash(_))));
    }
}
