pub fn parse_never_panics() {}
