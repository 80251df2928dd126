"""Protocols of generators and teachers, the registry that finds plugins, and checks that a teacher keeps its contract."""
