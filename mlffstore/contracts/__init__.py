"""Protocols of generators and teachers, the registry that finds them, and how a teacher shows that it keeps its contract."""
