//! Links lead somewhere, the book is complete, tables are whole, and Russian pages show the same
//! commands.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use super::markdown::{Document, Fence, exists, pages_in};

const SUMMARY: &str = "docs/SUMMARY.md";
const READMES: [&str; 2] = ["README.md", "README.ru.md"];
/// A README is read in one go.
const MAX_README_BYTES: usize = 12 << 10;

/// Every document that people read.
fn all_documents() -> Vec<Document> {
    let single = READMES.into_iter().chain(["SECURITY.md", "ARCHITECTURE.md"]);
    single.map(PathBuf::from).chain(pages_in("docs")).map(Document::read).collect()
}

/// Fails with all of these findings, unless there are none.
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// `folder` joined with a relative path, without `..`.
fn join(folder: &Path, relative: &str) -> PathBuf {
    let mut joined = PathBuf::new();
    for component in folder.join(relative).components() {
        match component {
            Component::ParentDir => {
                joined.pop();
            }
            Component::CurDir => {}
            other => joined.push(other),
        }
    }
    joined
}

/// The document and the anchor to which a relative link leads; `None` for a link into the web.
fn target(document: &Document, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, a)| (path, Some(a)));
    let path = if path.is_empty() {
        document.path.clone()
    } else {
        join(document.path.parent().expect("a file"), path)
    };
    Some((path, anchor.map(str::to_owned)))
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_in_it() {
    let documents = all_documents();
    let mut findings = Vec::new();
    for document in &documents {
        for link in &document.links {
            let Some((path, anchor)) = target(document, link) else { continue };
            let from = document.path.display();
            if !exists(&path) {
                findings.push(format!("{from}: {link}: no such file"));
                continue;
            }
            let known = documents.iter().find(|other| other.path == path);
            if let (Some(anchor), Some(known)) = (anchor, known)
                && !known.anchors.contains(&anchor)
            {
                findings.push(format!("{from}: {link}: no such heading"));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn the_summary_lists_every_page_and_no_other() {
    let summary = Document::read(SUMMARY);
    let listed = summary.links.iter().filter_map(|link| Some(target(&summary, link)?.0));
    let listed: BTreeSet<_> = listed.collect();
    let pages = pages_in("docs").into_iter().filter(|page| page != Path::new(SUMMARY));
    let pages: BTreeSet<_> = pages.collect();
    assert_eq!(listed, pages, "{SUMMARY}, and the pages in docs/");
}

#[test]
fn a_readme_is_read_in_one_go() {
    for readme in READMES {
        let bytes = Document::read(readme).text.len();
        assert!(
            bytes <= MAX_README_BYTES,
            "{readme} has {bytes} bytes; at most {MAX_README_BYTES}"
        );
    }
}

#[test]
fn no_table_is_broken_by_a_blank_line() {
    let mut findings = Vec::new();
    for Document { path, text, .. } in all_documents() {
        let lines: Vec<_> = text.lines().collect();
        let is_row = |line: usize| lines.get(line).is_some_and(|line| line.starts_with('|'));
        let is_blank = |line: usize| lines.get(line).is_some_and(|line| line.trim().is_empty());
        let is_rule = |line: usize| {
            let rule = |c: char| matches!(c, '|' | '-' | ':' | ' ');
            is_row(line) && lines[line].chars().all(rule)
        };
        let broken = (2..lines.len()).filter(|&line| {
            is_row(line) && is_blank(line - 1) && is_row(line - 2) && !is_rule(line + 1)
        });
        findings.extend(broken.map(|line| format!("{}:{}", path.display(), line + 1)));
    }
    assert_none(&findings);
}

/// A fence's language and its lines without comments, which are translated.
fn without_comments(fence: &Fence) -> (String, Vec<String>) {
    let lines = fence.text.lines().map(|line| {
        let line = ["# ", "// "].into_iter().fold(line, |line, comment| {
            let begins = line.trim_start().starts_with(comment);
            let at = line.find(&format!(" {comment}"));
            if begins { "" } else { at.map_or(line, |at| &line[..at]) }
        });
        line.trim_end().to_owned()
    });
    (fence.language.clone(), lines.filter(|line| !line.is_empty()).collect())
}

#[test]
fn a_russian_page_shows_the_commands_of_its_english_twin() {
    let book = pages_in("docs/ru").into_iter().map(|page| {
        let twin = Path::new("docs").join(page.strip_prefix("docs/ru").expect("in docs/ru"));
        (twin, page)
    });
    let mut findings = Vec::new();
    for (english, russian) in book.chain([(READMES[0].into(), READMES[1].into())]) {
        if !exists(&english) {
            findings.push(format!("{}: no {}", russian.display(), english.display()));
            continue;
        }
        let (english, russian) = (Document::read(english), Document::read(russian));
        let name = russian.path.display();
        if english.fences.len() != russian.fences.len() {
            let (has, wants) = (russian.fences.len(), english.fences.len());
            findings.push(format!("{name}: {has} fences, not {wants}"));
        }
        for (english, russian) in english.fences.iter().zip(&russian.fences) {
            let (wants, has) = (without_comments(english), without_comments(russian));
            if wants != has {
                let line = russian.line;
                findings.push(format!("{name}:{line}:\n  English: {wants:?}\n  Russian: {has:?}"));
                break;
            }
        }
    }
    assert_none(&findings);
}
