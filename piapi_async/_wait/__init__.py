"""Promise 2: waiting is nearly free."""
