"""Exchanges: their sessions, the tickers that point to them, and their daily price limits."""
