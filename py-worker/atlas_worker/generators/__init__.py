"""Programs that make data files; each is run by itself, ``python -m atlas_worker.generators.NAME``, with packages of its own."""
