//! Answers of two parts, metadata and a file, of which the file is read piece by piece (spec:
//! Server-Server API, Content Repository; RFC 2046, section 5.1).

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::transport::{AnswerBody, TransportError};

/// Largest part that is not the file, in bytes.
const PART_BYTES_MAX: usize = 64 * 1024;
/// Most headers of a part.
const HEADERS_MAX: usize = 32;
/// The longest boundary (RFC 2046).
const BOUNDARY_BYTES_MAX: usize = 70;

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MultipartError {
    /// It is not of this form.
    #[error("the answer is no file with metadata: {0}")]
    Form(&'static str),
    /// It broke off.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The part that is the file.
pub(crate) struct Part {
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

/// What separates the parts, as the `Content-Type` of the answer says.
pub(crate) fn boundary(headers: &HeaderMap) -> Result<String, MultipartError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut fields = kind.unwrap_or_default().split(';').map(str::trim);
    let mixed = fields.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/mixed"));
    let boundary = fields.find_map(|field| {
        let (name, value) = field.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    match boundary {
        Some(boundary) if mixed && (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) => {
            Ok(boundary.to_owned())
        }
        _ => Err(MultipartError::Form("it names no boundary between parts")),
    }
}

/// Reads past the metadata, which say nothing yet, and the headers of the file.
pub(crate) async fn second_part(body: AnswerBody, boundary: &str) -> Result<Part, MultipartError> {
    // The first boundary need not have a line before it.
    let (rest, delimiter) = (BytesMut::from("\r\n"), format!("\r\n--{boundary}").into_bytes());
    let mut reader = Reader { body, rest };
    reader.until(&delimiter).await?;
    reader.until(b"\r\n").await?;
    reader.until(&delimiter).await?;
    reader.until(b"\r\n").await?;
    let mut headers = HeaderMap::new();
    loop {
        let line = reader.until(b"\r\n").await?;
        if line.is_empty() {
            break;
        }
        let header = header_of(&line).ok_or(MultipartError::Form("a header is malformed"))?;
        headers.insert(header.0, header.1);
        if headers.len() > HEADERS_MAX {
            return Err(MultipartError::Form("there are too many headers"));
        }
    }
    Ok(Part { headers, body: reader.file(delimiter) })
}

fn header_of(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

struct Reader {
    body: AnswerBody,
    /// What has come and is not yet read.
    rest: BytesMut,
}

impl Reader {
    /// What is before the next `mark`, which is read too.
    async fn until(&mut self, mark: &[u8]) -> Result<BytesMut, MultipartError> {
        loop {
            if let Some(place) = memchr::memmem::find(&self.rest, mark) {
                let before = self.rest.split_to(place);
                drop(self.rest.split_to(mark.len()));
                return Ok(before);
            }
            if self.rest.len() > PART_BYTES_MAX {
                return Err(MultipartError::Form("a part is too large"));
            }
            let chunk = self.body.next().await;
            let chunk = chunk.ok_or(MultipartError::Form("it ends before the file"))??;
            self.rest.extend_from_slice(&chunk);
        }
    }

    /// Everything before the last delimiter. Without one, the file is not whole.
    fn file(self, delimiter: Vec<u8>) -> AnswerBody {
        let next = |state: Option<(Self, Vec<u8>)>| async move {
            let (mut reader, delimiter) = state?;
            loop {
                if let Some(place) = memchr::memmem::find(&reader.rest, &delimiter) {
                    return Some((Ok(reader.rest.split_to(place).freeze()), None));
                }
                // What may be the beginning of the delimiter stays.
                let sure = reader.rest.len().saturating_sub(delimiter.len() - 1);
                if sure > 0 {
                    let chunk: Bytes = reader.rest.split_to(sure).freeze();
                    return Some((Ok(chunk), Some((reader, delimiter))));
                }
                match reader.body.next().await {
                    Some(Ok(chunk)) => reader.rest.extend_from_slice(&chunk),
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => {
                        let reason = "the file broke off".to_owned();
                        return Some((Err(TransportError::Unreachable(reason)), None));
                    }
                }
            }
        };
        stream::unfold(Some((self, delimiter)), next).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn body(text: &[u8], piece: usize) -> AnswerBody {
        let chunks: Vec<_> =
            text.chunks(piece).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        stream::iter(chunks).boxed()
    }

    async fn read(text: &[u8], piece: usize) -> Result<(HeaderMap, Vec<u8>), MultipartError> {
        let part = second_part(body(text, piece), "b").await?;
        let chunks: Vec<Bytes> = part.body.try_collect().await?;
        Ok((part.headers, chunks.concat()))
    }

    #[tokio::test]
    async fn a_file_is_read_whatever_the_pieces_it_comes_in() {
        let content = b"\r\n--a\r\n-\r\n\r\n--\r\n\r";
        let head =
            b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: a/b\r\n\
                     content-disposition: attachment; filename=x\r\n\r\n";
        let text = [&head[..], content, b"\r\n--b--\r\n"].concat();
        for piece in 1..text.len() + 1 {
            let (headers, file) = read(&text, piece).await.unwrap();
            assert_eq!(file, content, "pieces of {piece} bytes");
            assert_eq!(headers["content-type"], "a/b");
            assert_eq!(headers["content-disposition"], "attachment; filename=x");
        }
        let preamble = [b"preamble\r\n", &text[..]].concat();
        assert_eq!(read(&preamble, 7).await.unwrap().1, content);
        let no_headers = b"\r\n--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b";
        assert_eq!(read(no_headers, 3).await.unwrap().1, b"x");
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_file() {
        let text = b"\r\n--b\r\nA: b\r\n\r\n{}\r\n--b\r\nA: b\r\n\r\ncontent\r\n--b--";
        for length in 0..text.len() - 2 {
            read(&text[..length], 5).await.unwrap_err();
        }
        let endless = [b"\r\n--b\r\n", &[b'x'; 200_000][..]].concat();
        assert!(matches!(read(&endless, 1000).await, Err(MultipartError::Form(_))));
    }

    #[test]
    fn a_boundary_is_named_by_the_type() {
        let of = |kind: &str| {
            let value = HeaderValue::from_str(kind).unwrap();
            boundary(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).ok()
        };
        assert_eq!(of("multipart/mixed; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(of("Multipart/Mixed; x=y; Boundary=\"a-c\"").as_deref(), Some("a-c"));
        for wrong in ["multipart/mixed", "image/png; boundary=a", "multipart/mixed; boundary="] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
