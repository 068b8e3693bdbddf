//! `mqtt sign`: computes client identifier, user name and password for platforms that derive them from a secret.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use mqtt_credentials::{Aliyun, DeviceCredentials, Method, OneNet, Security};
use mqtt_tokio::proto::Version;
use serde_json::json;

use crate::failure::{Failure, fail};
use crate::packet::form::Output;
use crate::packet::{Connect, Draft};

/// Computes the credentials that a device platform expects in CONNECT.
///
/// Prints client identifier, user name, password, host and port, or with --encode the CONNECT.
///
/// Examples:
///
///   mqtt sign aliyun --product-key a1b2c3 --device-name pump --device-secret SECRET
///
///   mqtt sign aliyun ... --encode --as at
///
///   mqtt sign onenet --product-id 323685 --device-name pump-7 --key BASE64 --expires 1800000000
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Sign {
    #[command(subcommand)]
    platform: Platform,
    /// Print the CONNECT of MQTT 3.1.1 instead of the values
    #[arg(long, global = true)]
    encode: bool,
    /// Keep-alive of that CONNECT in seconds
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        global = true
    )]
    keepalive: u16,
    /// Print the values as JSON
    #[arg(long, conflicts_with = "encode", global = true)]
    json: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Platform {
    /// Aliyun IoT Platform
    Aliyun(AliyunArgs),
    /// OneNET of China Mobile
    #[command(name = "onenet")]
    OneNet(OneNetArgs),
}

#[derive(Args, Debug)]
struct AliyunArgs {
    /// ProductKey
    #[arg(long, value_name = "KEY")]
    product_key: String,
    /// DeviceName
    #[arg(long, value_name = "NAME")]
    device_name: String,
    /// DeviceSecret; - reads it from standard input
    #[arg(long, value_name = "SECRET", allow_hyphen_values = true)]
    device_secret: String,
    /// Client identifier before the first bar [default: ProductKey.DeviceName]
    #[arg(short, long, value_name = "ID")]
    id: Option<String>,
    /// Milliseconds since 1970, or now; without it there is no timestamp
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    timestamp: Option<u64>,
    /// Hash function
    #[arg(long, value_enum, default_value_t)]
    method: MethodName,
    /// How the device connects: tls (securemode=2) or plain (securemode=3)
    #[arg(long, value_enum, default_value_t)]
    security: SecurityName,
    /// Region of a public instance
    #[arg(long, default_value = "cn-shanghai")]
    region: String,
}

#[derive(Args, Debug)]
struct OneNetArgs {
    /// Product identifier
    #[arg(long, value_name = "ID", required_unless_present = "resource")]
    product_id: Option<String>,
    /// Device name; without it the token is for all devices of the product
    #[arg(long, value_name = "NAME", conflicts_with = "resource")]
    device_name: Option<String>,
    /// Resource of the token [default: products/ID/devices/NAME]
    #[arg(long, value_name = "RESOURCE", conflicts_with = "product_id")]
    resource: Option<String>,
    /// Key in base64; - reads it from standard input
    #[arg(long, value_name = "BASE64", allow_hyphen_values = true)]
    key: String,
    /// When the token expires: seconds since 1970, or + and seconds from now
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: u64,
    /// Hash function
    #[arg(long, value_enum, default_value_t)]
    method: MethodName,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum MethodName {
    Md5,
    Sha1,
    #[default]
    Sha256,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum SecurityName {
    #[default]
    Plain,
    Tls,
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Md5 => Self::Md5,
            MethodName::Sha1 => Self::Sha1,
            MethodName::Sha256 => Self::Sha256,
        }
    }
}

/// The values to print.
struct Signed {
    credentials: DeviceCredentials,
    host: String,
    port: u16,
    signed_text: String,
}

impl Sign {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let signed = match &self.platform {
            Platform::Aliyun(arguments) => arguments.sign()?,
            Platform::OneNet(arguments) => arguments.sign()?,
        };
        if self.encode {
            let DeviceCredentials {
                client_id,
                user_name,
                password,
            } = signed.credentials;
            let mut connect = Connect::with(client_id, user_name, password);
            connect.keep_alive = self.keepalive;
            let bytes = Draft::Connect(Box::new(connect)).bytes(Version::V311)?;
            return self.output.print(&bytes);
        }
        let DeviceCredentials {
            client_id,
            user_name,
            password,
        } = &signed.credentials;
        let (host, port) = (&signed.host, signed.port);
        if self.json {
            let object = json!({
                "client_id": client_id, "user_name": user_name, "password": password,
                "host": host, "port": port, "signed_text": signed.signed_text,
            });
            crate::output(format_args!("{object}\n"));
        } else {
            crate::output(format_args!(
                "client id  {client_id}\nuser name  {user_name}\npassword   {password}\nhost       {host}\nport       {port}\n"
            ));
        }
        Ok(())
    }
}

impl AliyunArgs {
    fn sign(&self) -> Result<Signed, Failure> {
        let secret = secret(&self.device_secret)?;
        let device = Aliyun {
            client_id: self.id.as_deref(),
            timestamp: self.timestamp,
            method: self.method.into(),
            security: match self.security {
                SecurityName::Tls => Security::Tls,
                SecurityName::Plain => Security::Plain,
            },
            ..Aliyun::new(&self.product_key, &self.device_name, &secret)
        };
        Ok(Signed {
            credentials: device.credentials(),
            host: device.host(&self.region),
            port: Aliyun::PORT,
            signed_text: device.signed_text(),
        })
    }
}

impl OneNetArgs {
    fn sign(&self) -> Result<Signed, Failure> {
        let key = secret(&self.key)?;
        let product = self.product_id.as_deref().unwrap_or_default();
        let resource = match (&self.resource, &self.device_name) {
            (Some(resource), _) => resource.clone(),
            (None, Some(name)) => format!("products/{product}/devices/{name}"),
            (None, None) => format!("products/{product}"),
        };
        let device = OneNet {
            resource,
            key: &key,
            expires: self.expires,
            method: self.method.into(),
        };
        Ok(Signed {
            credentials: device.credentials().map_err(fail)?,
            host: OneNet::HOST.to_owned(),
            port: OneNet::PORT,
            signed_text: device.signed_text(),
        })
    }
}

/// Returns the secret, or reads it from standard input for `-`, which keeps it out of the list of processes.
fn secret(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .map_err(|error| fail(format!("standard input: {error}")))?;
    Ok(input.trim_end_matches(['\r', '\n']).to_owned())
}

fn now() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn milliseconds(text: &str) -> Result<u64, String> {
    if text == "now" {
        return u64::try_from(now().as_millis()).map_err(|error| error.to_string());
    }
    text.parse()
        .map_err(|_| "a time is a number of milliseconds, or now".to_owned())
}

fn expiry(text: &str) -> Result<u64, String> {
    let wrong = |_| "a time is a number of seconds, or + and a number".to_owned();
    match text.strip_prefix('+') {
        Some(span) => {
            let span: u64 = span.parse().map_err(wrong)?;
            Ok(now().as_secs().saturating_add(span))
        }
        None => text.parse().map_err(wrong),
    }
}
