"""The demo: real models, real servers, one gateway; what `make run` starts and what the story breaks."""
