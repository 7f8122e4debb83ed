"""Files to modules: rename tables as data, strict loading."""
