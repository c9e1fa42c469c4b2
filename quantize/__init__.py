"""Bundle to smaller bundle."""
