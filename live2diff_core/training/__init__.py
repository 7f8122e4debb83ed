"""Training of the small bundled model: procedural clips and classical teachers of style."""
