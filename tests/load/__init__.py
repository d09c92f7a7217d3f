"""What the gateway holds out: `python -m tests.load`, with crowds, slow peers, a failing provider and long hours.

A scene plays against a gateway process and ends in figures, some with a target.  Client and provider speak
through raw protocols, so that on a small machine the gateway is what is measured and not they.
"""
