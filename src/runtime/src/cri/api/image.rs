//! Images.

use super::{Int64Value, stats::FilesystemUsage};

/// Names an image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    /// By name or id.
    #[prost(string, tag = "1")]
    pub image: String,
    /// As the pod has it.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

/// An image that is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    /// Digest of its configuration.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `name:tag` names.
    #[prost(string, repeated, tag = "2")]
    pub repo_tags: Vec<String>,
    /// `name@digest` names.
    #[prost(string, repeated, tag = "3")]
    pub repo_digests: Vec<String>,
    /// Bytes.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// Its user by number.
    #[prost(message, optional, tag = "5")]
    pub uid: Option<Int64Value>,
    /// Its user by name.
    #[prost(string, tag = "6")]
    pub username: String,
    /// Not to be removed.
    #[prost(bool, tag = "8")]
    pub pinned: bool,
}

/// Asks for images.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListImagesRequest {}

/// Images.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListImagesResponse {
    /// All of them.
    #[prost(message, repeated, tag = "1")]
    pub images: Vec<Image>,
}

/// Names an image: in requests for its status and its removal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub image: Option<ImageSpec>,
}

/// An image, or none of this name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageStatusResponse {
    /// It.
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}

/// Where images are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageFsInfoResponse {
    /// The file systems that have them.
    #[prost(message, repeated, tag = "1")]
    pub image_filesystems: Vec<FilesystemUsage>,
}

/// What opens a registry. Not `Debug` by derive: it would be logged some day.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AuthConfig {
    /// Basic authentication.
    #[prost(string, tag = "1")]
    pub username: String,
    /// Basic authentication.
    #[prost(string, tag = "2")]
    pub password: String,
    /// Bearer.
    #[prost(string, tag = "6")]
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Fetches an image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullImageRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub image: Option<ImageSpec>,
    /// With what.
    #[prost(message, optional, tag = "2")]
    pub auth: Option<AuthConfig>,
}

/// It is here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullImageResponse {
    /// Its id or its name with the digest.
    #[prost(string, tag = "1")]
    pub image_ref: String,
}
