"""The Atlas worker: the numerics of local symmetry discovery, served over gRPC and ZeroMQ."""

__version__ = "0.2.0"
