//! A mail server that keeps what it is given.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// A mail as it came.
#[derive(Debug, Clone, Default)]
pub struct SunkMail {
    /// The sender of the envelope.
    pub from: String,
    /// The recipient of the envelope.
    pub to: String,
    /// Headers and body, without soft line breaks.
    pub text: String,
    /// What was said to log in (`AUTH`), if anything.
    pub login: String,
}

/// A mail server on loopback. Clones are the same server.
#[derive(Clone)]
pub struct MailSink {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<SunkMail>>>,
    refusing: Arc<AtomicBool>,
}

impl MailSink {
    /// Starts a mail server.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let sink = Self { address, mails: Arc::default(), refusing: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                tokio::spawn(async move { sink.greet(stream).await });
            }
        });
        sink
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Makes it refuse every mail, or take mails again.
    pub fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }

    /// How many mails it has taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mails.lock().len()
    }

    /// The newest mail.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn newest(&self) -> SunkMail {
        self.mails.lock().last().cloned().expect("a mail")
    }

    /// Serves one connection, from the first word on.
    pub async fn greet(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        stream.write_all(b"220 sink ESMTP\r\n").await.ok()?;
        self.converse(stream).await
    }

    /// Serves one connection whose client was greeted already.
    pub async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let (read, mut write) = tokio::io::split(stream);
        let mut lines = BufReader::new(read).lines();
        let mut mail = SunkMail::default();
        while let Some(line) = lines.next_line().await.ok()? {
            let argument = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            let answer = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => "250-sink\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
                "AUTH" => {
                    line.clone_into(&mut mail.login);
                    "235 welcome\r\n"
                }
                "MAIL" if self.refusing.load(Ordering::SeqCst) => "451 not now\r\n",
                "MAIL" => {
                    mail.from = argument();
                    "250 ok\r\n"
                }
                "RCPT" => {
                    mail.to = argument();
                    "250 ok\r\n"
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await.ok()?;
                    while let Some(line) = lines.next_line().await.ok()?.filter(|line| line != ".")
                    {
                        // Quoted-printable: a line that ends in "=" goes on in the next.
                        match line.strip_suffix('=') {
                            Some(part) => mail.text.push_str(part),
                            None => mail.text.extend([&*line, "\n"]),
                        }
                    }
                    mail.text = mail.text.replace("=3D", "=");
                    self.mails.lock().push(std::mem::take(&mut mail));
                    "250 taken\r\n"
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await.ok()?;
                    return Some(());
                }
                _ => "250 ok\r\n",
            };
            write.write_all(answer.as_bytes()).await.ok()?;
        }
        Some(())
    }
}

impl SunkMail {
    /// The path and query of the first link in it.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn link(&self) -> String {
        let start = self.text.find("/_matrix/").expect("a link");
        let rest = &self.text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        rest[..end].to_owned()
    }
}
