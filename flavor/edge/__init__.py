"""The agent behind `flavor-fl`: one client's side of a run."""
