"""How much a pool is given at a time, and who waits for the rest: learnt limit, queue, and the two joined."""
