"""What is one tenant's is, for every other, not there: by id, in lists, in bodies, and by the clock."""
