"""Threads and worker processes; documents that every parser reads."""
