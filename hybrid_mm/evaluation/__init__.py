"""Metrics that MMDetection and MMSegmentation do not have."""
