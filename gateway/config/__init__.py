"""Configuration: YAML with places, a typed frozen model, diagnostics and warnings. Start at `load.load`."""
