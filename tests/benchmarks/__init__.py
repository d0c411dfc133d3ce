"""Benchmarks against peers, each in one run: `make bench NAME=<name>`."""
