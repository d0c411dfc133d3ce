"""Every asset, named once."""

from airflow.sdk import Asset

MARKET_DATA = Asset(name="market_data", uri="mlops://market_data")
"""A published vintage; each event's `extra` has data_version and last_date."""
