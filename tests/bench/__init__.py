"""What the gateway costs: `python -m tests.bench`, side by side with its peers on one loopback upstream.

The figure to trust is CPU per request of the contestant's own processes: on a shared machine
requests per second and latency move with the neighbours, and ratios taken in one run do not.
"""
