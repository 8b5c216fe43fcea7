"""From clips to batches: manifests, extraction, the feature store, mixtures and the order in which rows are seen."""
