"""A chat template as a server runs it: sandboxed, limited, and tracing where each character came from."""
