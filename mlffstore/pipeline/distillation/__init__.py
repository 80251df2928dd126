"""Proof of a dataset by students: small models that learn from it, and what they can do then."""
