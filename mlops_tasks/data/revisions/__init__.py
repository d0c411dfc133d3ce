"""One vintage against the one before it: what changed, and whether the new one may come into use."""
