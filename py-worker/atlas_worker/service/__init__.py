"""The worker's service side: sessions own objects and tickets, jobs advance objects, gRPC and ZeroMQ carry it all.

``server.Worker`` puts the parts together; ``compute.Compute`` is the one thread on which tensors are worked on.
"""
