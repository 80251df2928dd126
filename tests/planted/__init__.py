"""Faults planted into clean data, and the clean data: shared by the tests and by the table in the documentation."""
