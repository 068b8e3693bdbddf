//! Compares the options for TLS and proxies with those of mosquitto's programs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use mqtt_testing::peers::{Authority, Mosquitto, RawServer, Subject, free_port};
use mqtt_testing::process::run;

use super::{BOTH, Whose, folder, run_as, words};

/// Arguments, and whether they work. FOLDER has the files, HOST is `-h localhost -p` and the port of TLS, and CLIENTS is the same
/// for the listener that requires a certificate.
const CASES: &[(&str, bool)] = &[
    ("HOST --cafile FOLDER/ca.crt", true),
    ("HOST --capath FOLDER/cas", true),
    ("HOST --cafile FOLDER/ca.crt --tls-version tlsv1.2", true),
    ("HOST --cafile FOLDER/ca.crt --tls-version tlsv1.3", true),
    ("HOST --cafile FOLDER/ca.crt --tls-alpn mqtt", true),
    (
        "CLIENTS --cafile FOLDER/ca.crt --cert FOLDER/me.crt --key FOLDER/me.key",
        true,
    ),
    (
        "CLIENTS --cafile FOLDER/ca.crt --cert FOLDER/me.crt --key FOLDER/me.key --keyform pem",
        true,
    ),
    ("OTHER --cafile FOLDER/ca.crt --insecure", true),
    // The following arguments, or their connections, are refused.
    ("OTHER --cafile FOLDER/ca.crt", false),
    ("CLIENTS --cafile FOLDER/ca.crt", false),
    ("HOST --cafile FOLDER/other.crt", false),
    ("HOST --tls-use-os-certs", false),
    ("HOST --cafile FOLDER/ca.crt --cert FOLDER/me.crt", false),
    ("HOST --cafile FOLDER/ca.crt --key FOLDER/me.key", false),
    (
        "HOST --cafile FOLDER/ca.crt --cert FOLDER/me.crt --key FOLDER/none",
        false,
    ),
    ("HOST --cafile FOLDER/ca.crt --tls-version tlsv9", false),
    ("HOST --cafile FOLDER/ca.crt --keyform nonsense", false),
    ("HOST --cafile FOLDER/ca.crt --ciphers nonsense", false),
    (
        "HOST --cafile FOLDER/ca.crt --tls-engine nonsense --keyform engine",
        false,
    ),
    (
        "HOST --cafile FOLDER/ca.crt --tls-engine-kpass-sha1 00",
        false,
    ),
    ("HOST --psk 00", false),
    (
        "HOST --cafile FOLDER/ca.crt --psk 00 --psk-identity me",
        false,
    ),
];

/// Writes the files of an authority, a server and a client.
fn certificates(folder: &Path) {
    let authority = Authority::new("test");
    let server = authority.issue(&Subject::host("localhost"));
    let client = authority.issue(&Subject::client("me"));
    std::fs::create_dir(folder.join("cas")).unwrap();
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("cas/ca.crt", authority.pem()),
        ("other.crt", Authority::new("other").pem()),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
        ("me.crt", &client.certificate),
        ("me.key", &client.key),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    // OpenSSL looks for names that are made of the certificates.
    let cas = folder.join("cas").display().to_string();
    assert_eq!(run("openssl", &["rehash", &cas], "").code, Some(0));
}

/// Starts Mosquitto with two TLS listeners: one for all clients, and one for clients with certificates.
fn broker(files: &str) -> (Mosquitto, [String; 2]) {
    let ports = [free_port(), free_port()];
    let mut extra = String::from("allow_anonymous true\n");
    for (port, wanted) in ports.into_iter().zip(["false", "true"]) {
        extra += &format!(
            "listener {port} 127.0.0.1\ncafile {files}/ca.crt\ncertfile {files}/server.crt\nkeyfile {files}/server.key\n\
             require_certificate {wanted}\n"
        );
    }
    (Mosquitto::start(&extra), ports.map(|port| port.to_string()))
}

#[test]
fn tls_options_behave_as_in_mosquitto() {
    let files = folder("drop-in-tls");
    certificates(&files);
    let files = files.display().to_string();
    let (_broker, [port, wanting]) = broker(&files);
    for (arguments, works) in CASES.iter().copied() {
        let arguments = arguments
            .replace("HOST", &format!("-h localhost -p {port}"))
            .replace("OTHER", &format!("-h 127.0.0.1 -p {port}"))
            .replace("CLIENTS", &format!("-h localhost -p {wanting}"))
            .replace("FOLDER", &files);
        let words = words(&arguments);
        let all: Vec<&str> = words.iter().map(String::as_str).collect();
        for (command, more) in [
            ("pub", &["-t", "a", "-m", "x", "-q", "1"][..]),
            ("sub", &["-t", "a", "-E"]),
        ] {
            let all = [&all[..], more].concat();
            for whose in BOTH {
                let ended = run_as(whose, command, &all, "");
                let context = format!("{whose:?} {command} {arguments}: {ended:?}");
                assert_eq!(ended.code == Some(0), works, "{context}");
                if whose == Whose::Ours && !works {
                    assert_eq!(ended.stderr.lines().count(), 1, "{context}");
                }
            }
        }
    }
}

/// Serves SOCKS5 without passwords, for names and IPv4 addresses.
fn socks(mut client: TcpStream) -> std::io::Result<()> {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting)?;
    client.read_exact(&mut vec![0; greeting[1].into()])?;
    client.write_all(&[5, 0])?;
    let mut request = [0; 4];
    client.read_exact(&mut request)?;
    let host = if request[3] == 3 {
        let mut len = [0];
        client.read_exact(&mut len)?;
        let mut name = vec![0; len[0].into()];
        client.read_exact(&mut name)?;
        String::from_utf8_lossy(&name).into_owned()
    } else {
        let mut address = [0; 4];
        client.read_exact(&mut address)?;
        std::net::Ipv4Addr::from(address).to_string()
    };
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    let mut server = TcpStream::connect((host.as_str(), u16::from_be_bytes(port)))?;
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(std::net::Shutdown::Write)?;
    let _ = back.join();
    Ok(())
}

#[test]
fn mqtt_and_mosquitto_connect_through_a_proxy() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let proxy = RawServer::start(|client, _| drop(socks(client)));
    for (n, whose) in BOTH.into_iter().enumerate() {
        for scheme in ["socks5h", "socks5"] {
            let url = format!("{scheme}://127.0.0.1:{}", proxy.port);
            let to = ["-h", "127.0.0.1", "-p", &port, "-t", "a", "--proxy", &url];
            let before = proxy.connections();
            let ended = run_as(
                whose,
                "pub",
                &[&to[..], &["-m", "x", "-q", "1"]].concat(),
                "",
            );
            // mosquitto_pub knows only socks5h.
            let is_known = whose == Whose::Ours || scheme == "socks5h";
            assert_eq!(ended.code == Some(0), is_known, "{n} {scheme} {ended:?}");
            assert_eq!(proxy.connections() > before, is_known, "{whose:?} {scheme}");
        }
        let nowhere = ["-h", "127.0.0.1", "-p", &port, "-t", "a", "-m", "x"];
        for url in ["socks5h://127.0.0.1:1", "nonsense://127.0.0.1:1"] {
            let ended = run_as(
                whose,
                "pub",
                &[&nowhere[..], &["--proxy", url]].concat(),
                "",
            );
            assert_eq!(ended.code, Some(1), "{whose:?} {url} {ended:?}");
        }
    }
}
