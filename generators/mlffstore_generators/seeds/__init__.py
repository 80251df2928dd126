"""Seeds: structures to start from. Each module has one class of them; `base` finds them by name."""

from mlffstore_generators.seeds.base import Seed, Seeds, get_seeds, known, seeds_class

__all__ = ["Seed", "Seeds", "get_seeds", "known", "seeds_class"]
