"""Columns that the quarantine adds to the rows as they were read."""

POSITION, RULE, SEVERITY, REASON, REMEDY = "position", "rule", "severity", "reason", "remedy"
EVIDENCE_DATE = "evidence_date"
VALUES = "values"
"""Digest of a bar's fields, of a warning about a row."""
