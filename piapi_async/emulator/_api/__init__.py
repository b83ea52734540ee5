"""What the service says over HTTP."""
