"""Demo models, built from real data that ships inside Python packages. Nothing here downloads anything."""
