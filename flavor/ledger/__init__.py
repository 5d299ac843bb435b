"""The signed and chained records of a run in the object store, to check the run and to rebuild it."""
