"""Pickles, read without running anything that they name, and written opcode by opcode.

No library does both. `pickle.Unpickler` with a `find_class` of its own still imports and calls what it allows;
`torch.load(weights_only=True)` needs torch, and was broken twice (CVE-2025-32434, CVE-2026-24747).
"""
