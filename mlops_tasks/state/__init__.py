"""The operational database: what the operation decided, deployed, scored and saw. History is append-only."""
