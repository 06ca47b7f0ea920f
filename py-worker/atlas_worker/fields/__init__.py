"""Fields on lattices: charts, resampling, the sphere and the icosahedral grid."""
