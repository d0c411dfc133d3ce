"""The correctness properties that the user's plan names, each in a module with its number."""
