"""Stores of write-once objects: object paths, a folder, a bucket, and what a third party adds."""
