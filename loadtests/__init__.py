"""Load, benchmarks and rivals: everything that is measured about the gateway, never imported by it."""
