//! SIGTERM under load: what was begun is finished, what was acknowledged stands.
