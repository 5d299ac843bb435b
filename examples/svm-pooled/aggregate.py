"""Pool the clinics' support vectors, train on them, and keep the support vectors of that: the global model.

Repeated, with the result handed back to the clinics, this is the cascade of Graf et al., "Parallel Support Vector
Machines: The Cascade SVM" (NIPS 2004), which converges to the machine trained on all rows in one place.
"""

import sys

from model import load, pool, save, support

from flavor.cook.utils import GetPaths


def main():
    try:
        models = [load(path) for path in GetPaths("localModels")]
    except ValueError as error:  # nothing looks into an opaque checkpoint before this script does
        sys.exit(f"aggregate.py: {error}")
    rows = pool(*models)
    made = support(*rows)
    save(GetPaths("globalModel")[0], made)
    print(f"{[len(labels) for _, labels in models]} support vectors, {len(rows[1])} pooled, {len(made[1])} kept")


if __name__ == "__main__":
    main()
