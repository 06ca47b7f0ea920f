"""Programs that make data files.

Run one as ``python -m atlas_worker.generators.NAME``. Some need packages of their own.
"""
