"""What the package promises, measured.  ``python -m benchmarks --smoke`` runs all of it briefly."""
