//! Plain reference models, which are simple enough to check by reading.

/// Returns whether `filter` matches `topic`, level by level as section 4.7 defines it.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut levels = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match levels.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Returns whether the standard allows `filter` (without regard to `$share`).
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    !filter.is_empty()
        && !filter.contains('\0')
        && levels.iter().enumerate().all(|(i, level)| match *level {
            "+" => true,
            "#" => i + 1 == levels.len(),
            level => !level.contains(['+', '#']),
        })
}
