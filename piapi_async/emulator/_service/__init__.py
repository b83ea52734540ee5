"""The service behind the API."""
