//! Markdown files: their anchors, links and fences.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The folder of the repository, from where tests run.
const ROOT: &str = "..";

/// A Markdown file.
pub(crate) struct Document {
    /// From the repository's folder.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The headings' anchors, and the ids of HTML elements.
    pub(crate) anchors: HashSet<String>,
    /// Targets of links and images, those in HTML too.
    pub(crate) links: Vec<String>,
    pub(crate) fences: Vec<Fence>,
}

/// A fenced block of code.
pub(crate) struct Fence {
    /// Such as `console`.
    pub(crate) language: String,
    pub(crate) text: String,
    /// The number of its first line.
    pub(crate) line: usize,
}

impl Document {
    /// Reads the file at this path below the repository's folder.
    pub(crate) fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_path_buf();
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap_or_default();
        assert!(!text.is_empty(), "{} is missing, or empty", path.display());
        let mut document = Self {
            path,
            anchors: HashSet::new(),
            links: Vec::new(),
            fences: Vec::new(),
            text: String::new(),
        };
        document.parse(&text);
        document.text = text;
        document
    }

    fn parse(&mut self, text: &str) {
        let mut heading: Option<String> = None;
        let mut in_fence = false;
        let parser = Parser::new_ext(text, Options::ENABLE_TABLES);
        for (event, range) in parser.into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    self.add_heading(&slug);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.links.push(dest_url.into_string());
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    let line = text[..range.start].lines().count() + 1;
                    let language = language.into_string();
                    self.fences.push(Fence { language, text: String::new(), line });
                    in_fence = true;
                }
                Event::End(TagEnd::CodeBlock) => in_fence = false,
                Event::Text(code) if in_fence => {
                    self.fences.last_mut().expect("a fence").text.push_str(&code);
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                Event::Html(html) | Event::InlineHtml(html) => self.add_html(&html),
                _ => {}
            }
        }
    }

    /// A heading that occurs again has a number in its anchor.
    fn add_heading(&mut self, slug: &str) {
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let mut candidates = std::iter::once(slug.to_owned()).chain(numbered);
        let anchor = candidates.find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(anchor);
    }

    fn add_html(&mut self, html: &str) {
        self.anchors.extend(attributes(html, "id").map(str::to_owned));
        for name in ["href", "src", "srcset"] {
            self.links.extend(attributes(html, name).map(str::to_owned));
        }
    }
}

/// The values of this attribute in some HTML.
fn attributes<'h>(html: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let begin = format!(" {name}=\"");
    let values = html.match_indices(&begin).map(|(at, begin)| &html[at + begin.len()..]);
    let values: Vec<_> = values.filter_map(|rest| rest.split('"').next()).collect();
    values.into_iter()
}

/// The anchor of a heading, as GitHub and mdBook make it.
pub(crate) fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// The paths of all Markdown files in this folder, from the repository's folder.
pub(crate) fn pages_in(folder: &str) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Returns true if the repository has this file or folder.
pub(crate) fn exists(path: &Path) -> bool {
    Path::new(ROOT).join(path).exists()
}
