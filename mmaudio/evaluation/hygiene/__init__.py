"""Data hygiene: clips that are there twice, have another clip's caption, or cannot be used; see `scripts/check_data.py`."""
