"""Helpers for training scripts with particular libraries."""
