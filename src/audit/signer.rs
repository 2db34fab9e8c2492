//! The key in the token that signs for the tree.
//!
//! It is made with the tree: the intent is written first, then the key is made, then its public half
//! is written, so that a start that broke off leaves no key behind that nobody knows.

use super::Error;
use super::checkpoint::PUBLIC_KEY;
use super::delegate::Delegate;
use super::follow;
use super::note::Verifier;
use super::statement;
use super::tiles;
use super::tree::{Head, Tree};
use crate::clock::{Random, random_bytes};
use crate::custody::tokens::Tokens;
use crate::custody::{self, TokenKey, lane::Lane};
use crate::name::BackingKeyId;
use crate::store::audit::{Seal, SignedHead};
use crate::store::records::Records;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A key in the token.
pub(super) struct Signer {
    tokens: Tokens,
    seal: Seal,
    public: Vec<u8>,
    key: Verifier,
    random: Arc<dyn Random>,
    records: Records,
    /// The key that signs for a slow token.
    delegate: Mutex<Option<Delegate>>,
}

impl Signer {
    /// The signer of the tree in `dir`; makes its key if there is none. Nothing if the token can't
    /// sign.
    ///
    /// # Errors
    /// [`Error::Altered`] if the database does not know the tree that is there, [`Error::Signing`]
    /// if the token fails, [`Error::Io`] if database or disk do.
    pub(super) async fn open(
        tokens: &Tokens,
        records: &Records,
        source: &Arc<dyn Random>,
        (region, dir): (&str, &Path),
    ) -> Result<Option<Self>, Error> {
        let random = &**source;
        let known = records.read(|rows| rows.seal()).map_err(|e| Error::database(&e))?;
        let known = match known {
            Some(seal) if !tokens.knows(&seal.token) => set_aside(&seal, dir).map(|()| None)?,
            known => known,
        };
        let there = Tree::exists(dir)?;
        let seal = match known {
            Some(seal) if there && seal.public.is_some() => seal,
            Some(seal) if seal.public.is_some() => {
                renew(records, random, seal, region, dir).await?
            }
            None if there => return Err(Error::altered(dir, "the database knows no tree there")),
            begun => match make(tokens, records, random, begun).await? {
                Some(seal) => seal,
                None => return Ok(None),
            },
        };
        let name = origin(region, &seal.tree);
        let public = seal.public.as_deref().and_then(bytes).unwrap_or_default();
        let key = Verifier::new(&name, seal.scheme, &public);
        let key = key.ok_or_else(|| Error::signing("its public key in the database is damaged"))?;
        tiles::write(&dir.join(PUBLIC_KEY), format!("{key}\n").as_bytes(), true)?;
        let (tokens, random, records) = (tokens.clone(), source.clone(), records.clone());
        let delegate = Mutex::default();
        Ok(Some(Self { tokens, seal, public, key, random, records, delegate }))
    }

    /// The key that checks its signatures, under the tree's name.
    pub(super) fn key(&self) -> &Verifier {
        &self.key
    }

    /// What the database says was signed for when an earlier process last noted it: whoever can
    /// change the log's files can't change that.
    pub(super) fn noted(&self) -> Option<Head> {
        let head = self.seal.head.as_ref()?;
        let root = bytes(&head.root)?.try_into().ok()?;
        Some(Head { size: head.size, root })
    }

    /// Notes in the database what was signed for.
    pub(super) async fn note_head(&self, head: Head) -> Result<(), Error> {
        let signed = SignedHead { size: head.size, root: hex(&head.root) };
        put(&self.records, &Seal { head: Some(signed), ..self.seal.clone() }).await
    }

    /// The note of a checkpoint's text, at `now` (seconds since the epoch).
    pub(super) async fn note(&self, text: String, now: i64) -> Result<String, Error> {
        if self.tokens.of(&self.seal.token).is_ok_and(Lane::signs_slowly) {
            return self.delegated(&text, now).await;
        }
        let signature = self.sign(&text).await.map_err(|e| token(&e))?;
        Ok(format!("{text}\n{}", self.key.line(&signature)))
    }

    /// The note of a statement, always by the token itself.
    pub(super) async fn state(&self, statement: &str) -> Result<String, custody::Error> {
        let text = statement::text(self.key.name(), statement);
        let signature = self.sign(&text).await?;
        Ok(format!("{text}\n{}", self.key.line(&signature)))
    }

    /// The same by a key that the token has certified. It is renewed early, so that a token may be
    /// away for some hours.
    async fn delegated(&self, text: &str, now: i64) -> Result<String, Error> {
        let mut current = self.delegate.lock().await;
        if current.as_ref().is_none_or(|delegate| delegate.is_old(now)) {
            let sign = |text: String| async move {
                let made = self.sign(&text).await.map_err(|e| token(&e))?;
                Ok(self.key.signature(&made))
            };
            match Delegate::certified(self.key.name(), &*self.random, now, sign).await {
                Ok(fresh) => *current = Some(fresh),
                Err(error) if current.as_ref().is_none_or(|d| d.left(now) <= 0) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, "the key for checkpoints could not be renewed yet");
                }
            }
        }
        let note = current.as_ref().map(|delegate| delegate.note(text));
        note.ok_or_else(|| Error::signing("there is no key"))
    }

    /// A signature of 64 bytes.
    async fn sign(&self, text: &str) -> Result<Vec<u8>, custody::Error> {
        let Seal { key, scheme, wrapped, token, .. } = &self.seal;
        let key = TokenKey { id: *key, wrapped: wrapped.clone() };
        let (public, message) = (self.public.clone(), text.as_bytes().to_vec());
        self.tokens.of(token)?.sign(key, *scheme, public, message).await
    }
}

/// The name of a tree: what a checkpoint begins with.
fn origin(region: &str, tree: &str) -> String {
    format!("strongroom/{region}/{tree}")
}

/// Another tree under the same key: that of the database is gone from the disk. It has a name of its
/// own, so that nobody takes its checkpoints for those of the lost one.
async fn renew(
    records: &Records,
    random: &dyn Random,
    lost: Seal,
    region: &str,
    dir: &Path,
) -> Result<Seal, Error> {
    let seal = Seal { tree: tree_id(random)?, head: None, ..lost.clone() };
    let (lost, begun) = (origin(region, &lost.tree), origin(region, &seal.tree));
    let dir = dir.display();
    tracing::error!("the audit tree `{lost}` is gone from `{dir}`; another one begins, `{begun}`");
    put(records, &seal).await?;
    Ok(seal)
}

/// Moves a tree away that nobody can sign for any more, because its token is gone for good. What was
/// signed of it stays evidence; another tree, of another key, begins behind what the log holds.
fn set_aside(lost: &Seal, dir: &Path) -> Result<(), Error> {
    let (token, tree) = (&lost.token, &lost.tree);
    tracing::error!(token, "the token that signed for the audit tree `{tree}` is gone for good");
    let mut aside = dir.as_os_str().to_owned();
    aside.push(format!("-{tree}"));
    let aside = Path::new(&aside);
    if Tree::exists(dir)? {
        std::fs::rename(dir, aside).map_err(|e| Error::io(dir, &e))?;
    }
    // Also if an earlier start has come no further than that.
    if Tree::exists(aside)? {
        follow::take_along(aside, dir)?;
        tracing::error!("what it had signed is in `{}`; another tree begins", aside.display());
    }
    Ok(())
}

/// Makes the key, or finishes what `begun` says; nothing if the token can't sign.
async fn make(
    tokens: &Tokens,
    records: &Records,
    random: &dyn Random,
    begun: Option<Seal>,
) -> Result<Option<Seal>, Error> {
    if let Some(begun) = &begun {
        match tokens.of(&begun.token).map_err(|e| token(&e))?.destroy(begun.key).await {
            Ok(()) | Err(custody::Error::KeyNotFound(_)) => {}
            Err(error) => return Err(token(&error)),
        }
    }
    let lane = tokens.main().map_err(|e| token(&e))?;
    let Some(scheme) = lane.signing().first().copied() else {
        let profile = lane.profile();
        tracing::warn!(profile, "the token can't sign: the audit log has no checkpoints");
        return Ok(None);
    };
    let key = BackingKeyId(random_bytes(random).map_err(|_| Error::signing("no randomness"))?);
    let (tree, serial) = (tree_id(random)?, lane.info().serial.clone());
    let mut seal =
        Seal { tree, key, scheme, token: serial, wrapped: None, public: None, head: None };
    put(records, &seal).await?;
    let made = lane.generate_signer(key, scheme).await.map_err(|e| token(&e))?;
    (seal.public, seal.wrapped) = (Some(hex(&made.public)), made.wrapped);
    put(records, &seal).await?;
    Ok(Some(seal))
}

async fn put(records: &Records, seal: &Seal) -> Result<(), Error> {
    let seal = seal.clone();
    let written = records.write(move |rows| rows.put_seal(&seal)).await;
    written.map_err(|e: crate::store::Error| Error::database(&e))
}

fn tree_id(random: &dyn Random) -> Result<String, Error> {
    Ok(hex(&random_bytes::<8>(random).map_err(|_| Error::signing("no randomness"))?))
}

fn token(error: &custody::Error) -> Error {
    Error::signing(&error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}
