//! The query for SRV records as a DNS message, and its answer.

use std::io;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

/// The size of the header, and the place of the byte with the flags QR and TC in it (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
const FLAGS: usize = 2;
const QR: u8 = 0x80;
const TC: u8 = 0x02;

/// One SRV record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host name of the server; empty if the record says that there is no such service.
    pub(super) target: String,
}

/// The content of a message, as the answer to a query.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// The message is not an answer to this query.
    Other,
    /// The answer is too large for UDP.
    Truncated,
    /// All records; none if the name or its records do not exist.
    Records(Vec<Record>),
    /// The server reports an error.
    Failed(String),
}

/// A query for the SRV records of one name.
#[derive(Debug)]
pub(super) struct Query {
    id: u16,
    name: String,
    bytes: Vec<u8>,
}

impl Query {
    pub(super) fn new(id: u32, name: &str) -> io::Result<Self> {
        let id = u16::try_from(id).unwrap_or_default();
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{error}"));
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            Name::new(name).map_err(wrong)?,
            TYPE::SRV.into(),
            CLASS::IN.into(),
            false,
        ));
        Ok(Self {
            id,
            name: name.to_owned(),
            bytes: packet.build_bytes_vec().map_err(wrong)?,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a message that came from the server.
    pub(super) fn answer(&self, message: &[u8]) -> Answer {
        let is_own = message.len() >= HEADER
            && message.starts_with(&self.id.to_be_bytes())
            && message.get(FLAGS).is_some_and(|flags| flags & QR != 0);
        if !is_own {
            return Answer::Other;
        }
        // Such a message may end within a record.
        if message.get(FLAGS).is_some_and(|flags| flags & TC != 0) {
            return Answer::Truncated;
        }
        let packet = match Packet::parse(message) {
            Ok(packet) => packet,
            Err(error) => return Answer::Failed(format!("its answer cannot be read: {error}")),
        };
        if !self.is_asked_by(&packet) {
            return Answer::Other;
        }
        match packet.rcode() {
            RCODE::NoError => Answer::Records(records(&packet)),
            RCODE::NameError => Answer::Records(Vec::new()),
            code => Answer::Failed(format!("it reports {code:?}")),
        }
    }

    /// Returns whether a message repeats the question, as an answer does.
    fn is_asked_by(&self, packet: &Packet<'_>) -> bool {
        let [question] = &packet.questions[..] else {
            return false;
        };
        question.qtype == QTYPE::TYPE(TYPE::SRV)
            && question.qname.to_string().eq_ignore_ascii_case(&self.name)
    }
}

/// Returns the SRV records of an answer. If the name is an alias, they belong to the name behind it.
fn records(packet: &Packet<'_>) -> Vec<Record> {
    let of = |data: &RData<'_>| match data {
        RData::SRV(srv) => Some(Record {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_string(),
        }),
        _ => None,
    };
    packet
        .answers
        .iter()
        .filter_map(|record| of(&record.rdata))
        .collect()
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{CNAME, SRV};

    use super::*;

    const NAME: &str = "_mqtt._tcp.plant.example";

    fn reply(id: u16, name: &'static str, code: RCODE, data: Vec<RData<'static>>) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(
            name.clone(),
            TYPE::SRV.into(),
            CLASS::IN.into(),
            false,
        ));
        packet.answers = data
            .into_iter()
            .map(|data| ResourceRecord::new(name.clone(), CLASS::IN, 60, data))
            .collect();
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn srv(priority: u16, target: &'static str) -> RData<'static> {
        RData::SRV(SRV {
            priority,
            weight: 5,
            port: 1884,
            target: Name::new(target).unwrap(),
        })
    }

    fn record(priority: u16, target: &str) -> Record {
        Record {
            priority,
            weight: 5,
            port: 1884,
            target: target.to_owned(),
        }
    }

    #[test]
    fn a_query_has_the_bytes_of_rfc_1035() {
        let query = Query::new(0x1234, "_mqtt._tcp.a").unwrap();
        let expected =
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05_mqtt\x04_tcp\x01a\0\0\x21\0\x01".as_slice();
        assert_eq!(query.bytes(), expected);
    }

    #[test]
    fn a_name_with_a_long_label_is_refused() {
        let name = format!("_mqtt._tcp.{}", "a".repeat(64));
        assert!(Query::new(1, &name).is_err());
    }

    #[test]
    fn records_are_read_also_behind_an_alias() {
        let query = Query::new(7, NAME).unwrap();
        let alias = RData::CNAME(CNAME(Name::new("_mqtt._tcp.other.example").unwrap()));
        let data = vec![alias, srv(10, "b1.plant.example"), srv(20, "")];
        let message = reply(7, "_MQTT._tcp.Plant.example", RCODE::NoError, data);
        let expected = vec![record(10, "b1.plant.example"), record(20, "")];
        assert_eq!(query.answer(&message), Answer::Records(expected));
    }

    #[test]
    fn a_name_that_does_not_exist_has_no_records() {
        let query = Query::new(7, NAME).unwrap();
        for code in [RCODE::NameError, RCODE::NoError] {
            let message = reply(7, NAME, code, Vec::new());
            assert_eq!(query.answer(&message), Answer::Records(Vec::new()));
        }
        let message = reply(7, NAME, RCODE::ServerFailure, Vec::new());
        let Answer::Failed(why) = query.answer(&message) else {
            panic!("no error");
        };
        assert_eq!(why, "it reports ServerFailure");
    }

    #[test]
    fn an_answer_to_another_query_is_ignored() {
        let query = Query::new(7, NAME).unwrap();
        let data = || vec![srv(10, "b1.plant.example")];
        let other_id = reply(8, NAME, RCODE::NoError, data());
        let other_name = reply(7, "_mqtt._tcp.other.example", RCODE::NoError, data());
        for message in [&other_id, &other_name, &query.bytes().to_vec(), &Vec::new()] {
            assert_eq!(query.answer(message), Answer::Other);
        }
    }

    #[test]
    fn a_truncated_answer_is_not_read() {
        let query = Query::new(7, NAME).unwrap();
        let mut message = reply(7, NAME, RCODE::NoError, vec![srv(10, "b1.plant.example")]);
        message[FLAGS] |= TC;
        message.truncate(message.len() - 3);
        assert_eq!(query.answer(&message), Answer::Truncated);
    }

    /// Each message that differs from an answer in one byte, or ends early, is read without a panic.
    #[test]
    fn damaged_answers_are_read_without_a_panic() {
        let query = Query::new(7, NAME).unwrap();
        let message = reply(7, NAME, RCODE::NoError, vec![srv(10, "b1.plant.example")]);
        for at in 0..message.len() {
            let _ = query.answer(&message[..at]);
            let mut damaged = message.clone();
            for byte in 0..=u8::MAX {
                damaged[at] = byte;
                let _ = query.answer(&damaged);
            }
        }
    }
}
