"""Datasets: generated on the device, read from files, or sent by the client."""
