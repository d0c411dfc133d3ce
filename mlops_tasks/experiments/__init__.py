"""Comparisons of models: champion and challenger, cross-validation, and the table of models."""
