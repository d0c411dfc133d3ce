"""What is known of exchanges: their sessions, the tickers that speak for them, their daily limits of price."""
