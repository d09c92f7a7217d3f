"""What may be used: which limits bind a request, the counters that hold them, and the budgets."""
