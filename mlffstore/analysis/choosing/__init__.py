"""Choosing well: samples that differ, samples that cover all environments, samples without near duplicates."""
