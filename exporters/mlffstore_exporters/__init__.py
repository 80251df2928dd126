"""The built-in exporters. Found through the entry points `mlffstore.exporters`, not imported by the core."""
