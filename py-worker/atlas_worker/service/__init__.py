"""The service side of the worker.

Sessions own objects and tickets, jobs advance objects, and gRPC and ZeroMQ carry both.
``server.Worker`` puts the parts together. ``compute.Compute`` is the one thread that works on
tensors.
"""
