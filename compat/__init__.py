"""The languages: the internal request model, and both directions of every wire format.

Pure functions; no I/O.  Imports msgspec and the standard library, nothing else.
"""
