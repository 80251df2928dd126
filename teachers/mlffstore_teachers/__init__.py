"""The built-in teachers. Found through the entry points `mlffstore.teachers`, not imported by the core."""
