"""Recipes and their execution: generate, label, check, append, resume."""
