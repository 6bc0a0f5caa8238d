"""What tests and benches share: the table of ops with their inputs, comparison, timing."""
