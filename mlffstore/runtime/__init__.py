"""Threads, worker processes, the folder of the caches; documents that every parser reads."""
