"""Ways to serve the digits CNN beside go_infer: the servers, what is sent to them, and the load."""
