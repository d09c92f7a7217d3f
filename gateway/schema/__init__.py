"""The gateway says what may be asked of it: parameters, which route carries them, and which model to choose.

One invariant: nothing here is a second list.  Types come from the structs that read requests, ranges from the tables
that check them, and what a route carries from the very translation that a request would go through.
"""
