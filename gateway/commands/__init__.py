"""The command line's longer commands: a module each."""
