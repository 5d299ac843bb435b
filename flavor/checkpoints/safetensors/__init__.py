"""Safetensors files: the header, the reader and the writer.

They are written here, and not taken from the library `safetensors`, because a file from another party must be parsed
with bounds on what it may claim, read without being mapped where its owner may still cut it off, filled by many threads
with its digest computed behind them, and laid out so that no file of another format begins with the same bytes.
"""
