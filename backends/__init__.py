"""What serves the models: the Go server (`go_infer`), the script that builds it, and the demo models."""
