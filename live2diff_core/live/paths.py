"""The addresses of live streams; a module that imports nothing, for hosts that start fast."""

PREFIX = "/live2diff"

# Names of `Server.handlers`, with method and path.
ROUTES = {
    "to_index": ("GET", PREFIX),
    "index": ("GET", f"{PREFIX}/"),  # camera, prompt, output, figures
    "file": ("GET", f"{PREFIX}/page/{{name}}"),
    "socket": ("GET", f"{PREFIX}/socket"),  # everything, over a WebSocket: docs/protocol.md
    "view": ("GET", f"{PREFIX}/view/{{id}}"),  # a bare page for OBS's browser source
    "mjpeg": ("GET", f"{PREFIX}/mjpeg/{{id}}"),  # for what knows nothing else
    "list": ("GET", f"{PREFIX}/streams"),  # figures of every stream
    "change": ("POST", f"{PREFIX}/streams/{{id}}"),  # needs the stream's key, as does
    "stop": ("DELETE", f"{PREFIX}/streams/{{id}}"),
    "metrics": ("GET", f"{PREFIX}/metrics"),  # for Prometheus
}
