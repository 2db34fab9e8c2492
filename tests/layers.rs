//! The rules of the layout, held: who may import whom, how long files and functions may get,
//! what a file may not be called, what no file may say.
//!
//! The scanner knows Rust's tokens, not its grammar: literals, comments, lifetimes, braces. That
//! is enough for paths that begin at `crate` or `super` and for where a function ends. What only
//! tests see (`#[cfg(test)]` items, files named `tests.rs`) is exempt from ranks and budgets.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A file imports only from a lower rank or from its own folder.
const RANKS: [(&str, u8); 21] = [
    ("secret", 0),
    ("name", 0),
    ("clock", 0),
    ("json", 0),
    ("roots", 0),
    ("policy", 1),
    ("custody", 1),
    ("store", 1),
    ("envelope", 2),
    ("audit", 2),
    ("identity", 3),
    ("ops", 3),
    ("front", 4),
    ("rotate", 4),
    ("events", 4),
    ("replication", 4),
    ("config", 5),
    ("server", 6),
    ("cli", 6),
    ("main", 7),
    ("lib", 7),
];

/// Imports between neighbours of one rank that are allowed all the same.
const SIDEWAYS: [(&str, &str); 3] = [
    // Random keys are born as secrets.
    ("clock", "secret"),
    // Random ids are born as names.
    ("clock", "name"),
    // `strongroom serve` and `dev` start the server; it knows nothing of the command line.
    ("cli", "server"),
];

/// Imports that the ranks would allow and the design does not.
const FORBIDDEN: [(&str, &str, &str); 3] = [
    ("store", "secret", "the store sees ciphertext alone"),
    ("front", "store", "a door reaches rows through an operation"),
    ("front", "custody", "a door reaches keys through an operation"),
];

/// Names that say nothing of what is inside.
const NAMELESS: [&str; 7] = ["common", "helper", "helpers", "misc", "shared", "util", "utils"];

/// What else there is beside modules: the schema, and a program that is embedded.
const EMBEDDED: [&str; 2] = ["sql", "py"];

const FILE_LINES: usize = 600;
const MEDIAN_FUNCTION: usize = 10;
const NINTH_DECILE_FUNCTION: usize = 40;

// ---- tokens ----

#[derive(Clone, Debug, PartialEq)]
struct Token {
    line: usize,
    /// A word, `::`, one character of punctuation, or `"` for any literal and `'` for a lifetime.
    text: String,
}

/// Splits Rust source into tokens; comments vanish, literals lose their contents.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let (end, text) = token_at(&chars, at);
        if let Some(text) = text {
            found.push(Token { line, text });
        }
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

/// Where the token or gap at `at` ends, and its text if it is a token.
fn token_at(chars: &[char], at: usize) -> (usize, Option<String>) {
    let next = chars.get(at + 1).copied().unwrap_or(' ');
    match chars[at] {
        '/' if next == '/' => (find(chars, at, |c| c == '\n'), None),
        '/' if next == '*' => (block_comment_end(chars, at), None),
        '"' => (string_end(chars, at), Some("\"".into())),
        '\'' => quote(chars, at),
        ':' if next == ':' => (at + 2, Some("::".into())),
        c if c.is_whitespace() => (at + 1, None),
        c if c.is_alphanumeric() || c == '_' => word(chars, at),
        c => (at + 1, Some(c.to_string())),
    }
}

/// The first index from `at` on whose character fits, or the end.
fn find(chars: &[char], at: usize, fits: impl Fn(char) -> bool) -> usize {
    (at..chars.len()).find(|i| fits(chars[*i])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match chars.get(at..at + 2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of a literal with escapes that opens at `at`.
fn string_end(chars: &[char], at: usize) -> usize {
    let quote = chars[at];
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// A character literal or a lifetime.
fn quote(chars: &[char], at: usize) -> (usize, Option<String>) {
    let literal = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
    if literal {
        (string_end(chars, at), Some("\"".into()))
    } else {
        let end = find(chars, at + 1, |c| !c.is_alphanumeric() && c != '_');
        (end, Some("'".into()))
    }
}

/// A word or number, or a literal with a prefix (`b".."`, `r#".."#`, `b'x'`).
fn word(chars: &[char], at: usize) -> (usize, Option<String>) {
    let end = find(chars, at, |c| !c.is_alphanumeric() && c != '_');
    let text: String = chars[at..end].iter().collect();
    let prefix = ["b", "c", "r", "br", "cr"].contains(&text.as_str());
    let hashes = find(chars, end, |c| c != '#') - end;
    match chars.get(end + hashes) {
        Some('"') if prefix && text.ends_with('r') => {
            (raw_string_end(chars, end + hashes, hashes), Some("\"".into()))
        }
        Some('"') if prefix && hashes == 0 => (string_end(chars, end), Some("\"".into())),
        Some('\'') if text == "b" && hashes == 0 => (string_end(chars, end), Some("\"".into())),
        _ => (end, Some(text)),
    }
}

fn raw_string_end(chars: &[char], open: usize, hashes: usize) -> usize {
    (open + 1..chars.len())
        .find(|i| {
            chars[*i] == '"'
                && chars.get(i + 1..i + 1 + hashes).is_some_and(|s| s.iter().all(|c| *c == '#'))
        })
        .map_or(chars.len(), |i| i + 1 + hashes)
}

// ---- one file ----

/// A source file as the rules see it.
struct File {
    /// Relative to `src`, as `custody/lane.rs`.
    path: String,
    /// Everything.
    all: Vec<Token>,
    /// Without what only tests see.
    shipped: Vec<Token>,
    /// Lines, without those of test items.
    lines: usize,
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        let all = tokens(source);
        let (mut shipped, mut test_lines, mut at) = (Vec::new(), 0, 0);
        let only_tests = path.ends_with("tests.rs") || starts_with(&all, "# ! [ cfg ( test ) ]");
        while !only_tests && at < all.len() {
            if test_attribute(&all[at..]) {
                let end = item_end(&all, at);
                test_lines += all[end - 1].line - all[at].line + 1;
                at = end;
            } else {
                shipped.push(all[at].clone());
                at += 1;
            }
        }
        let lines = if only_tests { 0 } else { source.lines().count() - test_lines };
        Self { path: path.to_owned(), all, shipped, lines }
    }

    /// The path of this file's module, from the crate's root: `custody/lane.rs` is custody, lane.
    fn module(&self) -> Vec<&str> {
        let mut path: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        if matches!(path.last(), Some(&"mod" | &"lib" | &"main")) {
            path.pop();
        }
        path
    }

    /// The folder, or the file's own name at the top.
    fn folder(&self) -> &str {
        self.path.trim_end_matches(".rs").split('/').next().unwrap_or_default()
    }

    /// Every name right below the crate's root that a path here leads through, with its line.
    fn imports(&self) -> Vec<(usize, &str)> {
        let file_depth = self.module().len();
        let (mut inline_modules, mut braces, mut found) = (Vec::new(), 0, Vec::new());
        let tokens = &self.shipped;
        for at in 0..tokens.len() {
            match tokens[at].text.as_str() {
                "{" => {
                    braces += 1;
                    if at >= 2 && tokens[at - 2].text == "mod" {
                        inline_modules.push(braces);
                    }
                }
                "}" => {
                    inline_modules.pop_if(|opened| *opened == braces);
                    braces -= 1;
                }
                "crate" | "super" if at == 0 || tokens[at - 1].text != "::" => {
                    let depth = file_depth + inline_modules.len();
                    found.extend(names_at_root(&tokens[at..], depth));
                }
                _ => {}
            }
        }
        found
    }

    /// Each function with a body: its line, its name and its length in lines.
    fn functions(&self) -> Vec<(usize, &str, usize)> {
        let tokens = &self.shipped;
        let named = |at: &usize| {
            tokens[*at].text == "fn" && tokens.get(at + 1).is_some_and(|t| t.text != "(")
        };
        let mut found = Vec::new();
        for at in (0..tokens.len()).filter(named) {
            let end = item_end(tokens, at);
            if tokens[end - 1].text == "}" {
                let (first, last) = (tokens[at].line, tokens[end - 1].line);
                found.push((first, tokens[at + 1].text.as_str(), last - first + 1));
            }
        }
        found
    }
}

/// Whether the tokens begin with these, written with spaces between.
fn starts_with(tokens: &[Token], start: &str) -> bool {
    let mut tokens = tokens.iter();
    start.split(' ').all(|text| tokens.next().is_some_and(|t| t.text == text))
}

/// Whether an attribute `#[cfg(test)]` or `#[cfg(all(test, ..))]` stands here.
fn test_attribute(tokens: &[Token]) -> bool {
    starts_with(tokens, "# [ cfg ( test )") || starts_with(tokens, "# [ cfg ( all ( test")
}

/// The index after the item that begins at `start` (attributes included): after its `;`, or after
/// the brace that closes its first block.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let (mut nesting, mut braces) = (0, 0);
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" => nesting += 1,
            ")" | "]" => nesting -= 1,
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if braces == 0 && nesting == 0 {
                    return at + 1;
                }
            }
            ";" if nesting == 0 && braces == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The names below the crate's root that a path beginning with `crate` or `super` leads to, if it
/// goes up that far from a module `depth` levels below the root.
fn names_at_root(path: &[Token], depth: usize) -> Vec<(usize, &str)> {
    let supers = path.chunks(2).take_while(|pair| pair[0].text == "super").count();
    let steps = if supers == 0 { 1 } else { supers };
    let rest = &path[(2 * steps).min(path.len())..];
    if supers != 0 && supers < depth || path.get(2 * steps - 1).is_none_or(|t| t.text != "::") {
        return Vec::new();
    }
    match rest.first() {
        Some(token) if token.text == "{" => group(rest),
        Some(token) => vec![(token.line, token.text.as_str())],
        None => Vec::new(),
    }
}

/// The first name of each path in a `{a::b, c}` group.
fn group(tokens: &[Token]) -> Vec<(usize, &str)> {
    let (mut depth, mut found) = (0, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && at > 0 && ["{", ","].contains(&tokens[at - 1].text.as_str()) => {
                found.push((token.line, name));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

// ---- the rules ----

fn rank(folder: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == folder).map(|(_, rank)| *rank)
}

/// What is wrong with one import, if anything.
fn wrong_import(from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    if let Some((.., why)) = FORBIDDEN.iter().find(|(f, t, _)| (*f, *t) == (from, to)) {
        return Some(format!("`{from}` must not import `{to}`: {why}"));
    }
    let (Some(own), Some(other)) = (rank(from), rank(to)) else {
        return Some(format!(
            "`{from}` imports `{to}`, and one of them is not in the rank table (nothing is \
             re-exported at the crate's root)"
        ));
    };
    (other >= own && !SIDEWAYS.contains(&(from, to))).then(|| {
        format!("`{from}` (rank {own}) imports `{to}` (rank {other}): only lower ranks, please")
    })
}

/// Everything that is wrong with one file, as lines `src/path:line: rule`.
fn faults(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault =
        |line: usize, rule: &str| found.push(format!("src/{}:{line}: {rule}", file.path));
    let from = match file.path.as_str() {
        "main.rs" | "lib.rs" => "lib",
        _ => file.folder(),
    };
    if rank(from).is_none() {
        fault(1, &format!("`{from}` is not in the rank table of tests/layers.rs"));
    }
    for (line, to) in file.imports() {
        if let Some(rule) = wrong_import(from, to) {
            fault(line, &rule);
        }
    }
    if file.lines > FILE_LINES {
        let size = format!("{} lines without tests, {FILE_LINES} are the limit", file.lines);
        fault(1, &format!("{size}: this is two rooms"));
    }
    if let Some(name) = file.module().iter().find(|name| NAMELESS.contains(name)) {
        fault(1, &format!("a module named `{name}` says nothing: name what it holds"));
    }
    for (at, token) in file.all.iter().enumerate() {
        let bang = file.all.get(at + 1).is_some_and(|t| t.text == "!");
        match token.text.as_str() {
            "unsafe" => fault(token.line, "no `unsafe`"),
            "todo" | "unimplemented" if bang => fault(token.line, "nothing half-built"),
            _ => {}
        }
    }
    found
}

/// A folder that can be reached from itself through imports of others, if there is one.
fn cycle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    imports.keys().find_map(|start| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = imports[start].iter().filter(|to| *to != start).collect();
        while let Some(folder) = open.pop() {
            if folder == start {
                return Some(start.clone());
            }
            if seen.insert(folder) {
                open.extend(imports.get(folder).into_iter().flatten());
            }
        }
        None
    })
}

/// The value that this share (in tenths) of the sorted lengths does not exceed.
fn decile(sorted: &[usize], tenths: usize) -> usize {
    let at = (sorted.len() * tenths).div_ceil(10).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

// ---- the crate under these rules ----

fn crate_files() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder under src") {
            let path = entry.expect("a folder entry").path();
            let ending = path.extension().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.push(path);
            } else if ending == "rs" {
                let name = path.strip_prefix(&src).expect("a path under src").to_string_lossy();
                let source = fs::read_to_string(&path).expect("a readable source file");
                files.push(File::new(&name, &source));
            } else {
                let known = EMBEDDED.contains(&&*ending);
                assert!(known, "{}: no part of the program", path.display());
            }
        }
    }
    assert!(files.len() > 5, "the scan found hardly anything under {}", src.display());
    files
}

#[test]
fn every_file_keeps_to_its_rank_its_size_and_its_words() {
    let found: Vec<String> = crate_files().iter().flat_map(faults).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn no_two_folders_need_each_other() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in crate_files() {
        let targets = file.imports().into_iter().map(|(_, to)| to.to_owned());
        imports.entry(file.folder().to_owned()).or_default().extend(targets);
    }
    assert_eq!(cycle(&imports), None, "a cycle of imports through this folder");
}

#[test]
fn most_functions_are_short() {
    let mut functions = Vec::new();
    for file in crate_files() {
        for (line, name, length) in file.functions() {
            functions.push((length, format!("src/{}:{line}: fn {name}", file.path)));
        }
    }
    functions.sort();
    let lengths: Vec<usize> = functions.iter().map(|(length, _)| *length).collect();
    let (median, ninth) = (decile(&lengths, 5), decile(&lengths, 9));
    let longest = functions.iter().rev().take(20).fold(String::new(), |mut list, (n, place)| {
        writeln!(list, "{n:5} lines  {place}").expect("writing to a String");
        list
    });
    assert!(
        median <= MEDIAN_FUNCTION && ninth <= NINTH_DECILE_FUNCTION,
        "function lengths: median {median} (limit {MEDIAN_FUNCTION}), ninth decile {ninth} (limit \
         {NINTH_DECILE_FUNCTION}); the longest:\n{longest}"
    );
}

// ---- the rules themselves ----

fn only_fault(path: &str, source: &str) -> String {
    let found = faults(&File::new(path, source));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn an_import_of_a_higher_or_equal_rank_is_named_with_its_line() {
    let upwards = only_fault("store/sqlite.rs", "use std::fs;\nuse crate::front::aws;\n");
    assert!(
        upwards.starts_with("src/store/sqlite.rs:2: `store` (rank 1) imports `front` (rank 4)")
    );
    let sideways = only_fault("policy/mod.rs", "fn f() { crate::custody::open() }");
    assert!(sideways.contains("`policy` (rank 1) imports `custody` (rank 1)"));
    let in_group = only_fault("envelope.rs", "use crate::{\n secret::{Key, name},\n ops::Row};");
    assert!(in_group.starts_with("src/envelope.rs:3: `envelope` (rank 2) imports `ops`"));
    let by_super = only_fault("custody/lane.rs", "use super::super::audit::Record;");
    assert!(by_super.contains("imports `audit`"));
    let from_inside = only_fault("envelope.rs", "mod inner { use super::super::ops; }");
    assert!(from_inside.contains("imports `ops`"));
    assert!(only_fault("new/mod.rs", "").contains("not in the rank table"));
    assert!(only_fault("ops/mod.rs", "use crate::Shortcut;").contains("re-exported"));
}

#[test]
fn what_the_design_forbids_is_forbidden_whatever_the_rank() {
    assert!(only_fault("store/mod.rs", "use crate::secret::Key;").contains("ciphertext alone"));
    assert!(only_fault("front/rest.rs", "use crate::store::Tx;").contains("through an operation"));
}

#[test]
fn lower_ranks_the_own_folder_and_tests_are_fine() {
    let source = r##"
        use crate::secret::Secret; // crate::front
        use crate::custody::{Error, lane::Lane};
        use super::profile::Profile;
        mod inner { use super::Thing; use super::super::Error; }
        const TEXT: &str = r#"crate::cli " unsafe"#;
        const QUOTE: char = '"'; const ESCAPED: char = '\''; const BYTE: u8 = b'"';
        fn f<'a>(x: &'a str) -> &'a str { "\" todo!() crate::front" /* unsafe /* nested */ */ }
        #[cfg(test)]
        mod tests { use crate::server; }
        #[cfg(all(test, unix))]
        use crate::cli;
    "##;
    assert_eq!(faults(&File::new("custody/lane.rs", source)), Vec::<String>::new());
    assert_eq!(faults(&File::new("ops/tests.rs", "use crate::server;")), Vec::<String>::new());
}

#[test]
fn a_file_may_be_600_lines_long_and_its_tests_do_not_count() {
    let full = "const X: u8 = 1;\n".repeat(600);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{full}}}\n");
    assert!(faults(&File::new("ops/mod.rs", &format!("{full}{tests}"))).is_empty());
    let over = only_fault("ops/mod.rs", &format!("const X: u8 = 1;\n{full}{tests}"));
    assert!(over.contains("601 lines"), "{over}");
}

#[test]
fn nameless_modules_and_forbidden_words_are_found_in_test_code_too() {
    assert!(only_fault("ops/utils.rs", "").contains("`utils`"));
    assert!(only_fault("ops/mod.rs", "#[cfg(test)]\nfn t() { unsafe {} }").contains(":2: no `u"));
    assert!(only_fault("ops/mod.rs", "fn f() { todo!() }").contains("half-built"));
}

#[test]
fn a_function_runs_from_fn_to_its_closing_brace() {
    let source = "trait T { fn declared(&self) -> [u8; 2]; }\n\
                  fn two<F: Fn(fn(u8))>(f: F) -> [u8; 2]\n{ if true {} [0; 2] }\n\
                  fn one() {}\n";
    let file = File::new("clock.rs", source);
    assert_eq!(file.functions(), [(2, "two", 2), (4, "one", 1)]);
}

#[test]
fn a_cycle_of_folders_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    assert_eq!(cycle(&BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("b", "b")])), None);
    let round = BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "a")]);
    assert_eq!(cycle(&round).as_deref(), Some("a"));
}

#[test]
fn a_decile_is_a_value_of_the_list() {
    let lengths: Vec<usize> = (1..=10).collect();
    assert_eq!((decile(&lengths, 5), decile(&lengths, 9), decile(&[], 5)), (5, 9, 0));
}
