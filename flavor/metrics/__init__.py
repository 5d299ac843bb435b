"""Runs as metrics for Prometheus, in the OpenMetrics format."""
