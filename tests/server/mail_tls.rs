//! Mails over TLS, from the first byte and after a greeting, with a mail server of the test's own; and
//! that none goes unprotected where it should not.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::sync::Arc;

use millrace::config::email::Security;
use millrace_test_support::{Answer, MailSink, TestServer};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// What the mail server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offers {
    /// TLS from the first byte.
    Tls,
    /// TLS when it is asked for.
    StartTls,
}

/// A mail server behind TLS; its port, and the file with its certificate.
async fn mail_server(
    sink: &MailSink,
    offers: Offers,
    folder: &std::path::Path,
) -> (u16, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = folder.join("certificate.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sink = sink.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sink, acceptor) = (sink.clone(), acceptor.clone());
            tokio::spawn(async move {
                match offers {
                    Offers::Tls => sink.greet(acceptor.accept(stream).await.ok()?).await,
                    Offers::StartTls => {
                        let stream = turn_over(stream).await?;
                        sink.converse(acceptor.accept(stream).await.ok()?).await
                    }
                }
            });
        }
    });
    (port, file)
}

/// The words before TLS begins.
async fn turn_over(stream: TcpStream) -> Option<TcpStream> {
    let mut stream = BufReader::new(stream);
    for (said, expected) in [
        ("220 sink ESMTP\r\n", "EHLO"),
        ("250-sink\r\n250 STARTTLS\r\n", "STARTTLS"),
        ("220 go on\r\n", ""),
    ] {
        stream.write_all(said.as_bytes()).await.ok()?;
        let mut line = String::new();
        if !expected.is_empty() {
            stream.read_line(&mut line).await.ok()?;
            line.starts_with(expected).then_some(())?;
        }
    }
    Some(stream.into_inner())
}

/// Asks for a mail by a server that is configured so.
async fn ask(port: u16, security: Security, authority: Option<std::path::PathBuf>) -> Answer {
    let mut config = TestServer::config();
    config.well_known.client = Some("https://client.test".to_owned());
    config.email.smtp_host = Some("127.0.0.1".to_owned());
    config.email.smtp_port = Some(port);
    config.email.smtp_security = security;
    config.email.smtp_user = Some("millrace".to_owned());
    config.email.smtp_password = Some("word".to_owned());
    config.email.smtp_ca_file = authority;
    config.email.from = Some("no-reply@test".to_owned());
    let server = TestServer::start_with(&config).await;
    let path = "/_matrix/client/v3/register/email/requestToken";
    let body = json!({ "client_secret": "s3cret", "email": "a@example.org", "send_attempt": 1 });
    server.client().post(path, body).await
}

#[tokio::test]
async fn mails_go_over_tls_with_a_login_and_to_nobody_who_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    for (offers, security) in [(Offers::Tls, Security::Tls), (Offers::StartTls, Security::StartTls)]
    {
        let sink = MailSink::start().await;
        let (port, authority) = mail_server(&sink, offers, folder.path()).await;
        ask(port, security, None).await.refused(500, "M_UNKNOWN");
        assert_eq!(sink.count(), 0, "{offers:?}: its certificate is nobody's");
        ask(port, security, Some(authority)).await.ok();
        let mail = sink.newest();
        assert_eq!((&*mail.to, sink.count()), ("a@example.org", 1), "{offers:?}");
        // "\0millrace\0word"
        assert_eq!(mail.login, "AUTH PLAIN AG1pbGxyYWNlAHdvcmQ=");
    }
}

#[tokio::test]
async fn nothing_goes_to_a_mail_server_without_tls_unless_that_is_configured() {
    let sink = MailSink::start().await;
    for security in [Security::StartTls, Security::Tls] {
        ask(sink.port(), security, None).await.refused(500, "M_UNKNOWN");
    }
    assert_eq!(sink.count(), 0);
    ask(sink.port(), Security::None, None).await.ok();
    assert_eq!(sink.count(), 1);
}
