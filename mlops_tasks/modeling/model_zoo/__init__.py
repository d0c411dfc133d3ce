"""Every kind of model that can be trained: reads the entries (YAML), and has one adapter for each family."""
