"""Streaming: denoising on the cache, and the session that owns its state."""
