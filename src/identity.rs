//! The name and key under which the server speaks.

use std::{fs, io, path::Path, path::PathBuf, sync::Arc};

use futures::FutureExt;
use millrace_domain::{Identity, Random};
use millrace_model::rules::signing_key::{InvalidSigningKey, ServerSigningKey};
use millrace_store::{Node, Read, Store, tables::ABOUT};
use ruma::ServerName;

/// Where a key made by us lies in [`ABOUT`].
const KEY_ROW: &str = "signing_key";

/// Why the server does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The configured file cannot be read.
    #[error(
        "signing_key_path: {path} cannot be read ({source}); make a key with \
         `millrace generate-key --output FILE`, or remove the option to have one kept in the database"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configured file, or the row in the database, holds no key.
    #[error("the signing key in {place} is malformed: {source}")]
    Invalid {
        /// The file, or "the database".
        place: String,
        /// What is wrong with it.
        source: InvalidSigningKey,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// A new key of random bytes.
///
/// # Panics
/// Never: names are made of letters.
#[must_use]
pub fn generate(random: &dyn Random) -> ServerSigningKey {
    let (mut name, mut seed) = ([0; 4], [0; 32]);
    random.fill(&mut name);
    random.fill(&mut seed);
    let letters: String = name.map(|byte| char::from(b'a' + byte % 26)).iter().collect();
    ServerSigningKey::new(&format!("a_{letters}"), &seed).expect("letters make a key name")
}

/// The server's identity: the key in `file` if one is configured, else the one in the database,
/// which is made when there is none.
///
/// # Errors
/// A sentence that says what to do.
pub async fn load(
    store: &Store,
    random: Arc<dyn Random>,
    name: &ServerName,
    file: Option<&Path>,
) -> Result<Identity, IdentityError> {
    let key = match file {
        Some(path) => {
            let text = fs::read_to_string(path)
                .map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
            parse(&text, &path.display().to_string())?
        }
        None => parse(&kept_in(store, random).await?, "the database")?,
    };
    Ok(Identity { name: name.to_owned(), key })
}

fn parse(text: &str, place: &str) -> Result<ServerSigningKey, IdentityError> {
    ServerSigningKey::from_file_text(text)
        .map_err(|source| IdentityError::Invalid { place: place.to_owned(), source })
}

/// The text of the key in the database.
async fn kept_in(store: &Store, random: Arc<dyn Random>) -> Result<String, IdentityError> {
    let fresh = &generate(&*random).to_file_text();
    store
        .transact(|tx| {
            async move {
                if let Some(kept) = tx.get(&ABOUT, Node, KEY_ROW).await? {
                    return Ok(kept);
                }
                tx.put(&ABOUT, Node, KEY_ROW, fresh);
                Ok(fresh.clone())
            }
            .boxed()
        })
        .await
}
