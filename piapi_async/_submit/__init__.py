"""Promise 1: it never pays twice."""
