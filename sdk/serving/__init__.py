"""What runs inside a serving process: one predictor core, and thin faces of web frameworks on it."""
