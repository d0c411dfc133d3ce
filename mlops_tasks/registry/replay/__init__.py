"""Replay: a registered version trained again from its record, and compared with what it was."""
