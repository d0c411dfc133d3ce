"""Chooses an algorithm and searches its hyper-parameters."""
