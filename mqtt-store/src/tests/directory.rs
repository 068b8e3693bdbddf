//! Checks which directories are flushed when a store is created.

use std::path::Path;

use crate::directory::parents;

#[test]
fn each_new_directory_is_flushed_into_the_one_above() {
    for (path, exists, new, oldest) in [
        // All that is missing, and the first that exists: an earlier process may have made it.
        ("/a/b/c/d", "/a/b", &["/a/b/c", "/a/b"][..], "/a"),
        ("/a/b", "/a/b", &[], "/a"),
        ("/a", "/", &["/"], "/"),
        ("a/b", "", &["a", "."], "."),
        ("a", "a", &[], "."),
    ] {
        let exists = |level: &Path| Path::new(exists).starts_with(level);
        let new: Vec<_> = new.iter().map(Path::new).collect();
        assert_eq!(
            parents(Path::new(path), exists),
            (new, Path::new(oldest)),
            "{path}"
        );
    }
}
