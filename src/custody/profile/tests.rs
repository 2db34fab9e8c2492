//! Tests of profiles.

use super::*;
use crate::custody::documented::HARDWARE;

fn softhsm2() -> String {
    let found = BUILT_IN.iter().find(|(name, _)| *name == "softhsm2");
    found.expect("built in").1.to_owned()
}

fn refusal(text: &str) -> String {
    Profile::parse(text).expect_err("must be refused").to_string()
}

#[test]
fn every_built_in_profile_is_sound_and_carries_its_own_name() {
    for name in Profile::names() {
        assert_eq!(Profile::built_in(name).expect("sound").name, name);
    }
    assert!(matches!(Profile::built_in("nonesuch"), Err(Error::Unknown(_))));
}

#[test]
fn software_is_called_what_it_is() {
    for name in ["softhsm2", "kryoptic", "swtpm"] {
        let profile = Profile::built_in(name).expect("sound");
        assert!(profile.software);
        assert!(profile.statement.contains("proves nothing"));
        assert_eq!(profile.preferred_scheme(), Some(Scheme::HmacKdf));
        assert!(!profile.cannot.is_empty());
    }
}

#[test]
fn the_environment_names_the_configuration_file() {
    let profile = Profile::built_in("softhsm2").expect("sound");
    let environment = profile.environment(Some(Path::new("/data/softhsm2.conf")));
    assert_eq!(environment, [("SOFTHSM2_CONF".into(), PathBuf::from("/data/softhsm2.conf"))]);
}

#[test]
fn the_configuration_has_the_folder_and_a_way_to_be_found() {
    for name in ["softhsm2", "kryoptic"] {
        let text = Profile::built_in(name).expect("sound").configuration("/data/tokens");
        assert!(text.expect("made here").contains("/data/tokens"));
    }
    let text = softhsm2().replace("@TOKENDIR@", "/tmp");
    assert!(refusal(&text).contains("@TOKENDIR@ once"));
    let text = softhsm2().replace("configuration_variable = \"SOFTHSM2_CONF\"", "");
    assert!(refusal(&text).contains("its variable"));
}

#[test]
fn who_was_not_tested_says_so_and_who_was_says_on_what() {
    for name in Profile::names() {
        let profile = Profile::built_in(name).expect("sound");
        assert_eq!(profile.warning().is_none(), profile.tested, "{name}");
    }
    let text = softhsm2().replace("tested_on", "login");
    assert!(refusal(&text).contains("says on what"));
}

/// A profile's row in docs/hardware.md.
fn row(profile: &Profile) -> String {
    let name = |value: serde_json::Value| value.as_str().expect("a name").to_owned();
    let or_none = |all: Vec<String>| if all.is_empty() { "none".into() } else { all.join(", ") };
    let schemes = profile.schemes.iter().map(|s| name(serde_json::json!(s)));
    let signing = profile.signing.iter().map(|s| name(serde_json::json!(s)));
    let tested = profile.tested_on.as_deref().unwrap_or("**untested**");
    let residency = if profile.kind == Kind::Tpm { "wrapped" } else { "token" };
    let cache = profile.cache_seconds.map_or("-".into(), |seconds| format!("{seconds} s"));
    let cannot: Vec<_> = profile.cannot.iter().map(|cannot| cannot.what.as_str()).collect();
    format!(
        "| [`{0}`](../hsm-profiles/{0}/README.md) | {1} | {tested} | {2} | {3} | {residency} | \
         {cache} | {4} |",
        profile.name,
        profile.title,
        or_none(schemes.collect()),
        or_none(signing.collect()),
        cannot.join("; "),
    )
}

#[test]
fn the_documentation_has_a_row_for_each_profile_as_it_is() {
    for name in Profile::names() {
        let row = row(&Profile::built_in(name).expect("sound"));
        assert!(HARDWARE.contains(&row), "docs/hardware.md lacks this row:\n{row}");
    }
}

#[test]
fn a_profile_may_be_a_file() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    std::fs::write(path, softhsm2().replace("SoftHSM 2", "mine")).expect("written");
    assert_eq!(Profile::named(path).expect("sound").title, "mine");
    let missing = Profile::named("/nowhere/profile.toml").expect_err("no file");
    assert!(matches!(missing, Error::Unreadable { .. }), "{missing}");
}

#[test]
fn an_unknown_field_is_refused_at_every_level() {
    assert!(refusal(&format!("colour = 1\n{}", softhsm2())).contains("colour"));
    let text = softhsm2().replace("[limits]", "[limits]\npower = 9000");
    assert!(refusal(&text).contains("power"));
}

#[test]
fn a_software_token_that_keeps_quiet_about_it_is_refused() {
    let lines = softhsm2();
    let text: Vec<_> = lines
        .lines()
        .map(|l| if l.starts_with("statement") { "statement = ' '" } else { l })
        .collect();
    assert!(refusal(&text.join("\n")).contains("needs a statement"));
}

#[test]
fn a_scheme_without_its_mechanism_is_refused() {
    let text = softhsm2().replace("\"CKM_SHA256_HMAC\",", "");
    assert!(refusal(&text).contains("need CKM_SHA256_HMAC"));
    let text = softhsm2().replace("\"CKM_EDDSA\",", "");
    assert!(refusal(&text).contains("need CKM_EDDSA"));
    let text = softhsm2().replace("schemes = [\"hmac-kdf\", \"ecdh\"]", "schemes = []");
    assert!(refusal(&text).contains("names no scheme"));
}

#[test]
fn a_token_without_the_hash_does_not_have_rsa_oaep() {
    let claims = "schemes = [\"hmac-kdf\", \"ecdh\", \"rsa-oaep\"]";
    let text = softhsm2().replace("schemes = [\"hmac-kdf\", \"ecdh\"]", claims);
    assert!(refusal(&text).contains("facts.oaep_hashes lacks"));
    // Where nothing is known of it, it is the mechanism that is asked for.
    let silent = text.replace("oaep_hashes = []", "");
    assert!(refusal(&silent).contains("need CKM_RSA_PKCS_KEY_PAIR_GEN"));
}

#[test]
fn bounds_are_kept() {
    let sessions = |n: &str| softhsm2().replace("sessions = 32", &format!("sessions = {n}"));
    assert!(refusal(&sessions("0")).contains("1 to 1024"));
    assert!(refusal(&sessions("1025")).contains("1 to 1024"));
    let random = softhsm2().replace("random_bytes = 4096", "random_bytes = 4097");
    assert!(refusal(&random).contains("32 to 4096"));
    let relative = softhsm2().replace("/usr/lib/softhsm/", "lib/");
    assert!(refusal(&relative).contains("absolute"));
    let named = softhsm2().replace("name = \"softhsm2\"", "name = \"Soft HSM\"");
    assert!(refusal(&named).contains("lower-case"));
}
