"""Alerts: episodes in the state database, reported through the configured sinks (docs/alerts.md)."""

from mlops_tasks.state.alerts.raising import raise_alert, raise_daily_alert

__all__ = ["raise_alert", "raise_daily_alert"]
