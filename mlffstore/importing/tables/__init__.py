"""Readers of formats that hold whole columns: each yields `ReadSamples`, some samples at a time."""
