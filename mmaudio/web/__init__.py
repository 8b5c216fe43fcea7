"""The service: jobs that are queued, made and kept (`jobs`), HTTP (`service`) and a page for people (`page`)."""
