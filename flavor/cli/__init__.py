"""Click commands: they parse, call, print and choose an exit code, and nothing else."""
