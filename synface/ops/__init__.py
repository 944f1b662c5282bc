"""The only place that calls ray.init; progress and logging."""
