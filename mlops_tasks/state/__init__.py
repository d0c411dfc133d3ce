"""The operational database: decisions, deployments, scores and observations. History is append-only."""
