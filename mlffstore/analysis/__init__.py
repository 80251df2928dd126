"""Statistics, validation and the report."""
