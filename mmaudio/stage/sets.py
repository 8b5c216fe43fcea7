"""Which sets a place has: some for every scene, some for those of the split test_hard alone."""

from .landscapes import HARD_LANDSCAPES, HARD_NIGHTS, LANDSCAPES, NIGHTS
from .rooms import HARD_ROOMS, ROOMS

SETS = {"room": ROOMS, "outdoors": LANDSCAPES, "night": NIGHTS}
HARD_SETS = {"room": HARD_ROOMS, "outdoors": HARD_LANDSCAPES, "night": HARD_NIGHTS}
