"""The service side of the worker.

Sessions own objects and tickets, jobs advance objects, and gRPC and ZeroMQ carry both.
``server.Worker`` puts the parts together. ``compute.DeviceQueues`` has the threads that work on
tensors.
"""
