"""What the loop can train; each module has a `build(config, device) -> Task`."""
