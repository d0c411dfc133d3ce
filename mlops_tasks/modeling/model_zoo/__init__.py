"""Every kind of model that can be trained: the entries (YAML), and one adapter for each family."""
