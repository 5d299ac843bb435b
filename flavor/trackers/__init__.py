"""Exports the rounds of a run to other programs: TensorBoard, MLflow, tables and JSON."""
