"""The Python SDK of the stepflow dialect."""
