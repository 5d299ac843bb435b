"""flavor: federated learning for training scripts that already exist.

Importing this package costs nothing: a trainer imports `flavor.cook.utils` and pays for redis alone.
"""

__version__ = "0.2.0"
