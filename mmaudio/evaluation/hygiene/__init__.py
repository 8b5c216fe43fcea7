"""Data hygiene: clips that repeat others, bear another clip's caption or are unusable; see `scripts/check_data.py`."""
