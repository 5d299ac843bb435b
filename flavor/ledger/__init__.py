"""What a run leaves behind that can be checked and rebuilt: its records in the object store, signed and chained."""
