//! A lane: what stands between the reactor and one token.
//!
//! A number of servers (the permits) take requests from a bounded queue, in which callers take turns;
//! who waits too long gives up at the deadline. A token that hangs holds up its own lane and nothing
//! else, and after some requests without an answer those who come fail at once. A server for which the
//! token has no session steps back and tries again later: so the lane learns how many there are.
//!
//! A token in this process blocks whoever calls it: its servers are threads. One in a process of its
//! own is spoken to on sockets: its servers are tasks of the reactor, which costs no thread's waking.

mod options;
mod staff;

pub use options::Options;
pub(crate) use options::Settings;
pub(super) use staff::Server;

use super::profile::{MAX_RANDOM, Profile};
use super::proof::Proof;
use super::queue::{Caller, Pushed};
use super::{
    BackingKeyId, Driver, Error, Evidence, Health, KeyCheck, Made, NewSigner, Request, Response,
    Result, Scheme, SigningScheme, Token, TokenInfo, TokenKey,
};
use crate::secret::{Key, Secret};
use staff::{Job, Staff, Turn};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The longest input to [`Request::Derive`], in bytes: what the weakest token takes in one call.
pub const MAX_DERIVE_INPUT: usize = 1024;

/// The length of an uncompressed point of P-256 (SEC 1, 2.3.3), in bytes.
const POINT: usize = 65;

/// The longest ciphertext of [`Request::Unwrap`], in bytes: of an RSA key of 4,096 bits.
const MAX_CIPHERTEXT: usize = 512;

/// The longest nonce of [`Request::Attest`], in bytes: what a TPM takes (`TPM2B_DATA`).
const MAX_NONCE: usize = 64;

/// The longest message of [`Request::Sign`], in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// The way to one token. Clones share it.
///
/// Dropping the last clone ends the servers and lets go of the token. That waits for calls in
/// flight, at most one deadline, so that the library is not torn down under them: do it where
/// blocking is allowed.
#[derive(Clone)]
pub struct Lane {
    token: Arc<dyn Token>,
    profile: Arc<Profile>,
    deadline: Duration,
    /// Held by the job that makes or destroys a key. Modules are good at using keys on several sessions
    /// at once, not at making them: SoftHSM 2.6.1 mixes up the templates. And who destroys a key whose
    /// making took too long must not come before it is there, or it would stay.
    making: Arc<tokio::sync::Mutex<()>>,
    /// Dropped after the token: the order of these fields matters.
    staff: Arc<Staff>,
}

impl Lane {
    /// A lane before a token in this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the system gives no thread.
    pub(crate) fn of_driver(token: Arc<dyn Driver>, settings: Settings) -> Result<Self> {
        let staff = Staff::threads(&token, &settings)?;
        Ok(Self::new(token, staff, settings))
    }

    /// A lane before a token elsewhere. Its servers work on the reactor of who asks it first.
    pub(super) fn of_servers<S: Server>(
        token: Arc<dyn Token>,
        server: impl Fn() -> S + Send + Sync + 'static,
        settings: Settings,
    ) -> Self {
        let staff = Staff::tasks(Arc::clone(&token), server, &settings);
        Self::new(token, staff, settings)
    }

    fn new(token: Arc<dyn Token>, staff: Staff, settings: Settings) -> Self {
        let Settings { profile, deadline, .. } = settings;
        Self { token, profile, deadline, making: Arc::default(), staff: Arc::new(staff) }
    }

    /// Asks the token and waits for the answer, at most until the deadline. Runs on a tokio runtime
    /// with timers.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a request out of bounds, [`Error::Unavailable`] if the token has
    /// stopped answering, both at once; [`Error::Overloaded`] if the queue is full and this caller has
    /// most in it; [`Error::Timeout`] at the deadline, and for what makes or destroys a key also if
    /// the token is not through with another such by then; else the token's answer. A request that had
    /// begun when its deadline passed may still take effect: whoever makes or destroys keys notes the
    /// intent first.
    pub async fn call(&self, request: Request) -> Result<Response> {
        let turn = if request.changes_keys() { Some(self.turn().await?) } else { None };
        self.ask(request, turn).await
    }

    /// A turn to make or destroy a key: no other begins until the token is through with it, whether
    /// or not this caller still waits.
    async fn turn(&self) -> Result<Turn> {
        let turn = Arc::clone(&self.making).lock_owned();
        let turn = tokio::time::timeout(self.deadline, turn).await;
        turn.map_err(|_| Error::Timeout(self.label()))
    }

    /// [`Lane::call`]; the turn ends with the job.
    async fn ask(&self, request: Request, turn: Option<Turn>) -> Result<Response> {
        within_bounds(&request)?;
        let now = Instant::now();
        if !self.staff.hall.breaker.admits(now) {
            let why = "it has stopped answering; it is tried again every second".into();
            return Err(Error::Unavailable { token: self.label(), why });
        }
        self.staff.begin();
        let deadline = now + self.deadline;
        let (reply, answer) = oneshot::channel();
        let caller = CALLER.try_with(|caller| *caller).unwrap_or_default();
        match self.staff.hall.queue.push(caller, Job { request, deadline, reply, _turn: turn }) {
            Pushed::Taken => {}
            Pushed::InPlaceOf(job) => drop(job.reply.send(Err(Error::Overloaded(self.label())))),
            Pushed::Full(_) => return Err(Error::Overloaded(self.label())),
            Pushed::Closed(_) => return Err(self.stopped()),
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if Instant::now() < deadline => Err(self.stopped()),
            Ok(Err(_)) | Err(_) => {
                let seated = self.staff.hall.seated.load(Ordering::Relaxed);
                self.staff.hall.breaker.missed(Instant::now(), seated);
                Err(Error::Timeout(self.label()))
            }
        }
    }

    /// The message secret of an envelope: [`Request::Derive`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn derive(&self, key: TokenKey, check: KeyCheck, input: Vec<u8>) -> Result<Key> {
        self.secret(Request::Derive { key, check, input }).await
    }

    /// What two keys agree on: [`Request::Agree`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn agree(&self, key: TokenKey, check: KeyCheck, peer: Vec<u8>) -> Result<Key> {
        self.secret(Request::Agree { key, check, peer }).await
    }

    /// What is encrypted for a key: [`Request::Unwrap`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn unwrap(&self, key: TokenKey, check: KeyCheck, ciphertext: Vec<u8>) -> Result<Key> {
        self.secret(Request::Unwrap { key, check, ciphertext }).await
    }

    async fn secret(&self, request: Request) -> Result<Key> {
        match self.call(request).await? {
            Response::MessageSecret(key) => Ok(key),
            _ => Err(self.confused()),
        }
    }

    /// Makes a key: [`Request::Generate`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn generate(&self, id: BackingKeyId, scheme: Scheme) -> Result<Made> {
        self.made(Request::Generate { id, scheme }).await
    }

    /// Brings in a key: [`Request::Import`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn import(&self, id: BackingKeyId, scheme: Scheme, material: Key) -> Result<Made> {
        self.made(Request::Import { id, scheme, material }).await
    }

    async fn made(&self, request: Request) -> Result<Made> {
        match self.call(request).await? {
            Response::Made(made) => Ok(made),
            _ => Err(self.confused()),
        }
    }

    /// Reads a key's attributes back: [`Request::Inspect`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn inspect(&self, key: TokenKey) -> Result<Evidence> {
        match self.call(Request::Inspect { key }).await? {
            Response::Evidence(evidence) => Ok(evidence),
            _ => Err(self.confused()),
        }
    }

    /// What the hardware signs about a key: [`Request::Attest`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn attest(&self, key: TokenKey, nonce: Vec<u8>) -> Result<Proof> {
        match self.call(Request::Attest { key, nonce }).await? {
            Response::Proof(proof) => Ok(proof),
            _ => Err(self.confused()),
        }
    }

    /// Destroys a key: [`Request::Destroy`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn destroy(&self, id: BackingKeyId) -> Result<()> {
        match self.call(Request::Destroy { id }).await? {
            Response::Destroyed => Ok(()),
            _ => Err(self.confused()),
        }
    }

    /// Random bytes of the token's generator: [`Request::Random`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn random(&self, len: usize) -> Result<Secret> {
        match self.call(Request::Random { len }).await? {
            Response::Random(bytes) if bytes.len() == len => Ok(bytes),
            _ => Err(self.confused()),
        }
    }

    /// Makes a pair that signs: [`Request::GenerateSigner`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn generate_signer(
        &self,
        id: BackingKeyId,
        scheme: SigningScheme,
    ) -> Result<NewSigner> {
        match self.call(Request::GenerateSigner { id, scheme }).await? {
            Response::Signer(made) => Ok(made),
            _ => Err(self.confused()),
        }
    }

    /// A signature of 64 bytes: [`Request::Sign`].
    ///
    /// # Errors
    /// As [`Lane::call`].
    pub async fn sign(
        &self,
        key: TokenKey,
        scheme: SigningScheme,
        public: Vec<u8>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>> {
        match self.call(Request::Sign { key, scheme, public, message }).await? {
            Response::Signature(signature) => Ok(signature),
            _ => Err(self.confused()),
        }
    }

    /// The signing schemes that this token can do, the preferred one first.
    pub fn signing(&self) -> &[SigningScheme] {
        &self.profile.signing
    }

    /// Whether it is too slow to sign often.
    pub fn signs_slowly(&self) -> bool {
        self.profile.signs_slowly
    }

    /// Which token this is.
    pub fn info(&self) -> &TokenInfo {
        self.token.info()
    }

    /// The name of the profile that describes this token.
    pub fn profile(&self) -> &str {
        &self.profile.name
    }

    /// The profile that describes this token.
    pub fn described(&self) -> &Profile {
        &self.profile
    }

    /// How the token was when last spoken to. Cheap, and never waits for the hardware.
    pub fn health(&self) -> Health {
        let waiting = self.staff.hall.queue.len();
        let seated = self.staff.hall.seated.load(Ordering::Relaxed);
        Health { waiting, seated, ..self.token.health() }
    }

    fn label(&self) -> String {
        self.token.info().label.clone()
    }

    fn stopped(&self) -> Error {
        Error::Unavailable { token: self.label(), why: "its threads have stopped".into() }
    }

    fn confused(&self) -> Error {
        let why = "the driver answered another question than was asked".into();
        Error::Unavailable { token: self.label(), why }
    }
}

fn within_bounds(request: &Request) -> Result<()> {
    match request {
        Request::Derive { input, .. } if input.len() > MAX_DERIVE_INPUT => {
            Err(Error::BadRequest("a derivation's input is at most 1024 bytes"))
        }
        // Else the public check value would be the start of a message secret.
        Request::Derive { input, .. } if input == KeyCheck::LABEL => {
            Err(Error::BadRequest("a derivation's input is never the key-check label"))
        }
        Request::Agree { peer, .. } if peer.len() != POINT || peer.first() != Some(&4) => {
            Err(Error::BadRequest("a peer's public key is an uncompressed point of 65 bytes"))
        }
        Request::Unwrap { ciphertext, .. } if ciphertext.len() > MAX_CIPHERTEXT => {
            Err(Error::BadRequest("a ciphertext is at most 512 bytes"))
        }
        Request::Random { len } if !(1..=MAX_RANDOM).contains(len) => {
            Err(Error::BadRequest("random bytes come 1 to 4096 at a time"))
        }
        Request::Attest { nonce, .. } if nonce.len() > MAX_NONCE => {
            Err(Error::BadRequest("a nonce is at most 64 bytes"))
        }
        Request::Sign { message, .. } if message.len() > MAX_MESSAGE => {
            Err(Error::BadRequest("a message to sign is at most 4096 bytes"))
        }
        _ => Ok(()),
    }
}

tokio::task_local! {
    /// For whom a task works: who gets a turn at a token is decided by it. It goes along with the task
    /// and is no part of requests, because it says nothing of what is asked.
    static CALLER: Caller;
}

/// Works for a caller: what it asks of tokens waits among that caller's own requests.
pub fn on_behalf_of<F: Future>(caller: &str, work: F) -> impl Future<Output = F::Output> {
    let mut hash = DefaultHasher::new();
    hash.write(caller.as_bytes());
    CALLER.scope(hash.finish(), work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::Worker;
    use std::sync::atomic::AtomicUsize;

    fn profile() -> Profile {
        Profile::built_in("softhsm2").expect("sound")
    }

    #[test]
    fn workers_default_to_twice_the_processors_within_the_profile() {
        let mut profile = profile();
        profile.limits.sessions = 1;
        assert_eq!(Options::default().check(&profile).expect("sound").workers, 1);
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        let refused = |options: Options| options.check(&profile()).is_err();
        assert!(refused(Options { workers: Some(0), ..Options::default() }));
        assert!(refused(Options { workers: Some(33), ..Options::default() }));
        assert!(refused(Options { queue: 0, ..Options::default() }));
        assert!(refused(Options { queue: options::MAX_QUEUE + 1, ..Options::default() }));
        assert!(refused(Options { deadline_ms: 0, ..Options::default() }));
        assert!(refused(Options { deadline_ms: 120_001, ..Options::default() }));
    }

    /// A token that takes its time to make a key, and notes how many it was making at once.
    #[derive(Default)]
    struct Slow {
        making: AtomicUsize,
        most: AtomicUsize,
        made: AtomicUsize,
    }

    const TAKES: Duration = Duration::from_millis(400);

    struct Thread(Arc<Slow>);

    impl Driver for Slow {
        fn worker(self: Arc<Self>) -> Box<dyn Worker> {
            Box::new(Thread(self))
        }
    }

    impl Token for Slow {
        fn info(&self) -> &TokenInfo {
            static INFO: std::sync::LazyLock<TokenInfo> = std::sync::LazyLock::new(|| TokenInfo {
                label: "slow".into(),
                serial: "1".into(),
                manufacturer: String::new(),
                model: String::new(),
            });
            &INFO
        }

        fn health(&self) -> Health {
            Health { up: true, why: None, epoch: 1, waiting: 0, seated: 0 }
        }
    }

    impl Worker for Thread {
        fn serve(&mut self, request: &Request) -> Result<Response> {
            if let Request::Destroy { id } = request {
                let made = self.0.made.load(Ordering::SeqCst) > 0;
                return if made { Ok(Response::Destroyed) } else { Err(Error::KeyNotFound(*id)) };
            }
            let at_once = self.0.making.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most.fetch_max(at_once, Ordering::SeqCst);
            std::thread::park_timeout(TAKES);
            self.0.making.fetch_sub(1, Ordering::SeqCst);
            self.0.made.fetch_add(1, Ordering::SeqCst);
            Ok(Response::Signer(NewSigner { public: Vec::new(), wrapped: None }))
        }
    }

    /// The turn once ended with the caller's patience, and the next key was made beside the first.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_key_is_made_beside_one_whose_caller_has_given_up() {
        let slow = Arc::new(Slow::default());
        let options = Options { workers: Some(4), deadline_ms: 100, ..Options::default() };
        let settings = options.check(&profile()).expect("sound");
        let lane = Lane::of_driver(slow.clone(), settings).expect("started");
        let make = || lane.generate_signer(BackingKeyId([1; 16]), SigningScheme::EcdsaP256);
        while slow.made.load(Ordering::SeqCst) < 2 {
            assert_eq!(make().await, Err(Error::Timeout("slow".into())));
        }
        assert_eq!(slow.most.load(Ordering::SeqCst), 1);
    }

    /// It was destroyed before it was there, and then it stayed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_whose_maker_has_given_up_is_destroyed_once_it_is_made() {
        let slow = Arc::new(Slow::default());
        let options = Options { workers: Some(4), deadline_ms: 100, ..Options::default() };
        let settings = options.check(&profile()).expect("sound");
        let lane = Lane::of_driver(slow.clone(), settings).expect("started");
        let id = BackingKeyId([1; 16]);
        let made = lane.call(Request::GenerateSigner { id, scheme: SigningScheme::EcdsaP256 });
        assert_eq!(made.await.err(), Some(Error::Timeout("slow".into())));
        let destroyed = loop {
            match lane.destroy(id).await {
                Err(Error::Timeout(_)) => {}
                settled => break settled,
            }
        };
        assert_eq!(destroyed, Ok(()));
    }

    #[test]
    fn the_key_check_label_can_not_be_derived_from() {
        let derive = |input: Vec<u8>| {
            let (id, check) = (BackingKeyId([0; 16]), KeyCheck([0; 8]));
            within_bounds(&Request::Derive { key: id.into(), check, input })
        };
        assert!(derive(KeyCheck::LABEL.to_vec()).is_err());
        assert!(derive(vec![0; MAX_DERIVE_INPUT]).is_ok());
        assert!(derive(vec![0; MAX_DERIVE_INPUT + 1]).is_err());
    }
}
