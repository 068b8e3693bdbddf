//! Certificates of clients and servers: which are accepted, and the message for each refused one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_testing::peers::Issued;
use mqtt_transport::Error;
use mqtt_transport::tls::SourceFunction;

use super::*;

#[test]
fn a_client_certificate_says_who_the_client_is() {
    let mut subject = Subject::client("pump-7");
    subject.emails = vec!["pump@example.com".to_owned()];
    subject.names = vec!["pump.example.com".to_owned()];
    for asked in [ClientCertificate::Required, ClientCertificate::Optional] {
        let mut link = Case::new().asks(asked).client_is(&subject).run();
        works(&mut link);
        let Peer { identity, .. } = link.server.stack.peer();
        let identity = identity.expect("a certificate");
        assert_eq!(identity.common_name.as_deref(), Some("pump-7"));
        assert_eq!(identity.subject, "CN=pump-7");
        assert_eq!(identity.emails, ["pump@example.com"]);
        assert_eq!(identity.dns_names, ["pump.example.com"]);
    }
    let mut link = Case::new().asks(ClientCertificate::Optional).run();
    works(&mut link);
    assert_eq!(link.server.stack.peer().identity, None);
    // A server that does not ask for a certificate does not get one.
    let mut link = Case::new().client_is(&subject).run();
    works(&mut link);
    assert_eq!(link.server.stack.peer().identity, None);
}

/// A client that gets a new certificate shows it on its next connection.
#[test]
fn a_function_gives_each_connection_its_certificate() {
    let mut case = Case::new().asks(ClientCertificate::Required);
    let at = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&at);
    let issued = ["first", "second"].map(|name| case.authority.issue(&Subject::client(name)));
    let part = move |part: fn(&Issued) -> &String| {
        let (issued, given) = (issued.clone(), Arc::clone(&given));
        Source::Function(SourceFunction::new(move || {
            let issued = issued.get(given.load(Ordering::Relaxed));
            let issued = issued.ok_or(io::ErrorKind::NotFound)?;
            Ok(part(issued).clone().into_bytes())
        }))
    };
    let pair = KeyPair::new(
        part(|issued| &issued.certificate),
        part(|issued| &issued.key),
    );
    case.client.identity = Some(pair);
    let client = TlsConnector::new(case.client.clone()).unwrap();
    let server = TlsServer::new(case.server.clone()).unwrap();
    let connect = |nth| {
        at.store(nth, Ordering::Relaxed);
        let client = Stack::new().with(client.stage("localhost")?);
        let mut link = Link::new(client, Stack::new().with(server.stage()?));
        link.run();
        works(&mut link);
        let identity = link.server.stack.peer().identity;
        Ok::<_, Error>(identity.and_then(|identity| identity.common_name))
    };
    let names = [connect(0).unwrap(), connect(1).unwrap()];
    assert_eq!(names.map(Option::unwrap), ["first", "second"]);
    let error = connect(2).unwrap_err().to_string();
    assert_eq!(error, "the given function: entity not found");
}

#[test]
fn a_missing_client_certificate_is_told_on_both_sides() {
    let case = Case::new().asks(ClientCertificate::Required);
    let link = case.run();
    let server = link.server.failed.unwrap();
    assert_eq!(server.kind(), ErrorKind::ClientCertificate);
    assert_eq!(
        server.to_string(),
        "the client sent no certificate, and this server requires one"
    );
    assert_eq!(
        case.refused(ErrorKind::ClientCertificate),
        "the server requires a client certificate, and none was given"
    );
}

#[test]
fn a_client_certificate_of_others_is_refused() {
    let mut case = Case::new().asks(ClientCertificate::Required);
    let other = Authority::new("another authority");
    case.client.identity = Some(other.issue(&Subject::client("pump-7")).pair());
    let server = case.run().server.failed.unwrap();
    assert_eq!(
        server.to_string(),
        "the client's certificate is signed by an unknown CA: name the CA that signed it"
    );
    assert_eq!(
        case.refused(ErrorKind::ClientCertificate),
        "the server refuses the client certificate, or its absence: its CA is unknown"
    );
}

#[test]
fn a_revoked_client_certificate_is_refused() {
    let subject = |serial| Subject {
        serial,
        ..Subject::client("pump-7")
    };
    let mut case = Case::new().asks(ClientCertificate::Required);
    case.server.revocation_lists = vec![case.authority.revoke(&[7])];
    works(&mut case.client_is(&subject(6)).run());

    let mut case = Case::new().asks(ClientCertificate::Required);
    case.server.revocation_lists = vec![case.authority.revoke(&[7])];
    let case = case.client_is(&subject(7));
    let server = case.run().server.failed.unwrap();
    assert_eq!(server.to_string(), "the client's certificate was revoked");
    assert_eq!(
        case.refused(ErrorKind::ClientCertificate),
        "the server refuses the client certificate, or its absence: it was revoked"
    );
}

#[test]
fn a_certificate_for_another_host_is_told_with_both_names() {
    let case = Case::with(Authority::new("a"), &Subject::host("other.example"));
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate is for another host: expected localhost, found other.example"
    );
    let server = case.run().server.failed.unwrap();
    assert_eq!(
        server.to_string(),
        "the client refuses this server's certificate: it is bad"
    );
}

#[test]
fn an_expired_certificate_is_told_with_its_date() {
    let mut subject = Subject::host("localhost");
    subject.years = (2020, 2021);
    let case = Case::with(Authority::new("a"), &subject);
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate expired on 2021-01-01"
    );
    subject.years = (2090, 2100);
    let case = Case::with(Authority::new("a"), &subject);
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate is not valid before 2090-01-01"
    );
}

#[test]
fn an_unknown_authority_is_told() {
    let mut case = Case::new();
    case.client.roots = Roots::Ca(Authority::new("another").source());
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate is signed by an unknown CA: name the CA that signed it"
    );
}

/// The first certificate that `openssl req -x509` makes is that of a CA.
#[test]
fn the_certificate_of_an_authority_is_no_server() {
    let authority = Authority::new("a");
    let server = TlsServerOptions::new(authority.own().pair());
    let mut case = Case::with(authority, &Subject::host("localhost"));
    case.server = server;
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate is that of a CA: use one that a CA has signed"
    );
}

#[test]
fn a_pinned_certificate_is_enough_and_the_only_one() {
    let authority = Authority::new("a");
    let issued = authority.issue(&Subject::host("other.example"));
    let mut case = Case::with(authority, &Subject::host("localhost"));
    case.client.roots = Roots::Pinned(pem_source(&issued.certificate));
    assert_eq!(
        case.refused(ErrorKind::Certificate),
        "the server's certificate is none of those that were pinned"
    );
    case.server = TlsServerOptions::new(issued.pair());
    works(&mut case.run());
}

#[test]
fn any_certificate_is_accepted_only_by_an_option_that_says_so() {
    let mut case = Case::with(Authority::new("a"), &Subject::host("other.example"));
    case.client.roots = Roots::InsecureAcceptAny;
    works(&mut case.run());
}

#[test]
fn a_server_shows_the_certificate_that_is_asked_for() {
    let mut case = Case::new();
    let second = case.authority.issue(&Subject::host("*.example.com"));
    case.server.identities.push(second.pair());
    for (name, fits) in [
        ("localhost", true),
        ("a.example.com", true),
        ("elsewhere.example", false),
    ] {
        case.client.server_name = Some(name.to_owned());
        let mut link = case.run();
        if fits {
            works(&mut link);
        } else {
            let error = link.client.failed.unwrap().to_string();
            assert!(error.contains("expected elsewhere.example, found localhost"));
        }
    }
}
