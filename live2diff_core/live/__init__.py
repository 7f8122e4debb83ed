"""Where frames come from and where they go: sources, sinks, and what moves between them."""
