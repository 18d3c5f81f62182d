//! Thumbnails: their sizes, formats and limits.

use std::io::Cursor;

use image::{
    AnimationDecoder, Delay, DynamicImage, Frame, ImageFormat, Rgba, RgbaImage,
    codecs::gif::{GifDecoder, GifEncoder},
};
use millrace_test_support::TestServer;

use super::{header, read, refused, upload};

/// A picture of some colours.
pub(crate) fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let image = RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8, y as u8, 77, 255]));
    let mut content = Cursor::new(Vec::new());
    DynamicImage::ImageRgba8(image).to_rgb8().write_to(&mut content, format).unwrap();
    content.into_inner()
}

fn animation() -> Vec<u8> {
    let mut content = Vec::new();
    let mut encoder = GifEncoder::new(&mut content);
    for shade in [0, 90, 180, 255] {
        let frame = RgbaImage::from_pixel(300, 300, Rgba([shade, 9, 9, 255]));
        let delay = Delay::from_numer_denom_ms(50, 1);
        encoder.encode_frame(Frame::from_parts(frame, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    content
}

fn path(medium: &str, query: &str) -> String {
    format!("/_matrix/client/v1/media/thumbnail/{medium}?{query}")
}

#[tokio::test]
async fn a_thumbnail_is_made_once_and_is_what_was_asked_for() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let medium = upload(&alice, "", "image/png", picture(800, 400, ImageFormat::Png)).await;
    for (query, size) in [
        ("width=32&height=32&method=crop", (32, 32)),
        ("width=96&height=96&method=scale", (96, 48)),
        ("width=320&height=240", (320, 160)),
        ("width=100&height=50&method=crop", (128, 64)),
    ] {
        let first = read(&alice, &path(&medium, query), &[]).await;
        assert_eq!(first.status(), 200, "{query}");
        assert_eq!(header(&first, "content-type"), "image/png");
        assert_eq!(header(&first, "content-disposition"), "inline; filename=thumbnail.png");
        assert!(header(&first, "content-security-policy").starts_with("sandbox"));
        let image = image::load_from_memory(first.body()).unwrap();
        assert_eq!((image.width(), image.height()), size, "{query}");
        let again = read(&alice, &path(&medium, query), &[]).await;
        assert_eq!(again.body(), first.body(), "{query}");
    }
    // What is small enough is served as it is, with its own name.
    let large = read(&alice, &path(&medium, "width=900&height=900"), &[]).await;
    assert_eq!(*large.body(), picture(800, 400, ImageFormat::Png));
    let photograph = upload(&alice, "", "image/jpeg", picture(800, 400, ImageFormat::Jpeg)).await;
    let small = read(&alice, &path(&photograph, "width=64&height=64"), &[]).await;
    assert_eq!(header(&small, "content-type"), "image/jpeg");
}

#[tokio::test]
async fn an_animation_moves_where_the_client_wants_it() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let medium = upload(&alice, "", "image/gif", animation()).await;
    let moving = read(&alice, &path(&medium, "width=64&height=64&animated=true"), &[]).await;
    assert_eq!(header(&moving, "content-type"), "image/gif");
    let frames = GifDecoder::new(Cursor::new(moving.body())).unwrap().into_frames();
    assert_eq!(frames.count(), 4);
    for query in ["width=64&height=64", "width=64&height=64&animated=false"] {
        let still = read(&alice, &path(&medium, query), &[]).await;
        assert_eq!(header(&still, "content-type"), "image/png", "{query}");
    }
}

#[tokio::test]
async fn what_has_no_thumbnail_is_refused() {
    let mut config = TestServer::config();
    config.media.thumbnail_pixels_max = 100_000;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let size = "width=32&height=32";
    let text = upload(&alice, "", "image/png", "no image at all").await;
    refused(&read(&alice, &path(&text, size), &[]).await, 400, "M_UNKNOWN");
    let polyglot = upload(&alice, "", "image/gif", "GIF89a=1;alert(1)//").await;
    // Read as an image, it says that it is 12605 pixels wide.
    refused(&read(&alice, &path(&polyglot, size), &[]).await, 413, "M_TOO_LARGE");
    let cut = picture(300, 300, ImageFormat::Png);
    let cut = upload(&alice, "", "image/png", cut[..cut.len() / 2].to_vec()).await;
    refused(&read(&alice, &path(&cut, size), &[]).await, 400, "M_UNKNOWN");
    let huge = upload(&alice, "", "image/png", picture(400, 400, ImageFormat::Png)).await;
    refused(&read(&alice, &path(&huge, size), &[]).await, 413, "M_TOO_LARGE");
    let fine = upload(&alice, "", "image/png", picture(300, 300, ImageFormat::Png)).await;
    for wrong in ["width=0&height=32", "width=32&height=32&method=squeeze"] {
        refused(&read(&alice, &path(&fine, wrong), &[]).await, 400, "M_UNKNOWN");
    }
    for wrong in ["width=-1&height=32", "width=a&height=1"] {
        refused(&read(&alice, &path(&fine, wrong), &[]).await, 400, "M_INVALID_PARAM");
    }
    refused(&read(&alice, &path(&fine, "height=32"), &[]).await, 400, "M_MISSING_PARAM");
    refused(&read(&alice, &path("test/unknown", size), &[]).await, 404, "M_NOT_FOUND");
    refused(&read(&server.client(), &path(&fine, size), &[]).await, 401, "M_MISSING_TOKEN");
    let legacy = format!("/_matrix/media/v3/thumbnail/{fine}?{size}");
    refused(&read(&server.client(), &legacy, &[]).await, 404, "M_NOT_FOUND");
}

#[tokio::test]
async fn thumbnails_go_with_their_medium() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let medium = upload(&alice, "", "image/png", picture(100, 100, ImageFormat::Png)).await;
    let small = read(&alice, &path(&medium, "width=32&height=32"), &[]).await;
    assert_eq!(small.status(), 200);
    let files = || super::uploads::files_below(&folder.path().join("files"));
    assert_eq!(files(), 2);
    let (name, id) = medium.split_once('/').unwrap();
    let mxc = millrace_media::Mxc::new(name.try_into().unwrap(), id.to_owned()).unwrap();
    millrace_media::remove::remove(&server.media, &mxc).await.unwrap();
    server.media.sweep().await.unwrap();
    assert_eq!(files(), 0);
    refused(&read(&alice, &path(&medium, "width=32&height=32"), &[]).await, 404, "M_NOT_FOUND");
}
