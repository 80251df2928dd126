"""Bytes with meaning: codec, segments, records, log entries, the state that they add up to."""
