"""Alerts: episodes kept in the state database, told by whatever is configured (docs/alerts.md)."""

from mlops_tasks.state.alerts.raising import raise_alert, raise_daily_alert

__all__ = ["raise_alert", "raise_daily_alert"]
