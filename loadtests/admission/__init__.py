"""A simulator of overload: the gateway's own admission, and the rivals', before backends made of numbers."""
