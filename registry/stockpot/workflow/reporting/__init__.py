"""Everything that is known of a version, for whoever decides about it: its description has less room."""
