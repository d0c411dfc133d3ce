"""Which rows of a source are bars: measures, suites of rules, what they conclude, quarantine and data docs."""
