"""The layout that Qlib reads, derived from vintages."""
