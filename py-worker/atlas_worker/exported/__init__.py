"""Files that `atlas export` writes: each needs its own library alone, and nothing of Atlas."""
