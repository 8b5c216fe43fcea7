"""Training: one loop, five tasks."""
