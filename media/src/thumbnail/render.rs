//! Making an image smaller. What it is, is told by its content, never by what its uploader says;
//! what it would cost is known from its head, before any of it is decoded.

use std::io::Cursor;

use image::{
    AnimationDecoder, DynamicImage, Frame, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        jpeg::JpegEncoder,
        png::PngDecoder,
        webp::WebPDecoder,
    },
    imageops::FilterType,
};

use super::size::{Motion, Target, Wanted};

/// Frames of an animation that are kept.
const FRAMES_MAX: usize = 500;
/// So many times the pixels of the largest image may all frames of an animation have.
const ANIMATION_FACTOR: u64 = 8;
/// Bytes of memory for each pixel that a decoder may take.
const BYTES_PER_PIXEL: u64 = 8;
/// Quality of JPEG, of 100.
const JPEG_QUALITY: u8 = 80;
/// How fast palettes of GIF are chosen, of 1 (best) to 30.
const GIF_SPEED: i32 = 10;

/// What an image becomes.
#[derive(Debug)]
pub(crate) enum Rendered {
    /// It is small enough as it is.
    Original,
    /// A smaller one.
    Smaller(Picture),
}

/// An encoded image.
#[derive(Debug)]
pub(crate) struct Picture {
    pub content: Vec<u8>,
    pub content_type: &'static str,
}

/// Why there is no thumbnail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It is no image, or of a kind that is not known here.
    #[error("there are no thumbnails of such content")]
    Unsupported,
    /// It is not what its head says.
    #[error("the image is broken: {0}")]
    Broken(String),
    /// It has too many pixels.
    #[error("the image has {0} pixels, which is too many")]
    TooLarge(u64),
}

/// Width and height of an image, and what it is, by its head only; none where it is none.
pub(crate) fn dimensions(content: &[u8]) -> Option<((u32, u32), &'static str)> {
    let format = supported(content).ok()?;
    let size = ImageReader::with_format(Cursor::new(content), format).into_dimensions().ok()?;
    Some((size, format.to_mime_type()))
}

/// Makes the thumbnail of an image of at most `pixels_max` pixels. Takes a while: not for a thread
/// that others wait for.
pub(crate) fn render(
    content: &[u8],
    wanted: &Wanted,
    pixels_max: u64,
) -> Result<Rendered, RenderError> {
    let format = supported(content)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(pixels_max.saturating_mul(BYTES_PER_PIXEL));
    let mut reader = ImageReader::with_format(Cursor::new(content), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > pixels_max {
        return Err(RenderError::TooLarge(pixels));
    }
    let moving = Moving::of(content, format);
    if let Some(moving) = moving
        && wanted.motion() == Motion::Animated
    {
        let Some(target) = wanted.target((width, height)) else { return Ok(Rendered::Original) };
        if let Some(picture) = moving.render(target, pixels, pixels_max)? {
            return Ok(Rendered::Smaller(picture));
        }
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    match wanted.target((image.width(), image.height())) {
        Some(target) => image = resize(image, target),
        // What may not move, or is not as it lies in the file, is no original.
        None if Moving::of(content, format).is_none() => return Ok(Rendered::Original),
        None => {}
    }
    encode(&image, format).map(Rendered::Smaller)
}

fn supported(content: &[u8]) -> Result<ImageFormat, RenderError> {
    let format = image::guess_format(content).map_err(|_| RenderError::Unsupported)?;
    let known = matches!(
        format,
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP
    );
    if known { Ok(format) } else { Err(RenderError::Unsupported) }
}

fn broken(error: ImageError) -> RenderError {
    match error {
        ImageError::Unsupported(_) => RenderError::Unsupported,
        other => RenderError::Broken(other.to_string()),
    }
}

fn resize(image: DynamicImage, Target { scaled, cut }: Target) -> DynamicImage {
    let (width, height) = scaled;
    // A fast and coarse step for most of the way, a good one for the rest.
    let twice = (width.saturating_mul(2), height.saturating_mul(2));
    let near =
        image.width() > twice.0.saturating_mul(2) && image.height() > twice.1.saturating_mul(2);
    let image = if near { image.thumbnail_exact(twice.0, twice.1) } else { image };
    let image = image.resize_exact(width, height, FilterType::CatmullRom);
    if scaled == cut {
        return image;
    }
    let (left, top) = ((width - cut.0) / 2, (height - cut.1) / 2);
    image.crop_imm(left, top, cut.0, cut.1)
}

/// Photographs become JPEG, what may have transparency or hard edges PNG.
fn encode(image: &DynamicImage, from: ImageFormat) -> Result<Picture, RenderError> {
    let mut content = Cursor::new(Vec::new());
    let has_alpha = image.color().has_alpha();
    let photograph = match from {
        ImageFormat::Jpeg => true,
        ImageFormat::WebP => !has_alpha,
        _ => false,
    };
    let format = if photograph { ImageFormat::Jpeg } else { ImageFormat::Png };
    if photograph {
        let encoder = JpegEncoder::new_with_quality(&mut content, JPEG_QUALITY);
        image.to_rgb8().write_with_encoder(encoder).map_err(broken)?;
    } else if has_alpha {
        image.to_rgba8().write_to(&mut content, format).map_err(broken)?;
    } else {
        image.to_rgb8().write_to(&mut content, format).map_err(broken)?;
    }
    Ok(Picture { content: content.into_inner(), content_type: format.to_mime_type() })
}

/// An image of more than one frame.
enum Moving<'a> {
    Gif(Box<GifDecoder<Cursor<&'a [u8]>>>),
    Png(Box<PngDecoder<Cursor<&'a [u8]>>>),
    WebP(Box<WebPDecoder<Cursor<&'a [u8]>>>),
}

impl<'a> Moving<'a> {
    fn of(content: &'a [u8], format: ImageFormat) -> Option<Self> {
        let cursor = || Cursor::new(content);
        match format {
            ImageFormat::Gif => {
                let frames = GifDecoder::new(cursor()).ok()?.into_frames();
                let several = frames.take(2).filter(Result::is_ok).count() == 2;
                several
                    .then(|| GifDecoder::new(cursor()).ok().map(Box::new).map(Self::Gif))
                    .flatten()
            }
            ImageFormat::Png => {
                let decoder = PngDecoder::new(cursor()).ok()?;
                decoder.is_apng().ok()?.then(|| Self::Png(Box::new(decoder)))
            }
            ImageFormat::WebP => {
                let decoder = WebPDecoder::new(cursor()).ok()?;
                decoder.has_animation().then(|| Self::WebP(Box::new(decoder)))
            }
            _ => None,
        }
    }

    /// The smaller animation; none where it would cost too much, or cannot be decoded.
    fn render(
        self,
        target: Target,
        pixels: u64,
        pixels_max: u64,
    ) -> Result<Option<Picture>, RenderError> {
        let frames = match self {
            Self::Gif(decoder) => (*decoder).into_frames(),
            Self::Png(decoder) => (*decoder).apng().map_err(broken)?.into_frames(),
            Self::WebP(decoder) => (*decoder).into_frames(),
        };
        let mut content = Vec::new();
        let mut encoder = GifEncoder::new_with_speed(&mut content, GIF_SPEED);
        encoder.set_repeat(Repeat::Infinite).map_err(broken)?;
        let mut decoded = 0_u64;
        for (number, frame) in frames.enumerate() {
            decoded = decoded.saturating_add(pixels);
            if number >= FRAMES_MAX || decoded > pixels_max.saturating_mul(ANIMATION_FACTOR) {
                return Ok(None);
            }
            let Ok(frame) = frame else { return Ok(None) };
            let delay = frame.delay();
            let image = resize(DynamicImage::ImageRgba8(frame.into_buffer()), target);
            let frame = Frame::from_parts(image.into_rgba8(), 0, 0, delay);
            encoder.encode_frame(frame).map_err(broken)?;
        }
        drop(encoder);
        Ok(Some(Picture { content, content_type: "image/gif" }))
    }
}

#[cfg(test)]
mod tests {
    use image::{Delay, Rgba, RgbaImage};

    use super::{super::size::Method, *};

    const PIXELS_MAX: u64 = 4_000_000;

    fn wanted(method: Method, motion: Motion) -> Wanted {
        Wanted::new(32, 32, method, motion).unwrap()
    }

    fn picture(rendered: Result<Rendered, RenderError>) -> Picture {
        match rendered.unwrap() {
            Rendered::Smaller(picture) => picture,
            Rendered::Original => panic!("it is small enough"),
        }
    }

    fn image(width: u32, height: u32) -> RgbaImage {
        RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8, y as u8, 99, 255]))
    }

    fn encoded(image: &RgbaImage, format: ImageFormat) -> Vec<u8> {
        let mut content = Cursor::new(Vec::new());
        let image = DynamicImage::ImageRgba8(image.clone());
        match format {
            ImageFormat::Jpeg => image.to_rgb8().write_to(&mut content, format).unwrap(),
            _ => image.write_to(&mut content, format).unwrap(),
        }
        content.into_inner()
    }

    fn animation() -> Vec<u8> {
        let mut content = Vec::new();
        let mut encoder = GifEncoder::new(&mut content);
        for shade in [0, 128, 255] {
            let frame = RgbaImage::from_pixel(200, 100, Rgba([shade, 0, 0, 255]));
            let delay = Delay::from_numer_denom_ms(100, 1);
            encoder.encode_frame(Frame::from_parts(frame, 0, 0, delay)).unwrap();
        }
        drop(encoder);
        content
    }

    #[test]
    fn every_format_becomes_one_that_all_clients_show() {
        for (format, becomes) in [
            (ImageFormat::Png, "image/png"),
            (ImageFormat::Jpeg, "image/jpeg"),
            (ImageFormat::Gif, "image/png"),
            (ImageFormat::WebP, "image/png"),
        ] {
            let content = encoded(&image(400, 200), format);
            for (method, size) in [(Method::Crop, (32, 32)), (Method::Scale, (32, 16))] {
                let made = picture(render(&content, &wanted(method, Motion::Animated), PIXELS_MAX));
                assert_eq!(made.content_type, becomes, "{format:?}");
                assert_eq!(dimensions(&made.content), Some((size, becomes)), "{format:?}");
            }
        }
    }

    #[test]
    fn an_animation_moves_only_where_it_may() {
        let content = animation();
        let made = picture(render(&content, &wanted(Method::Scale, Motion::Animated), PIXELS_MAX));
        let frames = GifDecoder::new(Cursor::new(&made.content)).unwrap().into_frames();
        assert_eq!((made.content_type, frames.count()), ("image/gif", 3));
        let still = picture(render(&content, &wanted(Method::Scale, Motion::Still), PIXELS_MAX));
        assert_eq!(still.content_type, "image/png");
        // Nor does one that is small enough already.
        let large = Wanted::new(640, 480, Method::Scale, Motion::Still).unwrap();
        assert_eq!(picture(render(&content, &large, PIXELS_MAX)).content_type, "image/png");
        let large = Wanted::new(640, 480, Method::Scale, Motion::Animated).unwrap();
        assert!(matches!(render(&content, &large, PIXELS_MAX), Ok(Rendered::Original)));
        // One that would cost too much is still.
        let dear =
            picture(render(&content, &wanted(Method::Scale, Motion::Animated), 20_000 / 4 * 4));
        assert_eq!(dear.content_type, "image/gif");
    }

    #[test]
    fn what_is_small_is_left_as_it_is() {
        let content = encoded(&image(20, 10), ImageFormat::Png);
        let wanted = wanted(Method::Crop, Motion::Still);
        assert!(matches!(render(&content, &wanted, PIXELS_MAX), Ok(Rendered::Original)));
    }

    #[test]
    fn images_that_lie_about_their_size_are_refused_before_they_cost_anything() {
        let wanted = wanted(Method::Scale, Motion::Still);
        let mut bomb = encoded(&image(100, 100), ImageFormat::Png);
        // Width and height in the head of a PNG, and the checksum that they need.
        bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        let refused = render(&bomb, &wanted, PIXELS_MAX).unwrap_err();
        assert_eq!(refused, RenderError::TooLarge(3_600_000_000));
        // Bearable, but there is less than it says.
        bomb[16..20].copy_from_slice(&1000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&1000_u32.to_be_bytes());
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert!(matches!(render(&bomb, &wanted, PIXELS_MAX), Err(RenderError::Broken(_))));
    }

    #[test]
    fn what_is_broken_or_no_image_is_refused() {
        let wanted = wanted(Method::Scale, Motion::Animated);
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let content = encoded(&image(300, 300), format);
            for length in [4, 12, 40, content.len() / 2] {
                // A part of an image may be shown by a lenient decoder, but nothing panics.
                drop(render(&content[..length], &wanted, PIXELS_MAX));
            }
        }
        for no_image in [&b"<svg onload=alert(1)>"[..], b"%PDF-1.7", b"", b"\0\0\0 ftypavif"] {
            assert_eq!(
                render(no_image, &wanted, PIXELS_MAX).unwrap_err(),
                RenderError::Unsupported
            );
        }
        // A page behind the head of a GIF is a broken GIF, whatever it is called.
        let polyglot = b"GIF89a/*\x01\x00<script>alert(1)</script>*/=1;";
        assert!(matches!(
            render(polyglot, &wanted, PIXELS_MAX),
            Err(RenderError::Broken(_) | RenderError::TooLarge(_))
        ));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 }
            })
        })
    }
}
