//! Compares with values that were computed without this crate: published ones, and those of Python's `hmac`.

use mqtt_credentials::{Aliyun, InvalidKey, Method, OneNet, Security};

/// A device with an invented secret.
fn device() -> Aliyun<'static> {
    Aliyun {
        timestamp: Some(1_691_648_594_041),
        security: Security::Tls,
        ..Aliyun::new("a1yyeqgpsKm", "mqtt_fx", "0123456789abcdef0123456789abcdef")
    }
}

#[test]
fn aliyun_signs_the_names_in_the_order_of_the_alphabet() {
    assert_eq!(
        device().signed_text(),
        "clientIda1yyeqgpsKm.mqtt_fxdeviceNamemqtt_fxproductKeya1yyeqgpsKmtimestamp1691648594041"
    );
}

#[test]
fn aliyun_values_are_those_of_the_device() {
    let signed = device().credentials();
    assert_eq!(
        signed.client_id,
        "a1yyeqgpsKm.mqtt_fx|securemode=2,signmethod=hmacsha256,timestamp=1691648594041|"
    );
    assert_eq!(signed.user_name, "mqtt_fx&a1yyeqgpsKm");
    for (method, password) in [
        (Method::Md5, "532783756a20e4daec24bad3dd25b0ce"),
        (Method::Sha1, "100df1dc65c48b5f0ad18f65796b55610af76c41"),
        (
            Method::Sha256,
            "8e516c4b721828245c32fe853ecb1d540743389a42ecbfec3d1a32994adaa04c",
        ),
    ] {
        let device = Aliyun { method, ..device() };
        assert_eq!(device.credentials().password, password, "{method:?}");
    }
}

#[test]
fn aliyun_signs_without_a_timestamp_too() {
    let device = Aliyun {
        timestamp: None,
        security: Security::Plain,
        ..device()
    };
    let signed = device.credentials();
    assert_eq!(
        signed.client_id,
        "a1yyeqgpsKm.mqtt_fx|securemode=3,signmethod=hmacsha256|"
    );
    assert_eq!(
        signed.password,
        "75eec002f45d223b6cd5b8691d8343fb15dfcaa74143d672b13ad82e2c4e2157"
    );
}

/// The example of the vendor's own guide, with a client identifier that the device chose.
#[test]
fn aliyun_takes_a_client_identifier() {
    let device = Aliyun {
        client_id: Some("SN1928339"),
        timestamp: Some(1_539_421_321_846),
        method: Method::Sha1,
        ..Aliyun::new(
            "a14Xib5kdYd",
            "light1983432",
            "oLyaKqVxtRvjH284LdhqVgVUx1UPy6zq",
        )
    };
    let signed = device.credentials();
    assert_eq!(
        signed.client_id,
        "SN1928339|securemode=3,signmethod=hmacsha1,timestamp=1539421321846|"
    );
    assert_eq!(signed.password, "b2488041f64f425016b467ee1c94959ebd592ad1");
}

fn pump() -> OneNet<'static> {
    // The base64 of 0123456789abcdef0123456789abcdef.
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    OneNet::device("323685", "pump-7", key, 1_800_000_000)
}

#[test]
fn onenet_tokens_are_those_of_the_algorithm() {
    for (method, sign) in [
        (Method::Md5, "Q1wq7F0LgG%2Bj5hAcP5nT7w%3D%3D"),
        (Method::Sha1, "uIwNBKY9wKLFqbzvyP%2B9QgeH%2BjI%3D"),
        (
            Method::Sha256,
            "4lSTSJthTecAT5nAdE7AqvWDXZE6rTBtgPFRnSS6CG4%3D",
        ),
    ] {
        let signed = OneNet { method, ..pump() }.credentials().unwrap();
        let name = method.name();
        assert_eq!(
            signed.password,
            format!(
                "version=2018-10-31&res=products%2F323685%2Fdevices%2Fpump-7&et=1800000000&method={name}&sign={sign}"
            )
        );
        assert_eq!(
            (signed.client_id.as_str(), signed.user_name.as_str()),
            ("pump-7", "323685")
        );
    }
}

#[test]
fn a_product_signs_without_a_device_name() {
    let product = OneNet {
        resource: "products/323685".into(),
        ..pump()
    };
    let signed = product.credentials().unwrap();
    assert_eq!(
        (signed.client_id.as_str(), signed.user_name.as_str()),
        ("", "323685")
    );
    assert!(signed.password.contains("&res=products%2F323685&et="));
}

#[test]
fn a_key_that_is_no_base64_is_refused() {
    let device = OneNet {
        key: "no key!",
        ..pump()
    };
    assert_eq!(device.token(), Err(InvalidKey));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let texts = [
        format!("{:?}", device()),
        format!("{:?}", device().credentials()),
        format!("{:?}", pump()),
    ];
    for (text, secret) in texts.iter().zip(["01234567", "8e516c4b", "MDEyMzQ1"]) {
        assert!(!text.contains(secret), "{text}");
    }
}
