"""Analysis of experiments: pure statistics, without a database. `offers` says which method is valid for which data."""
