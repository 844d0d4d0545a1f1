"""The configuration's sections, one file per concern; :mod:`gateway.config.model` puts them together."""
