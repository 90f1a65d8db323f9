//! Artifacts in a folder or a bucket, under `{id}.forest`.
//!
//! Nothing that is read is believed: its size is bounded before it is fetched, its digest must be the one that was asked for, and
//! `Model::from_bytes` checks the rest. Calls block and must not come from an async task.
//! Credentials of S3, R2 and Google Cloud Storage come from the environment under their usual names (`AWS_*`, `GOOGLE_*`); R2 is S3
//! with `AWS_ENDPOINT`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use models::Model;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::runtime::Runtime;

use super::record::{digest_of, is_id};

/// An artifact is at most this large: the largest forest of ten features that training makes is below.
pub const ARTIFACT_BYTES_MAX: u64 = 1 << 30;
/// For one artifact to be read or written.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an artifact cannot be had or used; for a person, with the name of the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArtifactFault(pub String);

/// See the module's header.
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// As people know it.
    place: String,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifacts").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Opens a folder (created if need be), or `s3://bucket/prefix`, or `gs://bucket/prefix`. A bucket is not asked for yet.
    ///
    /// # Errors
    /// Where the folder cannot be made, or the URL or its credentials cannot be read.
    pub fn open(place: &str) -> Result<Self, ArtifactFault> {
        let failed = |why: &dyn std::fmt::Display| ArtifactFault(format!("MODEL_STORE {place} cannot be used: {why}"));
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        let (store, prefix): (Arc<dyn ObjectStore>, Key) = match scheme {
            "" | "file" => {
                std::fs::create_dir_all(rest).map_err(|why| failed(&why))?;
                let folder = LocalFileSystem::new_with_prefix(Path::new(rest)).map_err(|why| failed(&why))?;
                (Arc::new(folder.with_fsync(true)), Key::default())
            }
            "s3" => {
                use_tls();
                let store = AmazonS3Builder::from_env().with_url(place).build().map_err(|why| failed(&why))?;
                (Arc::new(store), Key::from(prefix))
            }
            "gs" => {
                use_tls();
                let store = GoogleCloudStorageBuilder::from_env().with_url(place).build().map_err(|why| failed(&why))?;
                (Arc::new(store), Key::from(prefix))
            }
            _ => return Err(failed(&"a folder, s3://bucket/prefix or gs://bucket/prefix is expected")),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("artifacts").build();
        Ok(Self { store, prefix, place: place.to_owned(), runtime: Some(runtime.map_err(|why| failed(&why))?) })
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("invariant: there until it is dropped").block_on(work)
    }

    fn key(&self, id: &str) -> Key {
        self.prefix.clone().join(format!("{id}.forest"))
    }

    fn fault(&self, id: &str, why: &dyn std::fmt::Display) -> ArtifactFault {
        ArtifactFault(format!("the artifact of model {id} in {}: {why}", self.place))
    }

    /// Keeps an artifact, whole or not at all.
    ///
    /// # Errors
    /// The store's.
    pub fn put(&self, id: &str, artifact: Vec<u8>) -> Result<(), ArtifactFault> {
        let key = self.key(id);
        let put = async { tokio::time::timeout(PATIENCE, self.store.put(&key, PutPayload::from(artifact))).await };
        match self.wait(put) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(why)) => Err(self.fault(id, &why)),
            Err(_) => Err(self.fault(id, &format!("not written within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Reads an artifact and checks all of it. `digest` is the one that was registered, where it is known.
    ///
    /// # Errors
    /// What is wrong with it, or with the way to it.
    pub fn load(&self, id: &str, digest: Option<&str>) -> Result<Model, ArtifactFault> {
        if !is_id(id) {
            return Err(self.fault(id, &"16 hexadecimal digits are expected"));
        }
        let key = self.key(id);
        let get = async {
            let found = self.store.get(&key).await.map_err(|why| why.to_string())?;
            let size = found.meta.size;
            if size > ARTIFACT_BYTES_MAX {
                return Err(format!("it has {size} bytes, {ARTIFACT_BYTES_MAX} at most"));
            }
            found.bytes().await.map_err(|why| why.to_string())
        };
        let bytes = self.wait(async { tokio::time::timeout(PATIENCE, get).await });
        let bytes = bytes.unwrap_or_else(|_| Err(format!("not read within {} s", PATIENCE.as_secs())));
        let bytes = bytes.map_err(|why| self.fault(id, &why))?;
        let model = Model::from_bytes(&bytes).map_err(|why| self.fault(id, &why))?;
        if model.id != id || digest.is_some_and(|digest| digest_of(&bytes) != digest) {
            return Err(self.fault(id, &format!("it is another model, {}", model.id)));
        }
        Ok(model)
    }
}

impl Drop for Artifacts {
    /// Without waiting: the last holder may be an async task, which must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Chooses the library that does TLS's arithmetic, once in a process.
pub(crate) fn use_tls() {
    // Refused where one was chosen already: that one does.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}
