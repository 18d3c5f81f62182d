//! Media. Most of what is uploaded here is JSON, which is content as any other; more of pictures and
//! pages is in `tests/server/media`.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use serde_json::json;

use super::{
    cases,
    world::{PAGES, World, text},
};

const UPLOAD: &str = "/_matrix/media/v3/upload";
const MEDIA: &str = "/_matrix/client/v1/media";
const LEGACY: &str = "/_matrix/media/v3";

/// Something that alice has uploaded, as `server/media ID`.
async fn uploaded(w: &World) -> String {
    let answer = w.alice.post(UPLOAD, json!({"some": "content"})).await.ok();
    text(&answer["content_uri"]).replace("mxc://", "")
}

/// What is served for a picture of 200 × 100 pixels that alice has uploaded, by an endpoint that makes
/// smaller ones: width and height.
async fn smaller(w: &World, endpoint: &str) -> (u32, u32) {
    let mut picture = Cursor::new(Vec::new());
    RgbImage::new(200, 100).write_to(&mut picture, ImageFormat::Png).expect("a picture");
    let medium = w.alice.upload("image/png", picture.into_inner()).await;
    let path = format!("{endpoint}/{medium}?width=32&height=32&method=crop");
    let answer = w.bob.read(&path).await;
    let picture = image::load_from_memory(answer.body()).expect("a picture");
    (picture.width(), picture.height())
}

cases! {
    getContentAuthed(w) {
        let path = format!("{MEDIA}/download/{}", uploaded(w).await);
        assert_eq!(w.bob.get(&path).await.ok(), json!({"some": "content"}));
        w.bob.get(&format!("{MEDIA}/download/test/none")).await.refused(404, "M_NOT_FOUND");
    }
    getContentOverrideNameAuthed(w) {
        let path = format!("{MEDIA}/download/{}/name.json", uploaded(w).await);
        assert_eq!(w.bob.get(&path).await.ok(), json!({"some": "content"}));
        w.nobody.get(&path).await.refused(401, "M_MISSING_TOKEN");
    }
    getConfigAuthed(w) {
        let path = format!("{MEDIA}/config");
        assert_eq!(w.bob.get(&path).await.ok(), json!({"m.upload.size": 52_428_800}));
        w.nobody.get(&path).await.refused(401, "M_MISSING_TOKEN");
    }
    getConfig(w) {
        let path = "/_matrix/media/v3/config";
        assert_eq!(w.bob.get(path).await.ok(), json!({"m.upload.size": 52_428_800}));
        w.nobody.get(path).await.refused(401, "M_MISSING_TOKEN");
    }
    uploadContent(w) {
        let path = format!("{MEDIA}/download/{}", uploaded(w).await);
        assert_eq!(w.alice.get(&path).await.ok(), json!({"some": "content"}));
        w.nobody.post(UPLOAD, json!({})).await.refused(401, "M_MISSING_TOKEN");
    }
    createContent(w) {
        let created = w.alice.post("/_matrix/media/v1/create", json!({})).await.ok();
        let medium = text(&created["content_uri"]).replace("mxc://", "");
        let path = format!("{MEDIA}/download/{medium}?timeout_ms=0");
        w.alice.get(&path).await.refused(504, "M_NOT_YET_UPLOADED");
        w.nobody.post("/_matrix/media/v1/create", json!({})).await.refused(401, "M_MISSING_TOKEN");
    }
    uploadContentToMXC(w) {
        let created = w.alice.post("/_matrix/media/v1/create", json!({})).await.ok();
        let medium = text(&created["content_uri"]).replace("mxc://", "");
        let path = format!("{UPLOAD}/{medium}");
        w.bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
        w.alice.put(&path, json!({"later": 1})).await.ok();
        let download = format!("{MEDIA}/download/{medium}");
        assert_eq!(w.bob.get(&download).await.ok(), json!({"later": 1}));
        w.alice.put(&path, json!({})).await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    }
    getContentThumbnailAuthed(w) {
        let endpoint = format!("{MEDIA}/thumbnail");
        assert_eq!(smaller(w, &endpoint).await, (32, 32));
        let path = format!("{endpoint}/{}?width=32&height=32", uploaded(w).await);
        w.bob.get(&path).await.refused(400, "M_UNKNOWN");
    }
    getUrlPreviewAuthed(w) {
        let path = format!("{MEDIA}/preview_url?url=https://{PAGES}/page");
        assert_eq!(w.bob.get(&path).await.ok()["og:title"], "About wombles");
        w.nobody.get(&path).await.refused(401, "M_MISSING_TOKEN");
    }
    getContent(w) {
        let path = format!("{LEGACY}/download/{}", uploaded(w).await);
        assert_eq!(w.nobody.get(&path).await.ok(), json!({"some": "content"}));
        w.nobody.get(&format!("{LEGACY}/download/test/none")).await.refused(404, "M_NOT_FOUND");
    }
    getContentOverrideName(w) {
        let path = format!("{LEGACY}/download/{}/name.json", uploaded(w).await);
        let answer = w.nobody.get(&path).await;
        assert_eq!(answer.headers["content-disposition"], "attachment; filename=name.json");
        assert_eq!(answer.ok(), json!({"some": "content"}));
        let path = format!("{LEGACY}/download/test/none/name.json");
        w.nobody.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    getContentThumbnail(w) {
        let endpoint = format!("{LEGACY}/thumbnail");
        assert_eq!(smaller(w, &endpoint).await, (32, 32));
        let path = format!("{endpoint}/test/none?width=32&height=32");
        w.nobody.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    getUrlPreview(w) {
        let path = format!("{LEGACY}/preview_url?url=https://{PAGES}/page");
        assert_eq!(w.bob.get(&path).await.ok()["og:title"], "About wombles");
        w.nobody.get(&path).await.refused(401, "M_MISSING_TOKEN");
    }
}
