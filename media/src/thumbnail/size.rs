//! How large a thumbnail is (spec: Client-Server API, Thumbnails).

/// Thumbnails are at least as large as asked for, along their longer edge one of these.
const EDGES: [u32; 13] = [32, 48, 64, 96, 128, 192, 256, 320, 480, 640, 800, 1024, 1600];

/// How an image becomes smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It fills what is asked for; what stands over is cut off.
    Crop,
    /// It fits into what is asked for.
    Scale,
}

/// Whether a thumbnail may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// It may not.
    Still,
    /// It does if the image does.
    Animated,
}

/// What thumbnail is wanted, one of a bounded number for each shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    width: u32,
    height: u32,
    method: Method,
    motion: Motion,
}

/// A size that no thumbnail has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("width and height must be above 0")]
pub struct InvalidSize;

/// The image is first made to fit `scaled`, then cut to `cut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub scaled: (u32, u32),
    pub cut: (u32, u32),
}

impl Wanted {
    /// A thumbnail of about this size: of the same shape, and no smaller unless that is more than
    /// any thumbnail has.
    ///
    /// # Errors
    /// Where width or height is 0.
    pub fn new(
        width: u64,
        height: u64,
        method: Method,
        motion: Motion,
    ) -> Result<Self, InvalidSize> {
        let longest = width.max(height);
        if width == 0 || height == 0 {
            return Err(InvalidSize);
        }
        let edge = EDGES.into_iter().find(|edge| u64::from(*edge) >= longest);
        let edge = u64::from(edge.unwrap_or(EDGES[EDGES.len() - 1]));
        let fit = |length: u64| {
            let fitted = u128::from(length) * u128::from(edge) / u128::from(longest);
            u32::try_from(fitted).unwrap_or(u32::MAX).max(1)
        };
        Ok(Self { width: fit(width), height: fit(height), method, motion })
    }

    /// Its key among the thumbnails of an image.
    pub(super) fn key(&self) -> (u32, u32, u8) {
        let method = u8::from(self.method == Method::Crop);
        let motion = u8::from(self.motion == Motion::Animated) << 1;
        (self.width, self.height, method | motion)
    }

    /// Width and height.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// How an image becomes it.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Whether it may move.
    #[must_use]
    pub fn motion(&self) -> Motion {
        self.motion
    }

    /// What becomes of an image of this size; none where it is small enough as it is.
    pub(super) fn target(&self, (width, height): (u32, u32)) -> Option<Target> {
        if width <= self.width && height <= self.height {
            return None;
        }
        let (across, down) =
            (f64::from(self.width) / f64::from(width), f64::from(self.height) / f64::from(height));
        let factor = match self.method {
            Method::Scale => across.min(down),
            Method::Crop => across.max(down).min(1.0), // never larger than it is
        };
        let scale = |length: u32| ((f64::from(length) * factor).round() as u32).clamp(1, length);
        let scaled = (scale(width), scale(height));
        let cut = match self.method {
            Method::Scale => scaled,
            Method::Crop => (scaled.0.min(self.width), scaled.1.min(self.height)),
        };
        Some(Target { scaled, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(size: (u64, u64), method: Method, image: (u32, u32)) -> Option<(u32, u32)> {
        let wanted = Wanted::new(size.0, size.1, method, Motion::Still).unwrap();
        wanted.target(image).map(|target| target.cut)
    }

    #[test]
    fn the_sizes_of_the_specification_are_met_exactly() {
        for size in [(32, 32), (96, 96)] {
            let cut = (size.0 as u32, size.1 as u32);
            assert_eq!(target(size, Method::Crop, (4000, 3000)), Some(cut));
        }
        for size in [(320, 240), (640, 480), (800, 600)] {
            let fit = (size.0 as u32, size.1 as u32);
            assert_eq!(target(size, Method::Scale, (4000, 3000)), Some(fit));
        }
    }

    #[test]
    fn a_thumbnail_is_never_larger_than_its_image_and_never_smaller_than_asked_for() {
        assert_eq!(target((100, 100), Method::Scale, (90, 20)), None);
        assert_eq!(target((33, 33), Method::Crop, (1000, 1000)), Some((48, 48)));
        assert_eq!(target((40, 20), Method::Crop, (1000, 1000)), Some((48, 24)));
        assert_eq!(target((96, 96), Method::Crop, (1000, 20)), Some((96, 20)), "cut, not enlarged");
        assert_eq!(target((96, 96), Method::Scale, (10_000, 1)), Some((96, 1)));
        assert_eq!(target((90_000, 90_000), Method::Scale, (3200, 1600)), Some((1600, 800)));
        assert_eq!(Wanted::new(0, 5, Method::Crop, Motion::Still), Err(InvalidSize));
        let most = Wanted::new(u64::MAX, 1, Method::Crop, Motion::Animated).unwrap();
        assert_eq!(most.key(), (1600, 1, 3));
    }
}
