"""The built-in generators. Found through the entry points `mlffstore.generators`, not imported by the core."""
