"""Maintenance of a store: verify it, compact it, remove garbage, back it up."""
