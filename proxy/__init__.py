"""images-proxy: OpenAI's Images API, answered by Prodia and ImageLabs."""

__version__ = "0.1.0"
