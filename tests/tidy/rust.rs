//! The source as a parser reads it: the paths and the macros that each file of `src/` names, without its unit tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemMod, ItemUse, Macro, UseTree};

use crate::support::project;

/// A file of `src/`.
pub struct Source {
    /// The path below `src/`.
    pub path: String,
    /// The module of the file: `["policy", "decide"]`; empty for the root of the crate.
    pub module: Vec<String>,
    pub text: String,
    pub names: Names,
}

/// What a file names. Paths that begin with `super` or `self` are written out from the root of the crate.
#[derive(Default)]
pub struct Names {
    /// Paths, as `crate::gate::Gate` or `std::time::Instant`.
    pub paths: BTreeSet<String>,
    /// The names of the macros that are called.
    pub macros: BTreeSet<String>,
    /// The module in which the visitor is.
    module: Vec<String>,
}

/// Every file of `src/`.
pub fn sources() -> Vec<Source> {
    let root = project().join("src");
    let mut files = vec![];
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "this is not the whole of src/: {files:?}");
    files.iter().map(|file| source(file, file.strip_prefix(&root).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source(file: &Path, below: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap();
    let path = below.to_str().unwrap().to_owned();
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').map(str::to_owned).collect();
    let module: Vec<String> = if path == "lib.rs" { vec![] } else { module };
    let names = names(&text, &module);
    Source { path, module, text, names }
}

/// What a text of this module names.
fn names(text: &str, module: &[String]) -> Names {
    let mut names = Names { module: module.to_vec(), ..Names::default() };
    names.visit_file(&syn::parse_file(text).unwrap());
    names
}

impl Names {
    /// Adds a path, from the root of the crate where it begins with `self` or `super`.
    fn add(&mut self, segments: &[String]) {
        let mut module = self.module.clone();
        let mut rest = segments;
        let mut is_relative = false;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "self" => {}
                "super" => {
                    module.pop();
                }
                _ => break,
            }
            is_relative = true;
            rest = &rest[1..];
        }
        let start = if is_relative { [vec!["crate".to_owned()], module].concat() } else { vec![] };
        self.paths.insert([&start, rest].concat().join("::"));
    }

    fn add_tree(&mut self, start: &[String], tree: &UseTree) {
        let longer = |name: &dyn ToString| [start, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&longer(&path.ident), &path.tree),
            UseTree::Name(name) => self.add(&longer(&name.ident)),
            UseTree::Rename(rename) => self.add(&longer(&rename.ident)),
            UseTree::Glob(_) => self.add(start),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(start, tree)),
        }
    }

    /// The paths and macros in the tokens of a macro, which have no other syntax.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Ident(name) => {
                    self.add(&std::mem::replace(&mut path, vec![name.to_string()]));
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Punct(mark) => {
                    if let ('!', Some(name)) = (mark.as_char(), path.last()) {
                        self.macros.insert(name.clone());
                    }
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                    self.add_tokens(group.stream());
                }
                TokenTree::Literal(_) => {}
            }
        }
        self.add(&path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_of_test = |attribute: &Attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    };
    attributes.iter().any(is_of_test)
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            self.module.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(name) = call.path.segments.last() {
            self.macros.insert(name.ident.to_string());
        }
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    // A link in a comment is no use of what it names.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

#[test]
fn paths_and_macros_are_found_and_tests_are_not() {
    let text = "use crate::{a::b, c}; use super::d::E; /// [`crate::f`]\nfn g() { x!(crate::h::i(), y!(1)); std::j::k(); }\n\
                #[cfg(test)] mod tests { use crate::l; }\n#[cfg(test)] use crate::m;";
    let found = names(text, &["n".to_owned(), "o".to_owned()]);
    for path in ["crate::a::b", "crate::c", "crate::n::d::E", "crate::h::i", "std::j::k"] {
        assert!(found.paths.contains(path), "{path}: {:?}", found.paths);
    }
    assert!(!found.paths.iter().any(|path| path.ends_with("::l") || path.ends_with("::m") || path.ends_with("::f")));
    assert!(found.macros.contains("x") && found.macros.contains("y"), "{:?}", found.macros);
}
