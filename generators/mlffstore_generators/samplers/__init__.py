"""Samplers: what makes structures from seeds. Each is a generator; its option `seeds` names a class of seeds."""
