"""A whole federation on one machine: what `flavor run` and `flavor demo` start, watch and collect."""
