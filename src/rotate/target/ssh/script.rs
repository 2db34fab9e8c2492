//! What is done to `~/.ssh/authorized_keys`, as scripts for a POSIX shell.
//!
//! The file is never half-written: a new one is made beside it and moved into its place. Two
//! rotations of one account at once are excluded by a folder that only one can make.

use super::PublicKey;

/// Exit code: the key that logged in stands in another file, or nowhere.
pub(super) const NOT_THERE: i32 = 64;
/// Exit code: another rotation is at work there (EX_TEMPFAIL).
pub(super) const BUSY: i32 = 75;

/// Whatever happens between, the lock and the new file go away. A lock that a killed shell left is
/// broken after ten minutes, longer than any script here runs.
const BEGIN: &str = r#"set -eu
umask 077
LC_ALL=C
export LC_ALL
cd ~/.ssh
[ -f authorized_keys ]
lock=.strongroom-rotation
find . -maxdepth 1 -name "$lock" -mmin +10 -exec rmdir {} ';'
mkdir "$lock" 2>/dev/null || exit 75
new=$lock.new
trap 'rm -f "$new"; rmdir "$lock"' EXIT
trap 'exit 1' HUP INT TERM
cp -p authorized_keys "$new"
"#;

const END: &str = r#"sync "$new" 2>/dev/null || :
mv -f "$new" authorized_keys
"#;

/// Each line with the old key is followed by the same one with the new key.
pub(super) fn install(old: &PublicKey, new: &PublicKey) -> String {
    let program = r#"
{ print }
{ at = index($0 " ", old " ") }
at > 0 && $0 !~ /^[ \t]*#/ {
    print substr($0, 1, at - 1) new substr($0, at + length(old))
    found = 1
}
END { exit !found }"#;
    format!(
        "{BEGIN}old='{old}'\nadd='{new}'\n\
         if grep -v '^[[:space:]]*#' authorized_keys | grep -qF -- \"$add\"; then exit 0; fi\n\
         awk -v old=\"$old\" -v new=\"$add\" '{program}' authorized_keys >\"$new\" || exit {NOT_THERE}\n\
         {END}"
    )
}

/// Every line with the old key goes, if one with the new key is there.
pub(super) fn remove(old: &PublicKey, kept: &PublicKey) -> String {
    format!(
        "{BEGIN}old='{old}'\nkept='{kept}'\n\
         grep -v '^[[:space:]]*#' authorized_keys | grep -qF -- \"$kept\" || exit {NOT_THERE}\n\
         awk -v old=\"$old\" 'index($0 \" \", old \" \") == 0' authorized_keys >\"$new\"\n\
         {END}"
    )
}
