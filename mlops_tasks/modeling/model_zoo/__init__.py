"""Every kind of model that can be trained: the catalogue (YAML) and one adapter a family."""
