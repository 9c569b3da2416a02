use clap::Parser;
use rdkafka::ClientConfig;

use super::*;
use crate::settings::KafkaArgs;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    kafka: KafkaArgs,
}

fn args(flags: &[&str]) -> KafkaArgs {
    Cli::try_parse_from(["test"].iter().chain(flags)).expect("flags").kafka
}

fn error(flags: &[&str]) -> String {
    args(flags).security.to_properties().expect_err("wrong flags").to_string()
}

/// A file with this content, and its path.
fn file(content: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), content).expect("a writable file");
    let path = file.path().to_str().expect("a readable path").to_owned();
    (file, path)
}

/// What librdkafka is told of it.
fn properties(flags: &[&str]) -> Vec<(String, String)> {
    let mut config = ClientConfig::new();
    for (name, value) in args(flags).security.to_properties().expect("right flags") {
        config.set(name, value);
    }
    let names = [
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "enable.ssl.certificate.verification",
        "ssl.endpoint.identification.algorithm",
    ];
    let told = |name: &&str| config.get(name).map(|value| ((*name).to_owned(), value.to_owned()));
    names.iter().filter_map(told).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn without_a_flag_nothing_is_told() {
    assert_eq!(properties(&[]), []);
}

#[test]
fn sasl_over_tls_checks_the_broker_and_its_name() {
    let (_ca, ca) = file("an authority");
    let (_password, password) = file("hunter2\n");
    let flags = ["--kafka-security", "sasl-tls", "--kafka-sasl-mechanism", "scram-sha-512"];
    let user = ["--kafka-username", "u", "--kafka-password-file", &password, "--kafka-ca", &ca];
    assert_eq!(
        properties(&[&flags[..], &user].concat()),
        pairs(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
            ("ssl.ca.location", &ca),
            ("enable.ssl.certificate.verification", "true"),
            ("ssl.endpoint.identification.algorithm", "https"),
        ])
    );
}

#[test]
fn a_certificate_of_our_own_comes_with_its_key() {
    let (_cert, cert) = file("a certificate");
    let (_key, key) = file("a key");
    let (_password, password) = file("hunter2\r\n");
    let flags = ["--kafka-security", "tls", "--kafka-cert", &cert, "--kafka-key", &key];
    let told = properties(&[&flags[..], &["--kafka-key-password-file", &password]].concat());
    for pair in pairs(&[
        ("security.protocol", "ssl"),
        ("ssl.certificate.location", &cert),
        ("ssl.key.location", &key),
        ("ssl.key.password", "hunter2"),
    ]) {
        assert!(told.contains(&pair), "{pair:?} in {told:?}");
    }
    assert!(error(&flags[..4]).contains("--kafka-key"));
    assert!(error(&[&flags[..2], &flags[4..]].concat()).contains("--kafka-cert"));
    let alone = ["--kafka-security", "tls", "--kafka-key-password", "hunter2"];
    assert!(error(&alone).contains("but no key"));
}

#[test]
fn a_login_that_lacks_something_says_what() {
    let flags = [
        "--kafka-security",
        "sasl-tls",
        "--kafka-sasl-mechanism",
        "PLAIN",
        "--kafka-username",
        "u",
        "--kafka-password",
        "",
    ];
    assert!(error(&flags[..2]).contains("SCRAM-SHA-512"));
    assert!(error(&flags[..4]).contains("--kafka-username (KAFKA_USERNAME)"));
    assert!(error(&flags[..6]).contains("KAFKA_PASSWORD"));
    assert!(error(&flags).contains("KAFKA_PASSWORD"), "an empty password is none");
}

#[test]
fn a_setting_that_would_not_be_used_is_refused() {
    let plain = error(&["--kafka-password", "hunter2"]);
    assert!(plain.contains("--kafka-security plaintext"), "{plain}");
    assert!(plain.contains("KAFKA_PASSWORD") && !plain.contains("hunter2"), "{plain}");
    let tls = error(&["--kafka-security", "tls", "--kafka-username", "u"]);
    assert!(tls.contains("--kafka-security tls") && tls.contains("sasl-tls"), "{tls}");
    let sasl = error(&["--kafka-security", "sasl-plaintext", "--kafka-ca", "/ca"]);
    assert!(sasl.contains("--kafka-ca") && sasl.contains("tls or sasl-tls"), "{sasl}");
}

#[test]
fn a_password_and_a_file_with_one_are_not_both_wanted() {
    let (_file, path) = file("hunter2");
    let flags = ["--kafka-security", "sasl-tls", "--kafka-sasl-mechanism", "PLAIN"];
    let flags = [&flags[..], &["--kafka-username", "u", "--kafka-password-file", &path]].concat();
    let both = error(&[&flags[..], &["--kafka-password", "hunter3"]].concat());
    assert!(both.contains("KAFKA_PASSWORD") && both.contains("KAFKA_PASSWORD_FILE"), "{both}");
    assert!(!both.contains("hunter"), "{both}");
    // Compose hands an unset variable on as an empty one.
    let told = properties(&[&flags[..], &["--kafka-password", ""]].concat());
    assert!(told.contains(&("sasl.password".to_owned(), "hunter2".to_owned())), "{told:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_flag() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.pem");
    let missing = missing.to_str().expect("a readable path");
    let ca = error(&["--kafka-security", "tls", "--kafka-ca", missing]);
    assert!(ca.contains("--kafka-ca (KAFKA_CA)") && ca.contains(missing), "{ca}");
    let folder = folder.path().to_str().expect("a readable path");
    let ca = error(&["--kafka-security", "tls", "--kafka-ca", folder]);
    assert!(ca.contains("is a folder"), "{ca}");
    let (_empty, empty) = file("\n");
    for path in [missing, &empty] {
        let login = ["--kafka-security", "sasl-tls", "--kafka-sasl-mechanism", "PLAIN"];
        let user = ["--kafka-username", "u", "--kafka-password-file", path];
        let password = error(&[&login[..], &user].concat());
        assert!(password.contains("KAFKA_PASSWORD_FILE") && password.contains(path), "{password}");
    }
}

#[test]
fn no_secret_is_shown_by_debug() {
    let (_key, key) = file("a key");
    let flags = [
        "--kafka-security",
        "sasl-tls",
        "--kafka-sasl-mechanism",
        "PLAIN",
        "--kafka-username",
        "u",
        "--kafka-password",
        "hunter2",
        "--kafka-cert",
        &key,
        "--kafka-key",
        &key,
        "--kafka-key-password",
        "hunter3",
        "--kafka-property",
        "ssl.key.pem=hunter4",
    ];
    let args = args(&flags);
    let settings = crate::kafka::KafkaSettings {
        properties: args.to_properties().expect("right flags"),
        ..Default::default()
    };
    let shown = format!("{args:?} {settings:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("***") && shown.contains("ssl.key.pem"), "{shown}");
}

/// PLAIN needs no OpenSSL.
#[test]
fn a_build_without_tls_says_so_and_does_the_rest() {
    let connect = |flags: &[&str]| args(flags).connect("test").map(|_| ()).map_err(|e| e.0);
    let user = ["--kafka-username", "u", "--kafka-password", "hunter2"];
    let with = |flags: &[&'static str]| connect(&[flags, &user].concat());
    assert_eq!(
        with(&["--kafka-security", "sasl-plaintext", "--kafka-sasl-mechanism", "PLAIN"]),
        Ok(())
    );
    let property = "--kafka-property";
    for refused in [
        connect(&["--kafka-security", "tls"]),
        with(&["--kafka-security", "sasl-tls", "--kafka-sasl-mechanism", "PLAIN"]),
        with(&["--kafka-security", "sasl-plaintext", "--kafka-sasl-mechanism", "SCRAM-SHA-256"]),
        connect(&[property, "security.protocol=ssl"]),
        connect(&[
            property,
            "security.protocol=SASL_plaintext",
            property,
            "sasl.mechanism=SCRAM-SHA-512",
            property,
            "sasl.username=u",
            property,
            "sasl.password=p",
        ]),
    ] {
        if cfg!(feature = "tls") {
            assert_eq!(refused, Ok(()));
        } else {
            let error = refused.expect_err("no OpenSSL in this build");
            assert!(error.contains("--features tls") && error.contains("libssl-dev"), "{error}");
        }
    }
}
